"""A deadline for every request that waits for its database, and a 503 for every request that cannot have it.

PostgreSQL's own timeouts never fire when the server hangs, and gunicorn's does not end a thread. One watchdog
thread per process shuts the sockets on which overdue requests wait: each waiting thread gets an OperationalError.
"""

import logging
import os
import socket
import sys
import threading
import time
import traceback

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import MiddlewareNotUsed
from django.db import InternalError, OperationalError, connections
from django.http import HttpResponse
from django.utils.decorators import sync_and_async_middleware
from django.views.defaults import server_error
from psycopg import OperationalError as ConnectionClosed
from psycopg.errors import IdleInTransactionSessionTimeout
from psycopg.pq import TransactionStatus

from . import timeouts

logger = logging.getLogger(__name__)


@sync_and_async_middleware
def deadline_middleware(get_response):
    """End the database queries of a request that takes longer than REQUEST seconds.

    What follows the response (a streamed body) has no deadline, nor have async requests: their queries run in threads
    that other requests share.
    """
    if not timeouts.REQUEST:
        raise MiddlewareNotUsed("timeouts.REQUEST is off")
    return get_response if iscoroutinefunction(get_response) else watchdog.guard(get_response)


class Watchdog:
    """Knows the requests in progress, oldest first; its thread starts with the first one, so after any fork."""

    def __init__(self):
        self.lock = threading.Lock()  # held while a request ends and while it is shot: never the next one's connection
        self.requests = {}
        self.thread = None

    def guard(self, get_response):
        def middleware(request):
            entry = _Entry(request)
            with self.lock:
                self.requests[entry] = None
                if self.thread is None:
                    self.thread = threading.Thread(target=self.run, name="deadline", daemon=True)
                    self.thread.start()
            try:
                return get_response(request)
            finally:
                with self.lock:
                    del self.requests[entry]

        return middleware

    def run(self):
        while True:
            reports = []
            with self.lock:
                now = time.monotonic()
                for entry in self.requests:
                    if entry.due <= now:
                        reports += entry.end(now)
                # A request that arrives from here on is not due before REQUEST seconds have passed.
                wake = min((entry.due for entry in self.requests), default=now + timeouts.REQUEST)
            for report in reports:
                logger.error(report)
            time.sleep(max(0, min(wake, now + timeouts.REQUEST) - time.monotonic()))


watchdog = Watchdog()


class _Entry:
    __slots__ = ("connections", "due", "path", "reported", "thread")

    def __init__(self, request):
        self.path = request.path
        self.thread = threading.get_ident()
        self.connections = connections.all()
        self.due = time.monotonic() + timeouts.REQUEST
        self.reported = False

    def end(self, now):
        """Shut the connections that wait for an answer, again after each second; return what to log, once."""
        self.due = now + 1
        ended = [wrapper.alias for wrapper in self.connections if _shut(wrapper.connection)]
        if self.reported:
            return []
        self.reported = True
        if ended:
            return [f"{self.path} took {timeouts.REQUEST} s: ended its wait for the database {', '.join(ended)}"]
        stack = "".join(traceback.format_stack(sys._current_frames().get(self.thread)))
        return [f"{self.path} took {timeouts.REQUEST} s and cannot be ended, for it waits for no database:\n{stack}"]


def _shut(connection):
    """Shut the socket of a connection that waits for an answer; return whether there was one."""
    try:
        if connection is None or connection.info.transaction_status != TransactionStatus.ACTIVE:
            return False
        descriptor = connection.fileno()
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            # The thread may have closed the connection, and another opened a file of that number, before the dup().
            if connection.fileno() != descriptor:
                return False
            duplicate.shutdown(socket.SHUT_RDWR)
    except (ConnectionClosed, OSError):
        return False
    return True


def handler500(request):
    """Answer 503 where the database is to blame and 500 otherwise; Django logs either once, with its traceback."""
    if not is_outage(sys.exception()):
        return server_error(request)
    return HttpResponse(
        "The site cannot reach its database. Please try again in a moment.\n",
        status=503,
        content_type="text/plain",
        headers={"Retry-After": str(timeouts.RETRY_AFTER)},
    )


def is_outage(error):
    """Tell whether an exception says that the database is refused, lost or too slow, rather than asked wrongly.

    psycopg's OperationalError is just that: connecting, lost connections, cancelled statements, locks, deadlocks, no
    resources. PostgreSQL counts only a transaction that idled too long among the internal errors.
    """
    return isinstance(error, OperationalError) or (
        isinstance(error, InternalError) and isinstance(error.__cause__, IdleInTransactionSessionTimeout)
    )
