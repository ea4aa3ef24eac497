"""System checks: the timeouts nest, and PostgreSQL has a connection for every thread."""

{% if cookiecutter.use_celery %}
import os
{% endif %}
from itertools import pairwise

from django.conf import settings
from django.core.checks import Error, Tags, Warning, register
from django.db import OperationalError, connections

from . import timeouts
{% if cookiecutter.use_replica %}
from .db.replicas import watch
{% endif %}

RESERVE = 5  # connections for migrations, the shell, backups, monitoring and probes

ACCEPTED = """
    SELECT sum(CASE name WHEN 'max_connections' THEN setting::int ELSE -setting::int END) FROM pg_settings
    WHERE name IN ('max_connections', 'reserved_connections', 'superuser_reserved_connections')
"""


@register()
def timeouts_nest(**kwargs):
    """Report two timeouts of which the inner one is not shorter; one that is off (None) stands in nobody's way."""
    seconds = {name: value for name, value in vars(timeouts).items() if name.isupper() and value}
    names = list(seconds)
    pairs = [
        *pairwise(names[: names.index("PROXY") + 1]),
        ("PROXY_KEEPALIVE", "KEEPALIVE"),
        ("REQUEST", "DATABASE_IDLE_IN_TRANSACTION"),
        ("COMMAND_LOCK", "DATABASE_LOCK"),
        ("DATABASE_SUSPECT", "DATABASE_STATEMENT"),
        ("READY", "REQUEST"),
{% if cookiecutter.use_celery %}
        ("TASK_SHUTDOWN", "TASK_SOFT"),
        ("TASK_SOFT", "TASK_HARD"),
        ("TASK_HARD", "TASK_VISIBILITY"),
{% endif %}
{% if cookiecutter.use_replica %}
        ("REPLICA_LAG", "REPLICA_PIN"),
{% endif %}
    ]
    return [
        Error(
            f"{inner} ({seconds[inner]} s) is not shorter than {outer} ({seconds[outer]} s).",
            hint=f"Lower {inner} or raise {outer} in {timeouts.__name__}.",
            id="scaling.E001",
        )
        for inner, outer in pairs
        if inner in seconds and outer in seconds and seconds[inner] >= seconds[outer]
    ]


@register(Tags.database)
def connections_suffice(databases, **kwargs):
    """Warn if all processes together need more connections than a server accepts; behind a pooler they hold none."""
    if "default" not in databases or getattr(settings, "DATABASE_POOLER", None) != "none":  # unset where not deployed
        return []
    warnings = []
    for alias in ["default"{% if cookiecutter.use_replica %}, *watch.replicas(){% endif %}]:
        held = connections_held(alias)
        needed, accepted = sum(held.values()) + RESERVE, connections_accepted(alias)
        if needed > accepted:
            message = f"{', '.join(held)} and {RESERVE} more need {needed} connections; {alias} accepts {accepted}."
            hint = "Lower WORKERS, THREADS or HOSTS in the config, raise max_connections, or put PgBouncer in between."
            warnings.append(Warning(message, hint=hint, id="scaling.W001"))
    return warnings


def connections_held(alias):
    """Return how many connections to a server are held, by those who hold them."""
    workers, threads, hosts = settings.WORKERS, settings.THREADS, settings.HOSTS
    held = {f"{workers} workers x {threads} threads x {hosts} hosts": workers * threads * hosts}
    if alias == "default":
        held[f"{workers * hosts} that workers probe the server on"] = workers * hosts
{% if cookiecutter.use_replica %}
    if watch.replicas():
        held[f"{workers * hosts} threads that watch the replicas"] = workers * hosts
{% endif %}
{% if cookiecutter.use_celery %}
    if alias == "default":  # a worker for each queue, with one connection for the outbox, and beat
        processes = getattr(settings, "CELERY_WORKER_CONCURRENCY", None) or os.cpu_count() or 1
        background = hosts * (len(settings.CELERY_TASK_QUEUES) * (processes + 1) + 1)
        held[f"{background} of Celery"] = background
{% endif %}
    return held


def connections_accepted(alias):
    """Return how many connections a server accepts; one that is down is not this check's to report."""
    try:
        connections[alias].ensure_connection()
        with connections[alias].cursor() as cursor:
            cursor.execute(ACCEPTED)
            return cursor.fetchone()[0]
    except OperationalError:
        return float("inf")
{% if cookiecutter.media_storage == "s3" %}


@register(Tags.security)
def buckets_differ(**kwargs):
    """Report private files in the bucket that everybody may read."""
    buckets = [settings.STORAGES.get(name, {}).get("OPTIONS", {}).get("bucket_name") for name in ("default", "public")]
    if buckets[0] is None or buckets[0] != buckets[1]:
        return []
    hint = "Give MEDIA_S3_PRIVATE_BUCKET a bucket of its own, which nobody else can read."
    return [Error(f"Private files are in the public bucket, {buckets[0]}.", hint=hint, id="scaling.E003")]
{% endif %}


@register(Tags.security)
def pages_are_private(**kwargs):
    """Report that nothing keeps the pages of one visitor from a shared cache."""
    middleware = "{{ cookiecutter.project_slug }}.scaling.http.public.cache_headers"
    if middleware in settings.MIDDLEWARE:
        return []
    hint = "Put it before the session's, or nginx keeps what is one visitor's."
    return [Error(f"MIDDLEWARE lacks {middleware}, and @public pages are never private.", hint=hint, id="scaling.E005")]
