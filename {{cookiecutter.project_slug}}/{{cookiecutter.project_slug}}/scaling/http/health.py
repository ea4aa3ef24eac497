"""Health, before the middlewares that could refuse a probe: on every Host header, over plain HTTP, without a session.

/livez answers 200 as long as the process does.
/readyz answers 200 while the site can be sent requests. Otherwise it answers 503 and names what is in the way:
"draining" from SIGTERM on, "database" if the primary does not answer in time{{ ' and no replica is fresh' if cookiecutter.use_replica else '' }}.
{% if cookiecutter.use_redis or cookiecutter.use_replica %}

With 200 it names what is degraded: see degraded().
{% endif %}
"""

import contextlib
import mmap
import os
import select
import threading
import time

import psycopg
{% if cookiecutter.use_redis %}
from django.core.cache import cache
{% endif %}
from django.db import connections
from django.http import HttpResponseNotAllowed, JsonResponse

from .. import timeouts
{% if cookiecutter.use_replica %}
from ..db.replicas import watch
{% endif %}

# For how many seconds one answer of the database serves all who ask.
MAX_AGE = 1

QUERY = b"SELECT 1"

# A byte that deploy/web.py sets when SIGTERM arrives
draining = mmap.mmap(int(os.environ.pop("DRAINING_FD", -1)), 1)

_lock = threading.Lock()
_answered_at = float("-inf")
_answer = False


def health(get_response):
    """Answer probes, and pass everything else on."""

    def middleware(request):
        if request.path_info not in ("/livez", "/readyz"):
            return get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if request.path_info == "/livez":
            return answer("ok", [])
        if problems := unavailable():
            return answer("unavailable", problems, 503)
{% if cookiecutter.use_redis or cookiecutter.use_replica %}
        return answer("ok", degraded())
{% else %}
        return answer("ok", [])
{% endif %}

{% if cookiecutter.use_redis %}
    hasattr(cache, "is_away")  # imports redis: now, as it takes 0.3 s, and not while the first request waits
{% endif %}
    return middleware


def answer(status, degraded, code=200):
    body = {"status": status, "degraded": degraded}
    return JsonResponse(body, status=code, headers={"Cache-Control": "no-store"})


def unavailable():
    """List what keeps this process from being sent requests."""
    if draining[0]:
        return ["draining"]
{% if cookiecutter.use_replica %}
    if watch.fresh() or watch.primary().is_full():  # pages are served, the primary missing or not
        return []
{% endif %}
    return [] if database_answers() else ["database"]


{% if cookiecutter.use_redis or cookiecutter.use_replica %}
def degraded():
    """List what fails while the site goes on serving requests."""
    failing = []
{% if cookiecutter.use_redis %}
    if getattr(cache, "is_away", False):
        failing.append("cache")
{% endif %}
{% if cookiecutter.use_replica %}
    if not database_answers():
        failing.append("database")
    failing += watch.not_fresh()
{% endif %}
    return failing


{% endif %}
def database_answers():
    """Tell whether the primary answers; probes that wait for the same answer ask once."""
    global _answered_at, _answer
    oldest = time.monotonic() - MAX_AGE
    with _lock:
        if _answered_at < oldest:
            _answer = ask_database()
            _answered_at = time.monotonic()
        return _answer


def ask_database():
    """Run a query on a connection of its own, neither of which can take longer than timeouts.READY in all.

    libpq itself would wait for ever for an answer of a server that hangs.
    """
    deadline = time.monotonic() + timeouts.READY
    parameters = connections["default"].get_connection_params() | {"connect_timeout": timeouts.READY}
    try:
        with contextlib.closing(psycopg.connect(**parameters)) as connection:
            server = connection.pgconn
            server.send_query(QUERY)
            waiting = select.poll()
            waiting.register(server.socket, select.POLLIN)
            while server.is_busy():
                if not waiting.poll(max(0, deadline - time.monotonic()) * 1000):
                    return False
                server.consume_input()
            return server.get_result().status == psycopg.pq.ExecStatus.TUPLES_OK
    except psycopg.Error:
        return False
