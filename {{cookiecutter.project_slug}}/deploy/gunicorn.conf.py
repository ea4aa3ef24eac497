"""gunicorn, as every deployed environment runs it, from the project's folder:

    gunicorn --config deploy/gunicorn.conf.py --bind unix:/run/{{ cookiecutter.project_slug }}/gunicorn.sock

SIGTERM drains: /readyz turns to 503 at once, requests are served for another DRAIN seconds, those that still run then
finish, and gunicorn ends with status 0. A second SIGTERM ends the wait. SIGHUP replaces the workers one generation by
the next, with the code and the config as they are now.
"""

import os
import signal
import sys

from gunicorn import glogging

# SIGHUP runs this file again in the same process, which would otherwise go on with the modules of its start.
for name in [name for name in sys.modules if name.partition(".")[0] == "{{ cookiecutter.project_slug }}"]:
    del sys.modules[name]

from {{ cookiecutter.project_slug }}.config import Config  # noqa: E402
from {{ cookiecutter.project_slug }}.scaling import timeouts  # noqa: E402
from {{ cookiecutter.project_slug }}.scaling.http import health  # noqa: E402
from {{ cookiecutter.project_slug }}.scaling.logs.lines import logging_config  # noqa: E402

values = Config.load()

wsgi_app = "{{ cookiecutter.project_slug }}.wsgi"
proc_name = "{{ cookiecutter.project_slug }}"

# Not preloaded: it would save memory, but SIGHUP would no longer bring new code.
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


def drain_on_sigterm(server):
    """Turn readiness off first, and stop DRAIN seconds later, when load balancers have seen it."""

    def drain():
        del server.handle_term
        health.draining[0] = 1
        signal.alarm(timeouts.DRAIN)

    server.handle_term = drain
    signal.signal(signal.SIGALRM, lambda *_: server.signal(signal.SIGTERM, None))


on_starting = on_reload = drain_on_sigterm
{% if cookiecutter.use_replica %}


def post_worker_init(worker):
    """Know the replicas before the first request: the primary would answer it, and another worker the next one."""
    from {{ cookiecutter.project_slug }}.scaling.db.replicas import watch

    watch.start_and_wait()
{% endif %}
