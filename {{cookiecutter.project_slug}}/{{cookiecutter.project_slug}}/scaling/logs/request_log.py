"""What each request costs: a line in the log, `Server-Timing` in development, metrics where STATSD_URL is set."""

import atexit
import collections
import contextlib
import functools
import logging
import os
import random
import re
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from time import perf_counter

from django.conf import settings
from django.core.signals import request_finished
from django.dispatch import receiver

from . import statsd

SLOW_QUERY = 0.05  # seconds
BATCH_SECONDS = 0.05  # between two looks at the requests that have finished
PROJECT = f"{Path(__file__).parents[3]}{os.sep}"
SCALING = f"{Path(__file__).parents[1]}{os.sep}"

logger = logging.getLogger(__name__)
well_formed = re.compile("[A-Za-z0-9_-]{8,64}").fullmatch

# The Figures of the request served here, in all threads of it; those of other requests are never seen.
current = ContextVar("current", default=None)

# The Figures of requests whose lines are to be written
finished = collections.deque()


class Figures:
    """The id of a request, or of whatever else sets `current` to its figures, and what it has cost so far."""

    request = response = None
    queries = cache_queries = cache_hits = cache_misses = 0
    seconds = database_seconds = 0.0

    def __init__(self, request_id=""):
        # It is no secret: uuid4() would ask the kernel for one, and let go of the interpreter's lock meanwhile.
        self.request_id = request_id if well_formed(request_id) else f"{random.getrandbits(128):032x}"
        self.start = perf_counter()


def request_log(get_response):
    """Measure each request, and answer with its id: the one it came with, if well formed, or a new one."""

    def middleware(request):
        received = request.META  # request.headers would keep what trusted_proxies removes later
        figures = Figures(received.get("HTTP_X_REQUEST_ID", ""))
        current.set(figures)
        figures.response = response = get_response(request)
        figures.request, figures.seconds = request, perf_counter() - figures.start
        response.headers["X-Request-ID"] = figures.request_id
        if settings.DEBUG:
            database = f'db;dur={figures.database_seconds * 1000:.1f};desc="{figures.queries} queries"'
            counts = f"{figures.cache_hits} hits, {figures.cache_misses} misses, {figures.cache_queries} queries"
            cache = f'cache;desc="{counts}"'
            response.headers["Server-Timing"] = f"total;dur={figures.seconds * 1000:.1f}, {database}, {cache}"
        return response

    return middleware


@receiver(request_finished)
def finish(**kwargs):
    """Note what a request has cost when its response has been sent, so with all that a streamed one cost."""
    figures = current.get()
    if figures is None or figures.response is None:
        return
    current.set(None)
    request, response, match = figures.request, figures.response, figures.request.resolver_match
    if response.streaming:
        figures.seconds = perf_counter() - figures.start
    figures.method, figures.path, figures.status = request.method, request.path, response.status_code
    figures.route = f"/{match.route}" if match else None
    figures.request = figures.response = None
    figures.finished_at = time.time()
    finished.append(figures)
    start_logging()


@functools.cache
def start_logging():
    """Start the thread, once: with the first request, when the server has forked its workers."""
    threading.Thread(target=keep_logging, name="requests", daemon=True).start()
    atexit.register(log_finished)


def keep_logging():
    while True:
        time.sleep(BATCH_SECONDS)
        try:
            log_finished()
        except Exception:
            logger.exception("The log of requests goes on after an error.")


def log_finished():
    """Log the requests that have finished; one right after the other, a line takes a third of the time."""
    with contextlib.suppress(IndexError):
        while True:
            log(finished.popleft())


def log(figures):
    line = {
        "method": figures.method,
        "route": figures.route,
        "status": figures.status,
        "ms": round(figures.seconds * 1000, 1),
        "queries": figures.queries,
        "database_ms": round(figures.database_seconds * 1000, 1),
        "cache_queries": figures.cache_queries,
        "cache_hits": figures.cache_hits,
        "cache_misses": figures.cache_misses,
    }
    # A path can hold a secret, such as the token of a password reset: it is for errors and for your own machine.
    if not figures.route or figures.status >= 400 or settings.DEBUG:
        line["path"] = figures.path
    what = f"{figures.method} {line.get('path', figures.route)} {figures.status}"
    of_cache = f" and {figures.cache_queries} of the cache" if figures.cache_queries else ""
    message = f"{what} in {line['ms']:.0f} ms, {figures.queries} SQL{of_cache} in {line['database_ms']:.0f} ms"
    if logger.isEnabledFor(logging.INFO):
        # logger.info() would look for its caller first, and no line says who called.
        record = logging.LogRecord(__name__, logging.INFO, __file__, 0, message, (), None)
        vars(record).update(line, created=figures.finished_at)
        current.set(figures)
        logger.handle(record)
        current.set(None)
    if settings.STATSD_URL:
        statsd.send(settings.STATSD_URL, line)


def measured(execute, sql, params, many, context):
    """Count a statement of a request, and log a slow one without its parameters; every connection calls this.

    Not measured: connecting, commits, and the later rows of a server-side cursor.
    """
    if (figures := current.get()) is None:
        return execute(sql, params, many, context)
    start = perf_counter()
    try:
        return execute(sql, params, many, context)
    finally:
        seconds = perf_counter() - start
        if is_of_cache(sql):
            figures.cache_queries += 1
        else:
            figures.queries += 1
        figures.database_seconds += seconds
        if seconds >= SLOW_QUERY:
            extra = {"ms": round(seconds * 1000, 1), "sql": str(sql), "code": code_line(sys._getframe(1))}
            where = f", {extra['code']}" if extra["code"] else ""
            logger.warning("Slow query: %.0f ms%s", extra["ms"], where, extra=extra)


def is_of_cache(sql):
    """Tell whether a statement concerns the table of a cache, and nothing else."""
    tables = [str(cache.get("LOCATION")) for cache in settings.CACHES.values()]
    return isinstance(sql, str) and concerns(*tables)(sql) is not None


@functools.cache
def concerns(*tables):
    names = "|".join(re.escape(f'"{table}"') for table in tables)
    return re.compile(rf'\s*(SELECT [\w", ()*]+ FROM|INSERT INTO|UPDATE|DELETE FROM) ({names})').match


def code_line(frame):
    """Return the innermost line of the project, or of one of its templates, that led to a frame."""
    while frame:
        code, file = frame.f_code, frame.f_code.co_filename
        if code.co_name == "render_annotated":
            node = frame.f_locals["self"]
            return f"{node.origin.template_name}:{node.token.lineno}"
        if file.startswith(PROJECT) and not file.startswith(SCALING) and "site-packages" not in file:
            return f"{file.removeprefix(PROJECT)}:{frame.f_lineno} {code.co_qualname}"
        frame = frame.f_back
    return None
