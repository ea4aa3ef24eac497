"""Connections to PostgreSQL that end in time, directly or through a pooler."""

import dj_database_url

from .. import timeouts


def database(url, pooler="none"):
    """Return the entry of DATABASES for a URL, whose own query parameters win.

    PgBouncer in transaction mode gives each transaction another server connection: behind it nothing is set for a
    session or at its start, and the timeouts are those of the role (ALTER ROLE … SET, see docs/operations.md).
    """
    direct = pooler == "none"
    entry = dj_database_url.parse(
        url,
        engine=__name__,
        conn_max_age=timeouts.DATABASE_MAX_AGE if direct else 0,
        conn_health_checks=direct,
        disable_server_side_cursors=not direct,
    )
    given = entry.get("OPTIONS", {})
    entry["OPTIONS"] = {
        "application_name": "{{ cookiecutter.project_slug }}",
        "connect_timeout": timeouts.DATABASE_CONNECT,
        "tcp_user_timeout": timeouts.DATABASE_TCP_USER * 1000,
        "keepalives_idle": timeouts.DATABASE_KEEPALIVE,
        "keepalives_interval": timeouts.DATABASE_KEEPALIVE,
        "keepalives_count": 2,
        **given,
    }
    if direct:
        limits = server_timeouts(
            timeouts.DATABASE_STATEMENT, timeouts.DATABASE_LOCK, timeouts.DATABASE_IDLE_IN_TRANSACTION
        )
        entry["OPTIONS"]["options"] = f"{limits} {given.get('options', '')}".rstrip()
    return entry


def server_timeouts(statement, lock, idle_in_transaction):
    """Return timeouts, in seconds, as options that a PostgreSQL session starts with; the last of each kind wins."""
    return (
        f"-c statement_timeout={statement}s -c lock_timeout={lock}s"
        f" -c idle_in_transaction_session_timeout={idle_in_transaction}s"
    )
