"""A deadline for requests that wait for the database, and a 503 for those that cannot have it.

The timeouts of PostgreSQL never fire when the server hangs, and gunicorn's ends no thread. So one thread per process
watches the requests, and shuts the sockets of those that wait in vain: they get an OperationalError at once. Another
one finds out whether a server hangs, on a connection of its own.
"""

import functools
import logging
import sys
import threading
import time
import traceback

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.db import InternalError, OperationalError, connections
from django.http import FileResponse, HttpResponse
from django.views.defaults import server_error
from psycopg.errors import IdleInTransactionSessionTimeout, ReadOnlySqlTransaction

from .. import timeouts
from ..db.postgresql import serves_requests
from ..db.postgresql.base import of_thread
from ..logs import request_log
from . import gauges

TICK = 0.25  # seconds between two looks at the requests, and at the connections of the probes
END = object()  # of a stream

# A server that takes no writes has a full disk, or is not the primary any more.
INTERNAL_OUTAGES = (IdleInTransactionSessionTimeout, ReadOnlySqlTransaction)

logger = logging.getLogger(__name__)
requests = set()  # those that are being served
lock = threading.Lock()  # while one ends or is ended: the connection may serve the next request right afterwards
suspicion = threading.Event()  # a request waits for a database


class Request:
    """A request, or one piece of its stream, with a deadline for as long as a `with` block of it lasts."""

    def __init__(self, path):
        self.path = path
        self.thread = threading.get_ident()
        self.databases = of_thread.databases  # of this one: another one will have to end their waits
        self.figures = request_log.current.get()
        self.is_streamed = False
        self.is_reported = False  # what it waits for is logged once

    def __enter__(self):
        self.start = time.monotonic()
        with lock:
            requests.add(self)
            start_watching()

    def __exit__(self, *error):
        with lock:
            requests.remove(self)

    def seconds(self):
        return time.monotonic() - self.start

    def pieces(self, content):
        """Yield the pieces of a stream. It may take as long as it likes in all, and the client between two of them."""
        while True:
            with self:
                piece = next(content, END)
            if piece is END:
                return
            yield piece

    async def async_pieces(self, content):
        while True:
            with self:
                piece = await anext(content, END)
            if piece is END:
                return
            yield piece

    def is_waiting(self):
        return any(database.is_waiting() for database in self.databases)

    def end(self):
        """End its wait for a server that hangs, or for any when it is late; return what to log the first time."""
        is_late = self.seconds() >= timeouts.REQUEST
        waits_in_vain = [database for database in self.databases if is_late or database.alias in database.hung]
        ended = [database.alias for database in waits_in_vain if database.end_wait()]
        if ended:
            outcome = f"ended its wait for database {', '.join(ended)}"
        elif is_late and not self.is_streamed:  # a stream may well wait for something to tell
            outcome = "cannot end it outside the database"
        else:
            return None
        if self.is_reported:
            return None
        self.is_reported = True
        stack = "".join(traceback.format_stack(sys._current_frames()[self.thread]))
        return f"{self.path} after {self.seconds():.0f} s: {outcome}\n{stack}"


def end_waits():
    """End the waits of requests that are late, or whose server hangs; have a database probed that keeps one waiting."""
    time.sleep(TICK)
    with lock:
        slow = [request for request in requests if request.seconds() >= timeouts.DATABASE_SUSPECT]
        reports = [(request.figures, request.end()) for request in slow]
    for figures, report in reports:
        if report:
            request_log.current.set(figures)  # the line has the request's id
            logger.error(report)
            request_log.current.set(None)
    if any(request.is_waiting() for request in slow):
        suspicion.set()


def probe_databases():
    """Probe what a request waits for and, until it answers again, what failed, so that no visitor has to find out."""
    is_suspected = suspicion.is_set()
    suspicion.clear()
    connections.all()  # makes those that this thread has not had before
    for database in of_thread.databases:
        has_failed = database.alias in database.retry_at or not database.is_usable()
        if is_suspected or has_failed:
            database.probe()
    suspicion.wait(TICK)


def send_gauges():
    """Send them, with the deadline of a request, and wait until it is time for the next ones."""
    with Request("send_gauges()"):
        gauges.send_gauges()
    time.sleep(gauges.INTERVAL)


def for_ever(work):
    """Do it again and again: a thread that ended of an error would take the deadline along, and nobody would know."""
    while True:
        try:
            work()
        except Exception:
            logger.exception("The thread %s goes on after an error.", work.__name__)
            time.sleep(TICK)


@functools.cache
def start_watching():
    """Start the threads, once: with the first request, when the server has forked its workers."""
    for work in (end_waits, probe_databases, *([send_gauges] if settings.STATSD_URL else [])):
        threading.Thread(target=for_ever, args=[work], name=work.__name__, daemon=True).start()


def deadline_middleware(get_response):
    """Bound what a request waits for the database.

    Under ASGI, too: being synchronous, it runs in the thread that Django gives the request and all its queries, those
    of asynchronous views included. Only threads that a view starts itself are out of reach.
    """
    if not (timeouts.REQUEST and serves_requests()):
        raise MiddlewareNotUsed

    def middleware(request):
        current = Request(request.path)
        with current:
            response = get_response(request)
        if response.streaming and not isinstance(response, FileResponse):  # which the server sends by itself
            current.is_streamed = True
            pieces = current.async_pieces if response.is_async else current.pieces
            response.streaming_content = pieces(response.streaming_content)
        return response

    return middleware


def handler500(request):
    """Answer 503 where the database was refused, lost or too slow, 500 elsewhere; Django logs the traceback, once."""
    error = sys.exception()
    # These outages are internal errors to psycopg, all others operational ones.
    is_internal_outage = isinstance(error, InternalError) and isinstance(error.__cause__, INTERNAL_OUTAGES)
    if not (is_internal_outage or isinstance(error, OperationalError)):
        return server_error(request)
    text = "The site cannot reach its database. Please try again in a moment.\n"
    return HttpResponse(text, "text/plain", status=503, headers={"Retry-After": str(timeouts.RETRY_AFTER)})
