"""The figures of each request as metrics: one UDP datagram to a statsd server, sent without waiting for anything."""

import contextlib
import functools
import logging
import socket
from urllib.parse import urlsplit

RESERVED = str.maketrans("|,\n", "___")  # in DogStatsD tags, which Prometheus' statsd_exporter and others read


def send(url, line):
    """Send the figures of a request's log line to udp://host:port; times are in milliseconds."""
    tags = f"#route:{(line['route'] or 'none').translate(RESERVED)},status:{line['status'] // 100}xx"
    timers = (f"request.{name}:{line[name]}|ms|{tags}" for name in ("ms", "database_ms"))
    counters = ("queries", "cache_queries", "cache_hits", "cache_misses")
    counts = (f"request.{name}:{line[name]}|c|{tags}" for name in counters)
    emit(url, [*timers, *counts])


def emit(url, metrics):
    """Send lines of the protocol."""
    with contextlib.suppress(OSError):
        connected(url).send("\n".join(metrics).encode())


@functools.cache
def connected(url):
    """Return a socket that sends to an address, whose name is looked up once; if that fails, there are no metrics."""
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.setblocking(False)
    try:
        server.connect((urlsplit(url).hostname, urlsplit(url).port))
    except OSError:
        logging.getLogger(__name__).exception("No metrics: %s is not to be found", url)
    return server
