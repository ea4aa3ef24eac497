"""A deadline for requests that wait for the database, and a 503 for those that cannot have it.

The timeouts of PostgreSQL never fire when the server hangs, and gunicorn's ends no thread. So one thread per process
watches the requests, and shuts the sockets of those that wait in vain: they get an OperationalError at once.
"""

import functools
import logging
import sys
import threading
import time
import traceback

from asgiref.sync import iscoroutinefunction
from django.db import InternalError, OperationalError, connections
from django.http import HttpResponse
from django.utils.decorators import sync_and_async_middleware
from django.views.defaults import server_error
from psycopg.errors import IdleInTransactionSessionTimeout

from . import timeouts
from .postgresql.base import DatabaseWrapper

TICK = 0.25  # seconds between two looks at the requests

logger = logging.getLogger(__name__)
requests = set()
lock = threading.Lock()  # while one ends or is ended: the connection may serve the next request right afterwards


class Request:
    """A request in progress, with the connections of its thread."""

    suspected = reported = False

    def __init__(self, path):
        self.path, self.thread, self.start = path, threading.get_ident(), time.monotonic()
        self.databases = [database for database in connections.all() if isinstance(database, DatabaseWrapper)]

    def seconds(self):
        return time.monotonic() - self.start

    def suspects(self):
        """Return, the first time, the aliases that it waits for."""
        aliases = [] if self.suspected else [database.alias for database in self.databases if database.is_waiting()]
        self.suspected = True
        return aliases

    def end(self):
        """End its wait for a server that hangs, or for any when it is late; return what to log the first time."""
        late = self.seconds() >= timeouts.REQUEST
        ended = [db.alias for db in self.databases if (late or db.alias in db.hung) and db.end_wait()]
        if self.reported or not (late or ended):
            return None
        self.reported = True
        stack = "".join(traceback.format_stack(sys._current_frames()[self.thread]))
        what = f"ended its wait for database {', '.join(ended)}" if ended else "cannot end it outside the database"
        return f"{self.path} after {self.seconds():.0f} s: {what}\n{stack}"


def watch():
    while True:
        time.sleep(TICK)
        with lock:
            slow = [request for request in requests if request.seconds() >= timeouts.DATABASE_SUSPECT]
        # A server that hangs is probed from here until it answers, so that no visitor has to find out.
        for alias in {*DatabaseWrapper.hung, *(alias for request in slow for alias in request.suspects())}:
            connections[alias].probe()
        with lock:
            reports = [request.end() for request in slow if request in requests]
        for report in filter(None, reports):
            logger.error(report)


@functools.cache
def start_watching():
    """Start the thread, once: with the first request, when the server has forked its workers."""
    threading.Thread(target=watch, name="deadline", daemon=True).start()


@sync_and_async_middleware
def deadline_middleware(get_response):
    """Bound what a request waits for the database; not an async one, whose queries run in threads that others share."""
    if iscoroutinefunction(get_response) or not timeouts.REQUEST:
        return get_response

    def middleware(request):
        current = Request(request.path)
        with lock:
            requests.add(current)
            start_watching()
        try:
            return get_response(request)
        finally:
            with lock:
                requests.remove(current)

    return middleware


def handler500(request):
    """Answer 503 where the database was refused, lost or too slow, 500 elsewhere; Django logs the traceback, once."""
    error = sys.exception()
    # psycopg counts this one, and no other outage, among the internal errors.
    idle = isinstance(error, InternalError) and isinstance(error.__cause__, IdleInTransactionSessionTimeout)
    if not (idle or isinstance(error, OperationalError)):
        return server_error(request)
    text = "The site cannot reach its database. Please try again in a moment.\n"
    return HttpResponse(text, "text/plain", status=503, headers={"Retry-After": str(timeouts.RETRY_AFTER)})
