"""How the parts are that the project was made with, on this machine: each is asked, and none is waited for."""

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple
{% if cookiecutter.use_cdn %}
from urllib.request import urlopen
{% endif %}

{% if cookiecutter.use_celery %}
from celery import current_app
{% endif %}
from django.conf import settings
from django.core import mail
from django.core.cache import cache
from django.db import connections

{% if cookiecutter.use_replica %}
from ..db.replicas import watch
{% endif %}
from ..http.health import database_answers
{% if cookiecutter.use_celery %}
from ..tasks import alive
{% endif %}
from .mail import FOLDER, EmailBackend

PATIENCE = 2  # seconds for all parts together, each in a thread of its own: what hangs has timeouts of its own, too

WORKS, OFF, FAILS = "works", "off", "fails"


class Status(NamedTuple):
    """What a part is doing, and what to do about it, in words."""

    state: str
    text: str
    advice: str = ""


def statuses():
    """Ask all parts at once; return pairs of a name and a Status."""
    found = {}

    def ask(name, part):
        try:
            found[name] = part()
        except Exception as error:
            found[name] = Status(FAILS, f"{type(error).__name__}: {error}")
        finally:
            connections.close_all()

    end = time.monotonic() + PATIENCE
    threads = [threading.Thread(target=ask, args=part, daemon=True) for part in PARTS.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    silent = Status(FAILS, f"It has not answered within {PATIENCE} s.", "See whether it hangs, and restart it.")
    return [(name, found.get(name, silent)) for name in PARTS]


def database():
    named = "DATABASE_URL" in os.environ
    if database_answers():
        return Status(WORKS, f"PostgreSQL, {'which DATABASE_URL names' if named else 'in .local/postgres'}")
    advice = "See whether DATABASE_URL is right." if named else "Start make dev again; its log is .local/postgres/log."
    return Status(FAILS, "PostgreSQL does not answer.", advice)


def default_cache():
    backend = settings.CACHES["default"]["BACKEND"].rpartition(".")[2]
    if backend == "DummyCache":
{% if cookiecutter.use_redis %}
        advice = "CACHE=on make dev caches, in the database; servers do in Redis, with CACHE_REDIS_URL in their config."
{% else %}
        advice = "CACHE=on make dev caches as the servers do."
{% endif %}
        return Status(OFF, "Pages are made anew on every request.", advice)
    cache.set("status", os.getpid(), 10)
    if cache.get("status") == os.getpid():
        return Status(WORKS, backend)
    return Status(FAILS, f"{backend} does not keep what it is given.", "make setup creates its table.")


{% if cookiecutter.use_celery %}
def broker():
    if settings.CELERY_TASK_ALWAYS_EAGER:
        advice = "Put redis-server on PATH, or name a broker in CELERY_BROKER_URL, and start make dev again."
        return Status(OFF, "Tasks are done at once, by whoever asks for them.", advice)
    with current_app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)
    return Status(WORKS, connection.as_uri())


def worker():
    if settings.CELERY_TASK_ALWAYS_EAGER:
        return Status(OFF, "There is no broker.")
    names = [name for answer in current_app.control.ping(timeout=PATIENCE / 2, limit=1) for name in answer]
    if names:
        return Status(WORKS, ", ".join(names))
    return Status(FAILS, "No worker answers.", "make dev starts one, and its terminal says why one ended.")


def beat():
    if settings.CELERY_TASK_ALWAYS_EAGER:
        return Status(OFF, "There is no broker.")
    if problem := alive.main("beat"):
        return Status(FAILS, problem, "make dev starts it, and its terminal says why it ended.")
    return Status(WORKS, "It was alive in the last minute.")


{% endif %}
{% if cookiecutter.use_replica %}
def replicas():
    names = watch.replicas()
    if not names:
        advice = "Servers read from those that REPLICA_DATABASE_URLS of their config names."
        return Status(OFF, "There are none: all pages read from the primary.", advice)
    if late := watch.not_fresh():
        return Status(FAILS, f"Not fresh: {', '.join(late)}", "docs/operations.md says when one is not read from.")
    return Status(WORKS, ", ".join(names))


{% endif %}
{% if cookiecutter.use_cdn %}
def cdn():
    url = settings.STATIC_URL
    if not url.startswith("http"):
        return Status(OFF, "The site serves its static files itself.", "Servers use a CDN, with CDN_URL in the config.")
    with urlopen(f"{url}favicon.svg", timeout=PATIENCE):  # noqa: S310  not a visitor's
        return Status(WORKS, url)


{% endif %}
def mailer():
    connection = mail.mailers.default
    if isinstance(connection, EmailBackend):
        kept = len(list(FOLDER.glob("*.eml")))
        return Status(WORKS, f"Kept in .local/mail instead of sent: {kept}")
    if hasattr(connection, "timeout"):
        connection.timeout = PATIENCE
    connection.open()
    connection.close()
    return Status(WORKS, f"Sent with {type(connection).__module__}")


def uploads():
    folder = Path(settings.MEDIA_ROOT)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
{% if cookiecutter.media_storage == "s3" %}
        return Status(WORKS, f"In {folder}, instead of buckets")
{% else %}
        return Status(WORKS, f"In {folder}")
{% endif %}


PARTS = {
    "Database": database,
    "Cache": default_cache,
{% if cookiecutter.use_celery %}
    "Broker": broker,
    "Worker": worker,
    "Beat": beat,
{% endif %}
{% if cookiecutter.use_replica %}
    "Replicas": replicas,
{% endif %}
{% if cookiecutter.use_cdn %}
    "CDN": cdn,
{% endif %}
    "Mail": mailer,
    "Uploaded files": uploads,
}
