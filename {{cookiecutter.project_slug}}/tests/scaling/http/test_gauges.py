import re
import socket
{% if cookiecutter.use_replica %}
import time
{% endif %}
from threading import Thread

from django.db import connection

{% if cookiecutter.use_replica %}
from {{ cookiecutter.project_slug }}.scaling.db.replicas import watch
{% endif %}
from {{ cookiecutter.project_slug }}.scaling.http import gauges


def sent(settings):
    """Return what a process sends once, in the thread in which it does."""
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        settings.STATSD_URL = f"udp://127.0.0.1:{server.getsockname()[1]}"
        thread = Thread(target=gauges.send_gauges)
        thread.start()
        thread.join()
        return "\n".join(server.recv(1_000).decode() for _ in range(2)).splitlines()


def test_gauges(settings, transactional_db):
    threads, *_, used, accepted = sent(settings)

    assert re.fullmatch(rf"threads:{settings.THREADS}\|g\|#process:\S+-\d+", threads)
    assert re.fullmatch(r"connections.used:[1-9]\d*\|g", used)
    assert re.fullmatch(r"connections.accepted:[1-9]\d+\|g", accepted)


def test_sessions_of_others_count(db):
    """The site's role is no superuser, and sees only that there are others."""
    with connection.cursor() as cursor:
        cursor.execute(gauges.CONNECTIONS)
        of_a_superuser = cursor.fetchone()
        cursor.execute("CREATE ROLE plain; SET LOCAL ROLE plain")
        cursor.execute(gauges.CONNECTIONS)
        assert cursor.fetchone() == of_a_superuser
{% if cookiecutter.use_replica %}


def test_gauges_of_replicas(settings, monkeypatch, transactional_db):
    replicas = {alias: watch.Replica(alias) for alias in ("replica_1", "replica_2")}
    replicas["replica_1"].current_to = time.monotonic() - 2
    monkeypatch.setattr(watch, "replicas", lambda: [*replicas])
    monkeypatch.setattr(watch, "servers", lambda: {"default": watch.Primary()} | replicas)

    _, first, second, *_ = sent(settings)

    assert re.fullmatch(r"replica.lag_seconds:2\.\d\|g\|#replica:replica_1", first)
    assert second == "replica.lag_seconds:3600.0|g|#replica:replica_2"  # nobody knows anything of it
{% endif %}
