"""Settings of every deployed environment, from its JSON config; config.py says what each key means."""

from ..config import Config
from ..scaling.db.postgresql import database
from ..scaling.logs.lines import logging_config
from ..scaling.mail import mailer
{% if cookiecutter.use_celery %}
from ..scaling.tasks.broker import broker_options
{% endif %}
from .base import *
{% if cookiecutter.use_celery %}
from .tasks import *
{% endif %}

config = Config.load()


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
{% if cookiecutter.use_replica %}


# Replicas
# https://docs.djangoproject.com/en/6.1/topics/db/multi-db/

DATABASES |= {
    f"replica_{number}": database(url, config.DATABASE_POOLER)
    | {"ENGINE": "{{ cookiecutter.project_slug }}.scaling.db.replicas", "TEST": {"MIRROR": "default"}}
    for number, url in enumerate(config.REPLICA_DATABASE_URLS, 1)
}
{% endif %}


# Cache: environments that share a cache do not share its keys
# https://docs.djangoproject.com/en/6.1/topics/cache/

CACHES = {
    "default": CACHES["default"] | {"KEY_PREFIX": f"{{ cookiecutter.project_slug }}:{config.ENVIRONMENT}"},
}
{% if cookiecutter.use_redis %}


# Redis: the cache, with copies of the sessions; without CACHE_REDIS_URL not even imported, which takes 18 MB
# https://docs.djangoproject.com/en/6.1/topics/http/sessions/#using-cached-sessions

if config.CACHE_REDIS_URL:
    in_redis = CACHES["default"] | {"LOCATION": config.CACHE_REDIS_URL, "OPTIONS": {}}
    backends = "{{ cookiecutter.project_slug }}.scaling.cache.redis_cache"
    CACHES = {
        "default": in_redis | {"BACKEND": f"{backends}.RedisCache"},
        "sessions": in_redis | {"BACKEND": f"{backends}.SessionCache"},
    }
    SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
    SESSION_CACHE_ALIAS = "sessions"
{% endif %}


# Public pages: what nginx keeps of them

PURGE_ADDRESSES = config.PURGE_ADDRESSES


# Static files: named after their content, so that they can be cached for ever
# https://whitenoise.readthedocs.io/en/stable/django.html

STORAGES = STORAGES | {
{% if cookiecutter.use_cdn %}
    "staticfiles": {"BACKEND": "{{ cookiecutter.project_slug }}.scaling.http.cdn.StaticFilesStorage"},
{% else %}
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
{% endif %}
}


# Mail: without EMAIL_URL there is no mailer, and to send is an error rather than a message lost unseen
# https://docs.djangoproject.com/en/6.1/topics/email/

MAILERS = {"default": mailer(config.EMAIL_URL)} if config.EMAIL_URL else {}
{% if cookiecutter.use_celery %}


# Background tasks: all other settings of Celery are in settings/tasks.py
# https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/

CELERY_BROKER_URL = config.CELERY_BROKER_URL

CELERY_BROKER_TRANSPORT_OPTIONS, CELERY_BROKER_USE_SSL = broker_options(CELERY_BROKER_URL)
{% endif %}
{% if cookiecutter.use_cdn %}


# CDN: with CDN_URL, browsers have static files from its host, which has them from the site; pages say who may keep them
# https://whitenoise.readthedocs.io/en/stable/django.html#use-a-content-delivery-network

if config.CDN_URL:
    STATIC_URL = f"{config.CDN_URL}/static/"

    SECURE_CSP = SECURE_CSP | {
        name: [*SECURE_CSP.get(name, SECURE_CSP["default-src"]), STATIC_URL]
        for name in ("script-src", "style-src", "img-src", "font-src")
    }
{% endif %}
{% if cookiecutter.media_storage == "filesystem" %}


# Uploaded files: in a folder that nginx serves

MEDIA_ROOT = config.MEDIA_ROOT
{% endif %}
{% if cookiecutter.media_storage == "s3" %}


# Uploaded files: private unless the field of a model asks for the public bucket. The class is imported with the first
# file, not before: boto3 takes half a second, and with its client 24 MB.
# https://django-storages.readthedocs.io/en/stable/backends/amazon-S3.html

bucket = {
    "endpoint_url": config.MEDIA_S3_ENDPOINT_URL,
    "region_name": config.MEDIA_S3_REGION,
    "access_key": config.MEDIA_S3_ACCESS_KEY,
    "secret_key": config.MEDIA_S3_SECRET_KEY,
}
private_bucket = bucket | {
    "bucket_name": config.MEDIA_S3_PRIVATE_BUCKET,
    "querystring_expire": SHORT_TTL,
    "object_parameters": {"CacheControl": f"private, max-age={SHORT_TTL}"},
}
scheme, _, domain = (config.MEDIA_CDN_URL or f"{config.MEDIA_S3_ENDPOINT_URL}/{config.MEDIA_S3_BUCKET}").partition("//")
public_bucket = bucket | {
    "bucket_name": config.MEDIA_S3_BUCKET,
    "url_protocol": scheme,
    "custom_domain": domain,
    "querystring_auth": False,
    "object_parameters": {"CacheControl": f"public, max-age={FOREVER_TTL}, immutable"},
}

STORAGES = STORAGES | {
    "default": {
        "BACKEND": "{{ cookiecutter.project_slug }}.scaling.files.s3.S3Storage",
        "OPTIONS": private_bucket,
    },
    "public": {
        "BACKEND": "{{ cookiecutter.project_slug }}.scaling.files.s3.S3Storage",
        "OPTIONS": public_bucket,
    },
}

# Of the service's host only these two buckets: anybody may have one there
shown = [f"{scheme}//{domain}/", f"{config.MEDIA_S3_ENDPOINT_URL}/{config.MEDIA_S3_PRIVATE_BUCKET}/"]
SECURE_CSP = SECURE_CSP | {
    name: [*SECURE_CSP.get(name, SECURE_CSP["default-src"]), *shown] for name in ("img-src", "media-src")
}
{% endif %}
{% if cookiecutter.use_sentry %}


# Sentry: off without SENTRY_DSN, and then not even imported, which takes 15 MB
# https://docs.sentry.io/platforms/python/integrations/django/

if config.SENTRY_DSN:
    from ..scaling.logs import sentry

    sentry.start(config.SENTRY_DSN, config.ENVIRONMENT)
{% endif %}


# Logs
# https://docs.djangoproject.com/en/6.1/topics/logging/

LOGGING = logging_config(config.LOG_LEVEL)

STATSD_URL = config.STATSD_URL
