"""Settings of the machines of developers. What only yours needs is in local.py, which imports these."""

import os

from ..scaling.db.postgresql import database
from ..scaling.local import postgres
from ..scaling.logs.lines import ReadableFormatter, logging_config
from ..scaling.mail import mailer
{% if cookiecutter.use_celery %}
from ..scaling.tasks.broker import broker_options
{% endif %}
from .base import *
{% if cookiecutter.use_celery %}
from .tasks import *
{% endif %}

DEBUG = True

SECRET_KEY = "a-secret-key-for-this-machine-only"  # noqa: S105

ALLOWED_HOSTS = ["*"]

INTERNAL_IPS = ["127.0.0.1"]


# Database: a PostgreSQL of this project's own in .local/, or the one that DATABASE_URL names

DATABASES = {"default": database(os.environ.get("DATABASE_URL") or postgres.start())}


# Cache: off, so that every page is made anew; `CACHE=on make dev` caches as the servers do

if os.environ.get("CACHE") != "on":
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}


# Debug toolbar
# https://django-debug-toolbar.readthedocs.io/

INSTALLED_APPS = [*INSTALLED_APPS, "debug_toolbar"]

MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware", *MIDDLEWARE]

DEBUG_TOOLBAR_CONFIG = {"SHOW_COLLAPSED": True}


# Pages below /dev/: how the parts are, samples, mails. What browsers refuse by the policy they report there.

INSTALLED_APPS = [*INSTALLED_APPS, "{{ cookiecutter.project_slug }}.scaling.local"]

SECURE_CSP = SECURE_CSP | {"report-uri": ["/dev/csp/"]}


# Mail: kept in .local/mail and shown on /dev/mail/, or sent to the server that EMAIL_URL names

MAILERS = {"default": {"BACKEND": "{{ cookiecutter.project_slug }}.scaling.local.mail.EmailBackend"}}

if os.environ.get("EMAIL_URL"):
    MAILERS = {"default": mailer(os.environ["EMAIL_URL"])}
{% if cookiecutter.use_celery %}


# Background tasks: for the worker that `make dev` runs; where there is no broker, at once in the same process

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL")

CELERY_BROKER_TRANSPORT_OPTIONS, CELERY_BROKER_USE_SSL = broker_options(CELERY_BROKER_URL)

CELERY_TASK_ALWAYS_EAGER = not CELERY_BROKER_URL
{% endif %}
{% if cookiecutter.media_storage == "s3" %}


# Uploaded files: in .local/media instead of buckets, the public ones too

STORAGES = STORAGES | {"public": STORAGES["default"]}
{% endif %}


# Logs: for people

LOGGING = logging_config(LOG_LEVEL, ReadableFormatter)
