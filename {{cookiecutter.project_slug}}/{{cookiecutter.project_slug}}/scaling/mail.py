"""The mail server, or the provider with an API, that EMAIL_URL names."""

import pkgutil
from importlib.util import find_spec
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from . import timeouts

PORTS = {"smtp": 25, "smtp+tls": 587, "smtps": 465}

# Modules of anymail.backends that send nothing over HTTP with a timeout
OTHERS = {"amazon_ses", "base", "base_requests", "console", "sendinblue", "test"}


def mailer(url):
    """Return an entry of MAILERS for a URL: smtp+tls://user:password@host:587, anymail+postmark://?server_token=…"""
    parts = urlsplit(url)
    if parts.scheme.startswith("anymail+"):
        return api_mailer(parts)
    return {
        "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "OPTIONS": {
            "host": parts.hostname,
            "port": parts.port or PORTS[parts.scheme],
            "username": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "use_tls": parts.scheme == "smtp+tls",
            "use_ssl": parts.scheme == "smtps",
            "timeout": timeouts.OUTGOING,
        },
    }


def api_mailer(parts):
    """Return one for a provider of django-anymail, whose settings for it are the query of the URL, in lower case."""
    provider = parts.scheme.removeprefix("anymail+")
    if find_spec("anymail") is None:
        raise ImproperlyConfigured(
            f"EMAIL_URL: anymail+{provider} needs django-anymail, which is not installed: add it to `dependencies` in"
            " pyproject.toml, run `make lock`, and install what requirements.txt then lists."
        )
    backends = find_spec("anymail.backends").submodule_search_locations
    known = sorted({module.name for module in pkgutil.iter_modules(backends)} - OTHERS)
    if provider.replace("-", "_") not in known:
        raise ImproperlyConfigured(f'EMAIL_URL: found the provider "{provider}", expected one of: {", ".join(known)}')
    return {
        "BACKEND": f"anymail.backends.{provider.replace('-', '_')}.EmailBackend",
        "OPTIONS": dict(parse_qsl(parts.query)) | {"requests_timeout": timeouts.OUTGOING},
    }
