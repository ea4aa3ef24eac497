"""With `use_replica`, pages read from replicas while these are fresh, and nobody who wrote reads what is old.

A real primary and two real streaming replicas, gunicorn, the deploy settings and the timeouts as shipped. Which server
answered a query is what the query itself says (`inet_server_port()`) or the server's own log. Relays stand between the
site and each server, and between the primary and each replica. A table of all states is printed at the end.
"""

import itertools
import json
import os
import random
import re
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from servers import Postgres, Relay, Site, wait_until

PIN, LAG = 6, 3  # seconds, as in timeouts.py
HUNG, MARGIN = 1, 1.5  # seconds: until a replica that hangs is left alone, and what a busy machine may add
RECOVERY = 5
WRITERS, READERS = 4, 4

URLS = """
import threading
from contextvars import copy_context

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.db import connection, transaction
from django.db.models import Func, IntegerField
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from my_project.scaling.replicas import reading_from_primary, reading_from_replicas, wrote
from my_project.urls import handler500

SERVED = Group.objects.annotate(port=Func(function="inet_server_port", output_field=IntegerField()))
BUSY = Group.objects.annotate(slept=Func(function="pg_sleep", template="(SELECT 1 FROM pg_sleep(0.05))", output_field=IntegerField()))


def port():
    return SERVED.values_list("port", flat=True)[0]


def read():
    return [port(), port()]


def write():
    Group.objects.filter(pk=1).update(name="one")
    return [port()]


def own_write():
    with connection.cursor() as cursor:
        cursor.execute("  update auth_group set name = 'one' where id = 1")
    return [port()]


def explicit_write():
    Group(pk=1, name="one").save(using="default")
    return [port()]


@transaction.atomic
def atomic():
    return [port()]


def locked():
    with transaction.atomic():
        group = SERVED.select_for_update().get(pk=1)
    return [group.port, port()]


def savepoint():
    with transaction.atomic():
        with transaction.atomic():
            pass
    return [port()]


def cached():
    cache.set("key", "value")
    assert cache.get("key") == "value"
    return [port()]


def thread():
    found = []
    for work in (write, read):
        worker = threading.Thread(target=copy_context().run, args=[lambda: found.append(work())])
        worker.start()
        worker.join()
    return [*found[1], port()]


def blocks():
    with reading_from_primary():
        found = [port()]
    found.append(port())
    with reading_from_replicas():
        found.append(port())
    Group.objects.filter(pk=1).update(name="one")
    with reading_from_replicas():
        found.append(port())
        Group.objects.filter(pk=1).update(name="one")
        found.append(port())
    return [*found, port()]


def functions():
    wrote()
    return [port()]


@reading_from_replicas()
def decorated():
    return [port()]


def raw():
    return [row.port for row in Group.objects.raw("UPDATE auth_group SET name = 'one' WHERE id = 1 RETURNING *, inet_server_port() AS port")]


CASES = {case.__name__: case for case in (read, write, own_write, explicit_write, atomic, locked, savepoint, cached, thread, blocks, functions, decorated, raw)}


@csrf_exempt
def case(request, name):
    return JsonResponse(CASES[name](), safe=False)


async def asynchronous(request):
    group = await SERVED.afirst()
    found = [group.port]
    await Group.objects.filter(pk=1).aupdate(name="one")
    found.append((await SERVED.afirst()).port)
    found.append(await sync_to_async(port, thread_sensitive=False)())
    return JsonResponse([*found, *[group.port async for group in SERVED.filter(pk=1)]], safe=False)


@reading_from_primary()
async def decorated_async(request):
    return JsonResponse([(await SERVED.afirst()).port], safe=False)


def streamed(request):
    return StreamingHttpResponse(f"{group.port}\\n" for group in SERVED.iterator())


def page(request, visitor):
    first = SERVED.get(pk=visitor)
    return JsonResponse({"ports": [first.port, port()], "value": int(first.name.split()[1])})


@csrf_exempt
def store(request, visitor, value):
    Group.objects.filter(pk=visitor).update(name=f"{visitor} {value}")
    return HttpResponse("stored")


def busy(request):
    return HttpResponse(str([group.slept for group in BUSY.filter(pk=1)]))


urlpatterns = [
    path("case/<name>", case),
    path("async", asynchronous),
    path("decorated_async", decorated_async),
    path("streamed", streamed),
    path("page/<int:visitor>", page),
    path("store/<int:visitor>/<int:value>", store),
    path("busy", busy),
    path("none", lambda request: HttpResponse("no database")),
    path("admin/", admin.site.urls),
]
"""


@pytest.fixture(scope="module")
def with_replica(set_up):
    return set_up(use_replica=True)


@pytest.fixture(scope="module")
def folder():
    # Not tmp_path, which another user, as PostgreSQL needs under root, cannot enter.
    path = Path(tempfile.mkdtemp(prefix="replicas-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def servers(with_replica, folder):
    """The primary and two replicas, the relays that lead to them, and those from the primary to the replicas."""
    found = SimpleNamespace()
    found.primary = Postgres(with_replica.python, folder, max_connections=60, log_statement="all", wal_retrieve_retry_interval="200ms")
    started = [found.primary]
    found.primary.control("start")
    try:
        found.primary.execute("CREATE DATABASE site")
        found.streams = [Relay(found.primary.port), Relay(found.primary.port)]
        found.replicas = []
        for stream in found.streams:
            found.replicas.append(found.primary.replica(folder, stream.port))
            started.append(found.replicas[-1])
        found.relays = [Relay(server.port) for server in started]
        found.ports = [server.port for server in started]
        yield found
    finally:
        for server in started:
            server.control("stop", "-m", "immediate")


@pytest.fixture(scope="module")
def site(with_replica, folder, servers):
    urls = [servers.primary.url("site", relay.port) for relay in servers.relays]
    site = Site(
        with_replica, folder, URLS, DATABASE_URL=urls[0], REPLICA_DATABASE_URLS=urls[1:], WORKERS=2, THREADS=4
    )
    migrated = site.command("python", "manage.py", "migrate")
    assert migrated.returncode == 0, migrated.stdout
    servers.primary.execute(
        "INSERT INTO auth_group (id, name) SELECT n, n || ' 0' FROM generate_series(1, 20) AS n", "site"
    )
    try:
        site.start("/none")
        wait_until(lambda: served_by(site, servers) == {1, 2})
        yield site
    finally:
        site.stop()




class Visitor(threading.Thread):
    """Somebody who changes a row of their own now and then and looks at it in between; one who never does is a reader.

    Pages are (status, seconds, ports of the servers that answered, whether older than what was acknowledged).
    """

    def __init__(self, site, number, writes):
        super().__init__(daemon=True)
        self.site, self.number, self.writes = site, number, writes
        self.pages, self.stores, self.stored, self.cookie, self.forgets = [], [], 0, None, 0
        self.stopped = threading.Event()

    def run(self):
        next_store = time.monotonic()
        tried = self.stored
        while not self.stopped.wait(0.02):
            cookie = {"Cookie": self.cookie} if self.cookie and time.monotonic() < self.forgets else {}
            if self.writes and time.monotonic() > next_store:
                next_store = time.monotonic() + random.choice([0.1, 0.5, 2, PIN + 2])
                tried += 1
                status, _, headers, seconds = self.site.get(f"/store/{self.number}/{tried}", "POST", **cookie)
                self.stores.append((status, seconds))
                if status == 200:
                    self.stored = tried
                    self.cookie = headers["Set-Cookie"].partition(";")[0]
                    self.forgets = time.monotonic() + int(re.search(r"Max-Age=(\d+)", headers["Set-Cookie"])[1])
                continue
            status, text, _, seconds = self.site.get(f"/page/{self.number}", **cookie)
            page = json.loads(text) if status == 200 else {"ports": [], "value": self.stored}
            self.pages.append((status, seconds, page["ports"], page["value"] < self.stored))


def served_by(site, servers, count=16):
    """Return the numbers of the servers that pages are read from: 0 is the primary."""
    pages = [json.loads(site.get("/page/1")[1])["ports"] for _ in range(count)]
    return {servers.ports.index(port) for ports in pages for port in ports}


@pytest.fixture(scope="module")
def table(request):
    lines = []
    yield lines
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n\n{'state':<26}{'pages':<12}{'worst':>7}{'writes':>16}{'worst':>7}", end="")
        print(f"{'old pages':>11}{'by replicas':>13}{'back after':>12}")
        print("\n".join(lines))


@pytest.fixture
def outage(site, servers, table):
    """Return a function that runs a state under load, sees all replicas return, and returns what happened."""

    def run(state, begin, end, seconds, back={1, 2}):
        visitors = [Visitor(site, number, number <= WRITERS) for number in range(1, WRITERS + READERS + 1)]
        for visitor in visitors:
            visitor.start()
        time.sleep(0.5)
        begin()
        time.sleep(seconds)
        end()
        over = time.monotonic()
        wait_until(lambda: served_by(site, servers) == back)
        after = time.monotonic() - over
        for visitor in visitors:
            visitor.stopped.set()
        for visitor in visitors:
            visitor.join()
        pages = [page for visitor in visitors for page in visitor.pages]
        stores = [store for visitor in visitors for store in visitor.stores]
        ports = [port for page in pages for port in page[2]]
        load = SimpleNamespace(
            pages=Counter(page[0] for page in pages),
            reader_pages=Counter(page[0] for visitor in visitors if not visitor.writes for page in visitor.pages),
            worst=max(page[1] for page in pages),
            stores=Counter(store[0] for store in stores),
            old=sum(page[3] for page in pages),
        )

        def counts(statuses):
            return " ".join(f"{n}×{status}" for status, n in sorted(statuses.items(), key=str))

        table.append(
            f"{state:<26}{counts(load.pages):<12}{load.worst:>5.2f} s{counts(load.stores):>16}"
            f"{max(store[1] for store in stores):>5.2f} s{load.old:>11}"
            f"{1 - ports.count(servers.ports[0]) / len(ports):>12.0%}{after:>10.1f} s"
        )
        assert load.old == 0
        assert after < RECOVERY
        return load

    return run


def test_refused(outage, servers):
    load = outage("one refused", servers.relays[1].refuse, servers.relays[1].open, 2)
    assert load.pages.keys() == load.stores.keys() == {200}


def test_hung(outage, servers):
    load = outage("one hung", servers.relays[1].flowing.clear, servers.relays[1].flowing.set, 3)
    assert load.pages.keys() == load.stores.keys() == {200}
    assert load.worst < HUNG + MARGIN


def test_lags(outage, servers):
    load = outage("one lags", lambda: servers.replicas[0].execute("SELECT pg_wal_replay_pause()"), lambda: servers.replicas[0].execute("SELECT pg_wal_replay_resume()"), PIN + LAG + 1)
    assert load.pages.keys() == load.stores.keys() == {200}
