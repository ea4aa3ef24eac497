"""What is said of the config: which values a key accepts, what was found instead, what may be shown, and an example.

`wanted` is everywhere the JSON Schema of a value, made by msgspec from the type of its key.
"""

import difflib
import json
import re
import secrets

from django.conf import global_settings

KINDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
BOUNDS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "up to {}",
    "exclusiveMaximum": "below {}",
    "minLength": "of {} or more characters",
    "maxLength": "of at most {} characters",
    "minItems": "of {} or more",
    "maxItems": "of at most {}",
    "pattern": "that matches {}",
    "format": "with the format {}",
}

# Names from other projects, by the key that takes their place here; those that no key takes the place of have a hint.
FORMER_NAMES = {
    "SECRET_KEY": "SECRET DJANGO_SECRET_KEY",
    "ALLOWED_HOSTS": "DOMAIN DOMAIN_NAME HOSTNAME SERVER_NAME DJANGO_ALLOWED_HOSTS",
    "ENVIRONMENT": "ENV DJANGO_ENV",
    "TRUSTED_PROXIES": "FORWARDED_ALLOW_IPS",
    "HTTPS": "SECURE_SSL_REDIRECT SESSION_COOKIE_SECURE CSRF_COOKIE_SECURE SSL",
    "HSTS_SECONDS": "SECURE_HSTS_SECONDS",
    "HSTS_SUBDOMAINS": "SECURE_HSTS_INCLUDE_SUBDOMAINS",
    "DATABASE_URL": "DATABASE DATABASES DB DB_URL DB_ENGINE DB_HOST DB_NAME DB_PASSWORD DB_PORT DB_USER"
    " DATABASE_HOST DATABASE_NAME DATABASE_PASSWORD DATABASE_PORT DATABASE_USER"
    " POSTGRES_URL POSTGRES_DB POSTGRES_HOST POSTGRES_PASSWORD POSTGRES_PORT POSTGRES_USER",
{% if cookiecutter.use_replica %}
    "REPLICA_DATABASE_URLS": "REPLICA_URL REPLICA_DATABASE_URL DATABASE_REPLICA_URL SLAVE_DATABASE_URL",
{% endif %}
    "WORKERS": "WEB_CONCURRENCY GUNICORN_WORKERS",
    "THREADS": "GUNICORN_THREADS",
{% if cookiecutter.use_redis %}
    "CACHE_REDIS_URL": "CACHES CACHE_URL CACHE_LOCATION REDIS REDIS_HOST REDIS_PORT REDIS_URL",
{% endif %}
    "EMAIL_URL": "EMAIL_BACKEND EMAIL_HOST EMAIL_HOST_PASSWORD EMAIL_HOST_USER EMAIL_PORT EMAIL_USE_SSL EMAIL_USE_TLS"
    " MAILERS MAIL_URL SMTP_URL",
{% if cookiecutter.use_celery %}
    "CELERY_BROKER_URL": "BROKER BROKER_URL CELERY_BROKER CLOUDAMQP_URL RABBITMQ_URL REDIS_URL",
{% endif %}
{% if cookiecutter.use_cdn %}
    "CDN_URL": "CDN CDN_HOST STATIC_HOST STATIC_URL",
{% endif %}
{% if cookiecutter.media_storage == "filesystem" %}
    "MEDIA_ROOT": "MEDIA MEDIA_DIR UPLOAD_DIR UPLOADS",
{% endif %}
{% if cookiecutter.media_storage == "s3" %}
    "MEDIA_S3_ENDPOINT_URL": "AWS_S3_ENDPOINT_URL",
    "MEDIA_S3_REGION": "AWS_REGION AWS_S3_REGION_NAME",
    "MEDIA_S3_BUCKET": "AWS_STORAGE_BUCKET_NAME",
    "MEDIA_S3_ACCESS_KEY": "AWS_ACCESS_KEY_ID AWS_S3_ACCESS_KEY_ID",
    "MEDIA_S3_SECRET_KEY": "AWS_SECRET_ACCESS_KEY AWS_S3_SECRET_ACCESS_KEY",
    "MEDIA_CDN_URL": "AWS_S3_CUSTOM_DOMAIN MEDIA_URL",
{% endif %}
{% if cookiecutter.use_sentry %}
    "SENTRY_DSN": "RAVEN_DSN SENTRY SENTRY_URL",
{% endif %}
    "LOG_LEVEL": "DJANGO_LOG_LEVEL LOGGING LOGGING_LEVEL",
    "STATSD_URL": "STATSD STATSD_HOST",
}
HINTS = {
{% if not cookiecutter.use_redis %}
    "CACHES": "the cache is a table of the database, as settings/base.py says",
    "CACHE_URL": "the cache is a table of the database, as settings/base.py says",
{% endif %}
    "DEBUG": "it is off on every server, and on in settings/development.py",
    "DJANGO_DEBUG": "DEBUG is off on every server, and on in settings/development.py",
    "DJANGO_SETTINGS_MODULE": "it is set in the environment",
}


def unknown(key, properties):
    """Say that a key is unknown, and what was probably meant."""
    name = key.upper()
    if name in HINTS:
        return f"{key}: unknown key; {HINTS[name]}"
    for current, former in FORMER_NAMES.items():
        if name in former.split() and current in properties:
            return f"{key}: unknown key, use {current}: {expected(properties[current])}"
    if near := difflib.get_close_matches(name, properties, n=1, cutoff=0.75):
        return f"{key}: unknown key, did you mean {near[0]}?"
    if hasattr(global_settings, name):
        return f"{key}: unknown key; as a setting of Django that is the same everywhere, it goes into settings/base.py"
    return f"{key}: unknown key"


def expected(wanted):
    """Say what is accepted: the title or, without one, words for the type and its bounds."""
    if "title" in wanted:
        return wanted["title"]
    if "enum" in wanted:
        *others, last = [json.dumps(value, ensure_ascii=False) for value in wanted["enum"]]
        return f"{', '.join(others)} or {last}" if others else last
    if "anyOf" in wanted:
        return ", or ".join(expected(part) for part in wanted["anyOf"])
    kind = KINDS.get(wanted.get("type"), "any value")
    bounds = " and ".join(words.format(wanted[bound]) for bound, words in BOUNDS.items() if bound in wanted)
    parts = [f"each: {expected(each)}" for each in members(wanted)]
    parts += [f"{name}: {expected(part)}" for name, part in wanted.get("properties", {}).items()]
    return " ".join(filter(None, [kind, bounds, f"({', '.join(parts)})" if parts else ""]))


def is_list(value, wanted):
    """Tell whether a value is a list of as many items as are wanted, all of one kind."""
    if not isinstance(value, list) or not isinstance(wanted.get("items"), dict):
        return False
    return wanted.get("minItems", 0) <= len(value) <= wanted.get("maxItems", len(value))


def found(value, secret=False):
    """Name a value for an error message; of a secret, only its kind."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if value == "":
        return "an empty text"
    if secret:
        return f"a text of {len(value)} characters" if isinstance(value, str) else "a value that is no text"
    return json.dumps(value, ensure_ascii=False)[:80]


def is_secret(wanted):
    """Tell whether a value is a secret, or holds one."""
    parts = [*wanted.get("anyOf", []), *wanted.get("properties", {}).values(), *members(wanted)]
    return wanted.get("writeOnly", False) or any(is_secret(part) for part in parts)


def members(wanted):
    """Return the schema of what a list or an object holds, in a list, which is empty where there is none."""
    return [wanted[name] for name in ("items", "additionalProperties") if isinstance(wanted.get(name), dict)]


def sounds_secret(key, wanted):
    """Tell whether a text is secret by the name of its key: most are that nobody marked."""
    holds_text = any(part.get("type") == "string" for part in [wanted, *wanted.get("anyOf", [])])
    return holds_text and re.search("SECRET|TOKEN|PASSWORD|_KEY$", key) is not None


def hidden(value, wanted):
    """Return a secret as it may be shown: a URL without its password, anything else not at all."""
    if value is None:
        return None
    wanted = next((part for part in wanted.get("anyOf", []) if is_secret(part)), wanted)
    if isinstance(value, list):
        return [hidden(item, wanted.get("items") or {}) for item in value]
    if wanted.get("format") != "uri":
        return "********"
    value = re.sub(r"(://[^:@]*):.*@", r"\1:********@", value)
    return re.sub(r"([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&]*", r"\1********", value, flags=re.IGNORECASE)


def example(wanted):
    """Return the default, the first example or a value by the type; a text with a least length is a random one."""
    if "default" in wanted:
        return wanted["default"]
    for name in ("examples", "enum"):
        if name in wanted:
            return wanted[name][0]
    if "anyOf" in wanted:
        return example(wanted["anyOf"][0])
    match wanted.get("type"):
        case "string":
            return secrets.token_urlsafe(wanted["minLength"]) if "minLength" in wanted else "example"
        case "integer" | "number":
            return wanted.get("minimum", wanted.get("exclusiveMinimum", 0) + 1)
        case "boolean":
            return False
        case "array":
            items = wanted.get("prefixItems") or [wanted.get("items", {})] * wanted.get("minItems", 0)
            return [example(item) for item in items]
        case "object":
            return {name: example(wanted["properties"][name]) for name in wanted.get("required", [])}
    return None
