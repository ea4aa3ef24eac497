"""Settings of every deployed environment, from its JSON config; config.py says what each key means."""

import dj_database_url

from ..config import load
from .base import *  # noqa: F403

config = load()


# Security
# https://docs.djangoproject.com/en/6.1/topics/security/

DEBUG = False

SECRET_KEY = config.SECRET_KEY

SECRET_KEY_FALLBACKS = config.SECRET_KEY_FALLBACKS

ALLOWED_HOSTS = config.ALLOWED_HOSTS


# Database
# https://docs.djangoproject.com/en/6.1/ref/databases/#postgresql-notes

DATABASES = {"default": dj_database_url.parse(config.DATABASE_URL)}


# Static files: named after their content, so that they can be cached for ever
# https://docs.djangoproject.com/en/6.1/ref/contrib/staticfiles/#manifeststaticfilesstorage

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
