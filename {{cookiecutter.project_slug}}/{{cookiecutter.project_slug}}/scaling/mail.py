"""The mail server that EMAIL_URL names."""

from urllib.parse import unquote, urlsplit

from . import timeouts

PORTS = {"smtp": 25, "smtp+tls": 587, "smtps": 465}


def mailer(url):
    """Return an entry of MAILERS for a URL such as smtp+tls://user:password@host:587."""
    parts = urlsplit(url)
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
