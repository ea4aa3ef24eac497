"""Connections to PostgreSQL, directly or through a pooler, and the timeouts of their sessions."""

import sys

import dj_database_url
from django.conf import settings

from ... import timeouts
{% if cookiecutter.use_celery %}

# Whether this process runs tasks: a worker of Celery sets it (tasks/workers.py), and its children inherit it.
runs_tasks = False
{% endif %}


def database(url, pooler="none"):
    """Return the entry of DATABASES for a URL, whose own parameters win.

    PgBouncer in transaction mode gives each transaction another server connection: behind it nothing is set for a
    session, and the server's timeouts are those of the role (docs/operations.md).
    """
    direct = pooler == "none"
    age = timeouts.DATABASE_MAX_AGE if direct else 0
    entry = dj_database_url.parse(url, __name__, age, conn_health_checks=direct, disable_server_side_cursors=not direct)
    entry["OPTIONS"] = {
        "application_name": "{{ cookiecutter.project_slug }}",
        "connect_timeout": timeouts.DATABASE_CONNECT,
        "tcp_user_timeout": timeouts.DATABASE_TCP_USER * 1000,
        "keepalives_idle": timeouts.DATABASE_KEEPALIVE,
        "keepalives_interval": timeouts.DATABASE_KEEPALIVE,
    } | entry.get("OPTIONS", {})
    return entry


def session_timeouts():
    """Return the timeouts that the server keeps for a session of this process, by their names in PostgreSQL.

    Those of commands hold in development too, where a debugger may stop in a transaction.
    """
    statement, lock = timeouts.COMMAND_STATEMENT, timeouts.COMMAND_LOCK
    idle = timeouts.COMMAND_IDLE_IN_TRANSACTION
    if serves_requests() and not settings.DEBUG:
        statement, lock = timeouts.DATABASE_STATEMENT, timeouts.DATABASE_LOCK
        idle = timeouts.DATABASE_IDLE_IN_TRANSACTION
{% if cookiecutter.use_celery %}
    elif runs_tasks:
        statement = timeouts.TASK_SOFT
{% endif %}
    seconds = {"statement_timeout": statement, "lock_timeout": lock, "idle_in_transaction_session_timeout": idle}
    return {name: f"{value}s" for name, value in seconds.items()}


def serves_requests():
    package = __name__.partition(".")[0]
    return bool(sys.modules.keys() & {f"{package}.wsgi", f"{package}.asgi"})
