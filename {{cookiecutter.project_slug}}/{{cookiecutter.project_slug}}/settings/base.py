"""Settings that hold everywhere: on your machine, in tests, on every server."""

from pathlib import Path

from django.utils.csp import CSP

BASE_DIR = Path(__file__).resolve().parent.parent.parent


# Application
# https://docs.djangoproject.com/en/6.1/ref/settings/#core-settings

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "{{ cookiecutter.project_slug }}.accounts",
    "{{ cookiecutter.project_slug }}.scaling",
{% if cookiecutter.use_celery %}
    "{{ cookiecutter.project_slug }}.scaling.tasks",
{% endif %}
]

MIDDLEWARE = [
{% if cookiecutter.use_replica %}
    # Before all others: to see what the session writes, and that no cache keeps a response to one who wrote
    "{{ cookiecutter.project_slug }}.scaling.db.replicas.replicas",
{% endif %}
    "{{ cookiecutter.project_slug }}.scaling.http.health.health",
    "{{ cookiecutter.project_slug }}.scaling.logs.request_log.request_log",
    "{{ cookiecutter.project_slug }}.scaling.http.deadline.deadline_middleware",
    "{{ cookiecutter.project_slug }}.scaling.http.proxies.trusted_proxies",
    "django.middleware.security.SecurityMiddleware",
    "{{ cookiecutter.project_slug }}.scaling.http.security.security",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    # Around all that sets cookies; static files do not come by
    "{{ cookiecutter.project_slug }}.scaling.http.public.cache_headers",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "{{ cookiecutter.project_slug }}.scaling.http.languages.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "{{ cookiecutter.project_slug }}.scaling.http.messages.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "{{ cookiecutter.project_slug }}.urls"

WSGI_APPLICATION = "{{ cookiecutter.project_slug }}.wsgi.application"


# Templates: deployed projects cache the compiled ones, as Django does whenever DEBUG is off
# https://docs.djangoproject.com/en/6.1/topics/templates/

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "{{ cookiecutter.project_slug }}" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.csp",
                "django.template.context_processors.i18n",
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "{{ cookiecutter.project_slug }}.scaling.cache.ttls",
            ],
        },
    },
]


# Security
# https://docs.djangoproject.com/en/6.1/topics/security/

# What pages may load, and where their forms may lead, redirects included: name the hosts that they sign in or pay with.
# docs/operations.md says how to allow more, on all pages or on one.
SECURE_CSP = {
    "default-src": [CSP.SELF],
    "script-src": [CSP.SELF, CSP.NONCE],
    "style-src": [CSP.SELF, CSP.NONCE],
    "img-src": [CSP.SELF, "data:"],
    "object-src": [CSP.NONE],
    "base-uri": [CSP.NONE],
    "form-action": [CSP.SELF],
    "frame-ancestors": [CSP.NONE],
}

# What pages below a path may load besides, for apps that bring their own pages: docs/third-party.md
CSP_BELOW = {}

PERMISSIONS_POLICY = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"

# An hour, to begin with: browsers remember it that long, however wrong it was
SECURE_HSTS_SECONDS = 3600

# Proxies whose word on a client's address and scheme is believed: addresses and networks
TRUSTED_PROXIES = []

# Bytes of a request with all its uploads, as in nginx.conf, and of the part of it that is held in memory
MAX_BODY_SIZE = 10 * 1024 * 1024

DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024


# Database: what the rows of a result lack is fetched for all of them in one query; the tests set FETCH_RAISE
# https://docs.djangoproject.com/en/6.1/topics/db/fetch-modes/

FETCH_MODE = "FETCH_PEERS"
{% if cookiecutter.use_replica %}


# Replicas: pages read from them where the config names some, and from the primary what has to be fresh
# https://docs.djangoproject.com/en/6.1/topics/db/multi-db/#automatic-database-routing

DATABASE_ROUTERS = ["{{ cookiecutter.project_slug }}.scaling.db.replicas.router.Router"]
{% endif %}


# Cache: a table that `migrate` creates
# https://docs.djangoproject.com/en/6.1/topics/cache/#database-caching

SHORT_TTL = 10 * 60

MIDDLE_TTL = 30 * 60

LONG_TTL = 60 * 60

FOREVER_TTL = 7 * 24 * 60 * 60

CACHES = {
    "default": {
        "BACKEND": "{{ cookiecutter.project_slug }}.scaling.cache.database_cache.DatabaseCache",
        "LOCATION": "cache",
        "KEY_PREFIX": "{{ cookiecutter.project_slug }}",
        "TIMEOUT": SHORT_TTL,
        # One write in a hundred counts the rows first: 0.4 ms at 10,000 of them, 2.2 ms at 100,000.
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    },
}


# Public pages: where each nginx that keeps some is told to purge them; the config names those of servers

PURGE_ADDRESSES = []


# Accounts
# https://docs.djangoproject.com/en/6.1/topics/auth/

AUTH_USER_MODEL = "accounts.User"

LOGIN_URL = "login"

LOGIN_REDIRECT_URL = "account"

LOGOUT_REDIRECT_URL = "home"

PASSWORD_HASHERS = [
    "{{ cookiecutter.project_slug }}.scaling.passwords.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

# Attempts that one address has within so many seconds, and how many of these for the same account. Logins, the admin's
# included, and old passwords count if they fail; of IPv6, all that begin with the same 64 bits are one address.
RATE_LIMITS = {
    "login": {"seconds": 15 * 60, "per_address": 50, "per_account": 10},
    "signup": {"seconds": 60 * 60, "per_address": 50, "per_account": 10},
    "password_change": {"seconds": 15 * 60, "per_address": 50, "per_account": 10},
    "password_reset": {"seconds": 60 * 60, "per_address": 20, "per_account": 5},
}


# Internationalization
# https://docs.djangoproject.com/en/6.1/topics/i18n/

LANGUAGE_CODE = "en-us"

# With a second one, visitors get theirs; docs/operations.md says how to add it
LANGUAGES = [(LANGUAGE_CODE, "English")]

LOCALE_PATHS = [BASE_DIR / "{{ cookiecutter.project_slug }}" / "locale"]

TIME_ZONE = "UTC"


# Static files
# https://docs.djangoproject.com/en/6.1/howto/static-files/

STATIC_URL = "static/"

STATIC_ROOT = BASE_DIR / "staticfiles"

STATICFILES_DIRS = [BASE_DIR / "{{ cookiecutter.project_slug }}" / "static"]
{% if cookiecutter.use_cdn %}

# Those of former releases, too, which the manifest no longer names
WHITENOISE_IMMUTABLE_FILE_TEST = r"\.[0-9a-f]{12}\.[^/]+$"


# CDN

# The dotted name of the function that `manage.py purge` calls with a list of URLs, after each nginx
CDN_PURGE = None
{% endif %}


# Uploaded files
# https://docs.djangoproject.com/en/6.1/topics/files/

MEDIA_URL = "media/"

MEDIA_ROOT = BASE_DIR / ".local" / "media"

STORAGES = {
    "default": {"BACKEND": "{{ cookiecutter.project_slug }}.scaling.files.uploads.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}


# Mail
# https://docs.djangoproject.com/en/6.1/topics/email/

DEFAULT_FROM_EMAIL = "noreply@{{ cookiecutter.domain_name }}"


# Logs
# https://docs.djangoproject.com/en/6.1/topics/logging/

LOG_LEVEL = "INFO"

# Where the figures of each request go, too: a URL such as udp://127.0.0.1:8125
STATSD_URL = None
