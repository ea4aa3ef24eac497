"""Connections to PostgreSQL, directly or through a pooler."""

import sys

import dj_database_url

from ... import timeouts


def database(url, pooler="none"):
    """Return the entry of DATABASES for a URL, whose own parameters win.

    PgBouncer in transaction mode gives each transaction another server connection: behind it nothing is set for a
    session, and the server's timeouts are those of the role (docs/operations.md).
    """
    direct = pooler == "none"
    age = timeouts.DATABASE_MAX_AGE if direct else 0
    entry = dj_database_url.parse(url, __name__, age, conn_health_checks=direct, disable_server_side_cursors=not direct)
    options = entry["OPTIONS"] = {
        "application_name": "{{ cookiecutter.project_slug }}",
        "connect_timeout": timeouts.DATABASE_CONNECT,
        "tcp_user_timeout": timeouts.DATABASE_TCP_USER * 1000,
        "keepalives_idle": timeouts.DATABASE_KEEPALIVE,
        "keepalives_interval": timeouts.DATABASE_KEEPALIVE,
    } | entry.get("OPTIONS", {})
    if direct:
        options["options"] = f"{server_timeouts()} {options.get('options', '')}".strip()
    return entry


def server_timeouts():
    """Return the timeouts that the server keeps: those of requests in a web server, elsewhere those of commands."""
    kind = "DATABASE" if serves_requests() else "COMMAND"
    statement, lock, idle = (getattr(timeouts, f"{kind}_{of}") for of in ("STATEMENT", "LOCK", "IDLE_IN_TRANSACTION"))
    return f"-c statement_timeout={statement}s -c lock_timeout={lock}s -c idle_in_transaction_session_timeout={idle}s"


def serves_requests():
    package = __name__.partition(".")[0]
    return bool(sys.modules.keys() & {f"{package}.wsgi", f"{package}.asgi"})
