"""What a process that serves requests tells statsd about itself, and about the database{{ " and its replicas" if cookiecutter.use_replica else "" }}."""

import contextlib
import os
import socket
{% if cookiecutter.use_replica %}
import time
{% endif %}

from django.conf import settings
from django.db import DatabaseError, connections

{% if cookiecutter.use_replica %}
from ..db.replicas import watch
{% endif %}
from ..logs import statsd

INTERVAL = 15  # seconds, the usual interval of Prometheus
{% if cookiecutter.use_replica %}
UNKNOWN = 3600  # seconds: the lag of a replica that nobody knows anything of
{% endif %}

# pg_stat_activity would show the site's role no sessions of others.
CONNECTIONS = "SELECT (SELECT sum(numbackends) FROM pg_stat_database), current_setting('max_connections')"


def send_gauges():
    """Send them; those of the database as long as it answers."""
    lines = [f"threads:{settings.THREADS}|g|#process:{socket.gethostname()}-{os.getpid()}"]
{% if cookiecutter.use_replica %}
    for alias in watch.replicas():
        lag = min(time.monotonic() - watch.servers()[alias].current_to, UNKNOWN)
        lines.append(f"replica.lag_seconds:{lag:.1f}|g|#replica:{alias}")
{% endif %}
    statsd.emit(settings.STATSD_URL, lines)
    with contextlib.suppress(DatabaseError), connections["default"].cursor() as cursor:
        cursor.execute(CONNECTIONS)
        used, accepted = cursor.fetchone()
        statsd.emit(settings.STATSD_URL, [f"connections.used:{used}|g", f"connections.accepted:{accepted}|g"])
    connections.close_all()
