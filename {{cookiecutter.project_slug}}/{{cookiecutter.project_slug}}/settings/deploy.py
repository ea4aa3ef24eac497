"""Settings of every deployed environment, from its JSON config; config.py says what each key means."""

from ..config import load
from ..scaling.logs import logging_config
from ..scaling.mail import mailer
from ..scaling.postgresql import database
from .base import *  # noqa: F403
from .base import CACHES

config = load()


# Security
# https://docs.djangoproject.com/en/6.1/topics/security/

DEBUG = False

SECRET_KEY = config.SECRET_KEY

SECRET_KEY_FALLBACKS = config.SECRET_KEY_FALLBACKS

ALLOWED_HOSTS = config.ALLOWED_HOSTS

TRUSTED_PROXIES = config.TRUSTED_PROXIES

SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

SECURE_SSL_REDIRECT = config.HTTPS

SESSION_COOKIE_SECURE = config.HTTPS

CSRF_COOKIE_SECURE = config.HTTPS

SECURE_HSTS_SECONDS = config.HSTS_SECONDS

SECURE_HSTS_INCLUDE_SUBDOMAINS = config.HSTS_SUBDOMAINS

# The config decides on subdomains and on mail; the browsers' preload lists, which are for ever, are nobody's default.
SILENCED_SYSTEM_CHECKS = ["mail.W001", "security.W005", "security.W021"]


# Database
# https://docs.djangoproject.com/en/6.1/ref/databases/#postgresql-notes

DATABASES = {"default": database(config.DATABASE_URL, config.DATABASE_POOLER)}

# What a system check compares with the connections that the database accepts

DATABASE_POOLER = config.DATABASE_POOLER

WORKERS = config.workers

THREADS = config.THREADS

HOSTS = config.HOSTS


# Cache: environments that share a cache do not share its keys
# https://docs.djangoproject.com/en/6.1/topics/cache/

CACHES = {
    "default": CACHES["default"] | {"KEY_PREFIX": f"{{ cookiecutter.project_slug }}:{config.ENVIRONMENT}"},
}


# Static files: named after their content, so that they can be cached for ever
# https://whitenoise.readthedocs.io/en/stable/django.html

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}


# Mail: without EMAIL_URL there is no mailer, and to send is an error rather than a message lost unseen
# https://docs.djangoproject.com/en/6.1/topics/email/

MAILERS = {"default": mailer(config.EMAIL_URL)} if config.EMAIL_URL else {}
{% if cookiecutter.use_celery %}


# Background tasks: celery.py has what holds everywhere
# https://docs.celeryq.dev/en/stable/userguide/configuration.html

CELERY_BROKER_URL = config.CELERY_BROKER_URL
{% endif %}
{% if cookiecutter.use_sentry %}


# Sentry: off without SENTRY_DSN, and then not even imported, which takes 15 MB
# https://docs.sentry.io/platforms/python/integrations/django/

if config.SENTRY_DSN:
    from ..scaling import sentry

    sentry.start(config.SENTRY_DSN, config.ENVIRONMENT)
{% endif %}

# Logs
# https://docs.djangoproject.com/en/6.1/topics/logging/

LOGGING = logging_config(config.LOG_LEVEL)

STATSD_URL = config.STATSD_URL
