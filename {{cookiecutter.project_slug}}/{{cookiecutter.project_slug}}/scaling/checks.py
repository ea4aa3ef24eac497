"""System checks: the timeouts nest, and the database has a connection for every thread."""

from itertools import pairwise

from django.conf import settings
from django.core.checks import Error, Tags, Warning, register
from django.db import OperationalError, connections

from . import timeouts

NESTED = (
    timeouts.LADDER,
    ("PROXY_KEEPALIVE", "KEEPALIVE"),
    ("REQUEST", "DATABASE_IDLE_IN_TRANSACTION"),
    ("COMMAND_LOCK", "DATABASE_LOCK"),
)

# Connections kept for migrations, the shell, backups and monitoring.
RESERVE = 5


@register()
def timeouts_nest(**kwargs):
    """Report each timeout that is not shorter than the one around it; one that is off (None or 0) is left out."""
    errors = []
    for ladder in NESTED:
        limits = [(name, getattr(timeouts, name)) for name in ladder if getattr(timeouts, name)]
        errors += [
            Error(
                f"{inner} ({shorter} s) is not shorter than {outer} ({longer} s), which surrounds it.",
                hint=f"Lower {inner} or raise {outer} in {timeouts.__name__}.",
                id="scaling.E001",
            )
            for (inner, shorter), (outer, longer) in pairwise(limits)
            if shorter >= longer
        ]
    return errors


@register(Tags.database)
def connections_suffice(databases, **kwargs):
    """Warn where all threads together need more connections than the primary database accepts.

    Behind a pooler the threads hold none of the server's; a server that does not answer is not the check's to report.
    """
    if "default" not in (databases or ()) or settings.DATABASE_POOLER != "none":
        return []
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute(
                "SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END) FROM pg_settings"
                " WHERE name IN ('max_connections', 'reserved_connections', 'superuser_reserved_connections')"
            )
            (accepted,) = cursor.fetchone()
    except OperationalError:
        return []
    needed = settings.WORKERS * settings.THREADS * settings.HOSTS + RESERVE
    if needed <= accepted:
        return []
    return [
        Warning(
            f"{settings.WORKERS} workers × {settings.THREADS} threads × {settings.HOSTS} hosts and {RESERVE} in reserve"  # noqa: RUF001
            f" need {needed} connections; PostgreSQL accepts {accepted}.",
            hint="Lower WORKERS, THREADS or HOSTS in the config, raise max_connections, or put PgBouncer in between"
            " (DATABASE_POOLER).",
            id="scaling.W001",
        )
    ]
