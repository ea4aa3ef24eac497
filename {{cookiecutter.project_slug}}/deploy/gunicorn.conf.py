"""How gunicorn runs in every deployed environment; deploy/web.py starts, replaces and stops it."""

import contextlib
import faulthandler
import gc
import os
import signal
import socket
import struct

from django.db import connections
from django.urls import get_resolver
from gunicorn import glogging

from {{ cookiecutter.project_slug }}.config import Config
from {{ cookiecutter.project_slug }}.scaling import timeouts
{% if cookiecutter.use_replica %}
from {{ cookiecutter.project_slug }}.scaling.db.replicas import watch
{% endif %}
from {{ cookiecutter.project_slug }}.scaling.logs.lines import logging_config

values = Config.load()

wsgi_app = "{{ cookiecutter.project_slug }}.wsgi"
proc_name = "{{ cookiecutter.project_slug }}"

# BEHIND A PROXY THAT BUFFERS, NEVER WITHOUT: a request that is half sent holds a thread for CLIENT seconds, an answer
# that is not read for as long as its client likes, and a connection that its client does not close the whole worker for
# 2 s. nginx, as in nginx.conf, waits for all of them, and so does an ingress or load balancer that buffers.

# Loaded once, by the parent, whose memory the workers share
preload_app = True
worker_class = "gthread"
workers = values.workers
threads = values.THREADS
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108  a heartbeat must not wait for a disk
control_socket_disable = True

# A worker is replaced now and then, so that what its code leaks is freed; the jitter keeps workers from going together.
max_requests = 10_000
max_requests_jitter = 5_000

# For a worker as a whole: gthread does not see a thread that hangs. Each request has a deadline of its own.
timeout = timeouts.PROXY
graceful_timeout = timeouts.GRACEFUL
keepalive = timeouts.KEEPALIVE

# TRUSTED_PROXIES, which the application reads, is the one place that says whose headers are believed.
secure_scheme_headers = {}
forwarder_headers = ""
limit_request_line = 8190
limit_request_fields = 64

# A Unix socket is for this user and this group, which the proxy belongs to.
umask = 0o007

logconfig_dict = logging_config(values.LOG_LEVEL)


class Logger(glogging.Logger):
    """gunicorn's, without the access log: with logconfig_dict it would format a line per request and drop it."""

    def access(self, *arguments):
        """Do nothing: the application logs its requests."""


logger_class = Logger

# Where deploy/web.py waits for the workers
ready = os.environ.pop("READY_FD", None)


def when_ready(server):
    """Load the rest of the site, which workers would else load with their first request, whatever it is by then.

    What has been loaded stays out of garbage collections, which would copy it in each worker.
    """
    get_resolver().url_patterns  # noqa: B018
    get_resolver().resolve_error_handler(500)
    connections.close_all()  # two processes must not talk on one
    for listener in server.LISTENERS:  # gunicorn waits for ever; connections over TCP inherit this
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(timeouts.CLIENT), 0))
    gc.collect()
    gc.freeze()


def post_worker_init(worker):
    """Tell deploy/web.py that this worker can have requests."""
{% if cookiecutter.use_replica %}
    watch.start_and_wait()  # or the primary would answer its first requests, and another worker the next ones
{% endif %}
    # Ctrl-C reaches all processes, and the parent tells its workers: gthread locks up if it is told twice at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()  # a worker that gunicorn ends for its silence leaves the stacks of its threads in the log
    if ready:
        with contextlib.suppress(BrokenPipeError):  # a worker started later: deploy/web.py no longer reads
            os.write(int(ready), f"{worker.cfg.workers} {timeouts.DRAIN}\n".encode())
