import socket
import threading
import time

import pytest
from django.db import connection, connections
from django.test import Client

from {{ cookiecutter.project_slug }}.scaling import timeouts
from {{ cookiecutter.project_slug }}.scaling.http import health


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Forget what the database answered before."""
    monkeypatch.setattr(health, "_answered_at", float("-inf"))


@pytest.fixture
def database(monkeypatch):
    """Have new connections to the primary go to a port of this machine."""

    def move(port):
        monkeypatch.setitem(connections.settings["default"], "HOST", "127.0.0.1")
        monkeypatch.setitem(connections.settings["default"], "PORT", port)

    return move


@pytest.fixture
def client():
    """A load balancer: it uses neither HTTPS nor the site's name."""
    return Client(headers={"host": "10.0.0.1"})


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_well(client, db, path):
    response = client.get(path)

    assert (response.status_code, response.json()) == (200, {"status": "ok", "degraded": []})
    assert response["Cache-Control"] == "no-store"
    assert not response.cookies


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_only_reads(client, db, path):
    assert client.head(path).status_code == 200
    assert client.post(path).status_code == 405


def test_live_without_database(client):
    assert client.get("/livez").status_code == 200


def test_draining(client, db):
    health.draining[0] = 1
    try:
        response = client.get("/readyz")
        assert client.get("/livez").status_code == 200
    finally:
        health.draining[0] = 0

    assert (response.status_code, response.json()) == (503, {"status": "unavailable", "degraded": ["draining"]})


def test_database_refuses(client, db, database):
    database(port=1)

    response = client.get("/readyz")

    assert (response.status_code, response.json()["degraded"]) == (503, ["database"])


def test_database_hangs(client, db, database):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database(silent.getsockname()[1])
        statuses = []
        probes = [threading.Thread(target=lambda: statuses.append(client.get("/readyz").status_code)) for _ in range(5)]
        started = time.monotonic()
        for probe in probes:
            probe.start()
        for probe in probes:
            probe.join()
        took = time.monotonic() - started
        silent.setblocking(False)
        silent.accept()

        assert statuses == [503] * 5
        assert took < timeouts.READY + 1.5
        with pytest.raises(BlockingIOError):  # one connection for all of them
            silent.accept()


def test_database_hangs_after_it_has_let_us_in(client, db, monkeypatch):
    monkeypatch.setattr(health, "QUERY", b"SELECT pg_sleep(60)")
    started = time.monotonic()

    assert client.get("/readyz").status_code == 503
    assert time.monotonic() - started < timeouts.READY + 1.5
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query = 'SELECT pg_sleep(60)' AND datname = current_database()"
        )


def test_answer_serves_for_a_second(client, db, database):
    assert client.get("/readyz").status_code == 200
    database(port=1)

    assert client.get("/readyz").status_code == 200
    time.sleep(health.MAX_AGE)
    assert client.get("/readyz").status_code == 503
