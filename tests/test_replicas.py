"""With `use_replica`, pages read from replicas while these are fresh, and nobody who wrote reads what is old.

A real primary and two real streaming replicas, gunicorn, the deploy settings and the timeouts as shipped. Which server
answered a query is what the query itself says (`inet_server_port()`) or the server's own log. Relays stand between the
site and each server, and between the primary and each replica. A table of all states is printed at the end.
"""

import json
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from servers import Postgres, Relay, Site, wait_until

PIN, LAG = 6, 3  # seconds, as in timeouts.py
HUNG, MARGIN = 1, 1.5  # seconds: until a replica that hangs is left alone, and what a busy machine may add
RECOVERY = 5
WRITERS, READERS = 4, 4

TABLE = (
    f"{'replicas':<26}{'pages of readers':<19}{'by replicas':>13}{'pages of writers':>18}{'':>8}{'old':>5}"
    f"{'writes':>14}{'':>8}{'back':>10}"
)

URLS = """
import itertools
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

from my_project.scaling.db.replicas import reading_from_primary, reading_from_replicas, wrote
from my_project.urls import handler500

PORT = Func(function="inet_server_port", output_field=IntegerField())
SLEEP = Func(template="(SELECT 1 FROM pg_sleep(0.1))", output_field=IntegerField())
SERVED = Group.objects.annotate(port=PORT)


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


def returning():
    sql = "UPDATE auth_group SET name = 'one' WHERE id = 1 RETURNING *, inet_server_port() AS port"
    return [*[group.port for group in Group.objects.raw(sql)], port()]


def explained():
    with reading_from_primary():
        Group.objects.all().explain()
    return [port()]


def related():
    with reading_from_primary():
        group = SERVED.get(pk=1)
    return [group.permissions.annotate(port=PORT).first().port, port()]


def unknown():
    return [*[row.port for row in Group.objects.raw("SELECT id, inet_server_port() AS port FROM unknown")], port()]


CASES = [read, write, own_write, explicit_write, returning, functions, thread, atomic, locked, savepoint, cached]
CASES = {case.__name__: case for case in [*CASES, explained, related, decorated, blocks, unknown]}


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
    parts = (f"{',' * bool(n)}{group.port}" for n, group in enumerate(SERVED.iterator()))
    return StreamingHttpResponse(itertools.chain("[", parts, "]"))


def session(request):
    request.session["key"] = "value"  # written after the view has returned
    return HttpResponse("set")


def page(request, visitor):
    first = SERVED.get(pk=visitor)
    return JsonResponse({"ports": [first.port, port()], "value": int(first.name.split()[1])})


@csrf_exempt
def store(request, visitor, value):
    Group.objects.filter(pk=visitor).update(name=f"{visitor} {value}")
    return HttpResponse("stored")


def busy(request):
    return HttpResponse(str([group.slept for group in Group.objects.annotate(slept=SLEEP).filter(pk=1)]))


urlpatterns = [
    path("case/<name>", case),
    path("async", asynchronous),
    path("decorated_async", decorated_async),
    path("streamed", streamed),
    path("session", session),
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
def servers(with_replica, folder):
    """The primary and two replicas, the relays that lead to them, and those from the primary to the replicas."""
    found = SimpleNamespace()
    settings = {"max_connections": 60, "log_statement": "all", "wal_retrieve_retry_interval": "200ms"}
    found.primary = Postgres(with_replica.python, folder, max_standby_streaming_delay="10ms", **settings)
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
        found.all, found.ports = started, [server.port for server in started]
        yield found
    finally:
        for server in started:
            server.control("stop", "-m", "immediate")


@pytest.fixture(scope="module")
def site(with_replica, folder, servers):
    urls = [servers.primary.url("site", relay.port) for relay in servers.relays]
    site = Site(with_replica, folder, URLS, DATABASE_URL=urls[0], REPLICA_DATABASE_URLS=urls[1:], WORKERS=2, THREADS=4)
    with_replica.manage("migrate", **site.environment)
    rows = "SELECT n, n || ' 0' FROM generate_series(1, 20) AS n"
    servers.primary.execute(f"INSERT INTO auth_group (id, name) {rows}", "site")
    servers.primary.execute("INSERT INTO auth_group_permissions (group_id, permission_id) VALUES (1, 1)", "site")
    site.command("python", "manage.py", "collectstatic", "--no-input")
    try:
        site.start("/none")
        wait_until(lambda: served_by(site, servers) == {1, 2})
        yield site
    finally:
        site.stop()


def test_bad_url(with_replica, tmp_path):
    urls = ["postgresql://ada:hidden@db/shop", "mysql://ada:hidden@db/shop"]
    environment = with_replica.configure(tmp_path, REPLICA_DATABASE_URLS=urls)

    ran = with_replica.manage("config", "check", check=False, **environment)
    assert "REPLICA_DATABASE_URLS[1]: found a text of 26 characters, expected a URL such as" in ran.stdout
    environment = with_replica.configure(tmp_path, REPLICA_DATABASE_URLS=urls[:1])
    shown = with_replica.manage("config", "show", **environment)
    assert "postgresql://ada:********@db/shop" in shown.stdout
    assert "hidden" not in f"{ran.stdout}{shown.stdout}"


def test_no_replicas(with_replica, folder, servers, site):
    """An empty list, the default, is a site without replicas."""
    alone = Site(with_replica, folder, URLS, DATABASE_URL=servers.primary.url("site"))
    script = (
        "import threading; from django.db import connections; from django.test import Client\n"
        "from outage_urls import port\n"
        "response = Client(headers={'host': '127.0.0.1'}).get('/case/write')\n"
        "threads = [thread.name for thread in threading.enumerate()]\n"
        "print(list(connections), response.json(), len(response.cookies), 'replicas' in threads)"
    )
    ran = alone.command("python", "manage.py", "shell", "--no-imports", "-c", script)
    assert f"['default'] [{servers.ports[0]}] 0 False\n" in ran.stdout


def test_development_meets_the_router_and_the_middleware(with_replica):
    script = "from django.db import router; from django.conf import settings as s; print(s.MIDDLEWARE, router.routers)"
    ran = with_replica.manage("shell", "--no-imports", "-c", script)

    assert "scaling.db.replicas.router.Router object" in ran.stdout
    assert "scaling.db.replicas.replicas" in ran.stdout


def numbers(servers, ports):
    """Return which servers answered: 0 is the primary, 1 any replica."""
    return [min(1, servers.ports.index(port)) for port in ports]


@pytest.mark.parametrize("name", ["User-Agent", "Cookie"])
def test_each_visitor_reads_from_one_replica(site, servers, name):
    # The first pages of each worker are the primary's, until it knows that the replicas are fresh.
    wait_until(lambda: all(servers.ports[0] not in json.loads(site.get("/case/read")[1]) for _ in range(20)))
    ids = [{name: f"sessionid=visitor-{number}"} for number in range(16)]
    answers = [[site.get("/case/read", **visitor) for _ in range(8)] for visitor in ids]
    visitors = [{port for _, text, _, _ in pages for port in json.loads(text)} for pages in answers]

    assert {len(ports) for ports in visitors} == {1}
    assert {servers.ports.index(port) for ports in visitors for port in ports} == {1, 2}
    found = {(headers["Set-Cookie"], headers["Cache-Control"]) for pages in answers for _, _, headers, _ in pages}
    assert found == {(None, "private")}


@pytest.mark.parametrize(
    ("method", "name", "expected", "pins"),
    [
        ("GET", "write", [0], True),
        ("GET", "own_write", [0], True),
        ("GET", "explicit_write", [0], True),
        ("GET", "returning", [0, 0], True),
        ("GET", "functions", [0], True),
        ("GET", "thread", [0, 0, 0], True),
        ("GET", "atomic", [0], False),
        ("GET", "locked", [0, 1], False),
        ("GET", "savepoint", [1], False),
        ("GET", "cached", [1], False),
        ("GET", "related", [0, 1], False),
        ("GET", "explained", [1], False),
        ("GET", "decorated", [1], False),
        ("GET", "blocks", [0, 1, 1, 1, 0, 0], True),
        ("POST", "read", [0, 0], False),
        ("POST", "decorated", [1], False),
        ("POST", "write", [0], True),
    ],
)
def test_case(site, servers, method, name, expected, pins):
    """Pages read from the replicas until they write; only those that write pin their visitor."""
    status, text, headers, _ = site.get(f"/case/{name}", method)

    assert status == 200
    assert numbers(servers, json.loads(text)) == expected
    cookie = headers["Set-Cookie"]
    assert bool(cookie) == pins
    assert headers["Cache-Control"] == ("private, s-maxage=0" if pins else "private")
    if pins:
        assert re.fullmatch(rf"wrote=1:[\w:-]+; expires=[^;]+; HttpOnly; Max-Age={PIN}; Path=/; SameSite=Lax", cookie)


@pytest.mark.parametrize(
    ("path", "expected"), [("/async", [1, 0, 0, 0]), ("/decorated_async", [0]), ("/streamed", [1] * 20)]
)
def test_other_views(site, servers, path, expected):
    assert numbers(servers, json.loads(site.get(path)[1])) == expected


def test_session_alone_pins(site):
    cookies = site.get("/session")[2].get_all("Set-Cookie")

    assert sorted(cookie.partition("=")[0] for cookie in cookies) == ["sessionid", "wrote"]


SIGN = """
import json, time
from django.conf import settings
from django.http import HttpResponse
from django.test.utils import override_settings

clock, cookies = time.time, []
for age, key in ((1, settings.SECRET_KEY), (8, settings.SECRET_KEY), (1, "x" * 50), (-3600, "x" * 50)):
    time.time = lambda: clock() - age
    response = HttpResponse()
    with override_settings(SECRET_KEY=key):
        response.set_signed_cookie("wrote", "1")
    cookies.append(response.cookies["wrote"].value)
print(json.dumps(cookies))
"""


def test_only_a_fresh_cookie_of_ours_pins(site, servers):
    ran = site.command("python", "manage.py", "shell", "--no-imports", "-c", SIGN)
    fresh, *others = json.loads(ran.stdout)

    pinned = [json.loads(site.get("/case/read", Cookie=f"wrote={fresh}")[1]) for _ in range(8)]
    assert {number for ports in pinned for number in numbers(servers, ports)} == {0}
    for cookie in (*others, "1", ""):
        assert numbers(servers, json.loads(site.get("/case/read", Cookie=f"wrote={cookie}")[1])) == [1, 1], cookie


OUTSIDE = """
import asyncio, json, time
from asgiref.sync import sync_to_async
from my_project.scaling.db.replicas import reading_from_primary, reading_from_replicas
from outage_urls import SERVED, atomic, port, write

@reading_from_replicas()
def decorated(depth=1):
    return (decorated(0) if depth else []) + [port()]

@reading_from_replicas()
async def decorated_async():
    return [(await SERVED.afirst()).port, (await sync_to_async(port)())]

found = [port()]
with reading_from_replicas():
    found += [port(), *atomic()]
    with reading_from_primary():
        found.append(port())
    found += [port(), *write(), port()]
found += [port(), *decorated(), *asyncio.run(decorated_async()), port()]
print(json.dumps(found))
"""


def test_outside_of_requests(site, servers):
    """Commands, the shell and tasks read from the primary, and from a replica where they say so, until they write."""
    ran = site.command("python", "manage.py", "shell", "--no-imports", "-c", OUTSIDE)

    assert numbers(servers, json.loads(ran.stdout)) == [0, 1, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 0]


ASGI = """
import asyncio, json, time
import django
django.setup()
from django.conf import settings
from django.test import AsyncClient

settings.ALLOWED_HOSTS = ["*"]

async def ask(path):
    response = await AsyncClient().get(path)
    text = b"".join([part async for part in response]) if response.streaming else response.content
    return path, json.loads(text)

async def main():
    await ask("/case/read")
    await asyncio.sleep(1)
    paths = ["/async", "/case/read", "/case/write", "/case/thread", "/decorated_async", "/streamed"] * 5
    return await asyncio.gather(*map(ask, paths))

print(json.dumps(asyncio.run(main())))
"""


def test_asgi(site, servers):
    """Requests that are served at the same time, in the same threads, do not turn each other."""
    ran = site.command("python", "-W", "ignore", "-c", ASGI)
    answers = json.loads((re.search(r"^\[\[.*", ran.stdout, re.MULTILINE) or [ran.stdout])[0])

    expected = {
        "/async": [1, 0, 0, 0],
        "/case/read": [1, 1],
        "/case/write": [0],
        "/case/thread": [0, 0, 0],
        "/decorated_async": [0],
        "/streamed": [1] * 20,
    }
    assert len(answers) == 30
    assert all(numbers(servers, ports) == expected[path] for path, ports in answers), answers


def test_cache_table_stays_on_the_primary(site, servers):
    site.get("/case/cached")

    counts = [(server.data / "log").read_text().count('FROM "cache"') for server in servers.all]
    assert counts[0] > 0
    assert counts[1:] == [0, 0]


def test_login_is_seen_by_all_workers(site, servers):
    """The session is there at once, although no replica has heard of it, and by itself: it is always the primary's."""
    command = ["createsuperuser", "--no-input", "--username", "ada", "--email", "ada@example.com"]
    site.environment["DJANGO_SUPERUSER_PASSWORD"] = "correct horse"
    assert site.command("python", "manage.py", *command).returncode == 0
    form = site.get("/admin/login/")
    token = re.search(r"csrftoken=(\w+)", form[2]["Set-Cookie"])[1]
    for replica in servers.replicas:
        replica.execute("SELECT pg_wal_replay_pause()")
    try:
        status, _, headers, _ = site.get(
            "/admin/login/",
            "POST",
            urlencode(
                {"username": "ada", "password": "correct horse", "next": "/admin/", "csrfmiddlewaretoken": token}
            ),
            **{"Cookie": f"csrftoken={token}", "Content-Type": "application/x-www-form-urlencoded"},
        )
        assert status == 302
        cookies = "; ".join(cookie.partition(";")[0] for cookie in headers.get_all("Set-Cookie"))
        answers = [site.get("/admin/", Cookie=cookies)[0] for _ in range(8)]
        session = re.search(r"sessionid=\w+", cookies)[0]
        unpinned = [site.get("/admin/", Cookie=session)[0] for _ in range(8)]
    finally:
        for replica in servers.replicas:
            replica.execute("SELECT pg_wal_replay_resume()")

    assert answers == unpinned == [200] * 8


def test_what_a_replica_does_not_know_yet_comes_from_the_primary(site, servers):
    for replica in servers.replicas:
        replica.execute("SELECT pg_wal_replay_pause()")
    try:
        servers.primary.execute("CREATE TABLE unknown AS SELECT 1 AS id", "site")
        answers = [site.get("/case/unknown")[:2] for _ in range(4)]
    finally:
        for replica in servers.replicas:
            replica.execute("SELECT pg_wal_replay_resume()")

    assert [(status, numbers(servers, json.loads(text))) for status, text in answers] == [(200, [0, 1])] * 4


def test_query_in_the_way_of_replication(site, servers):
    """A replica cancels what stands in the way of replication: the primary answers, and nobody notices."""
    canceled = "SELECT sum(confl_lock) FROM pg_stat_database_conflicts"
    with ThreadPoolExecutor(4) as pool:
        pages = [pool.submit(site.get, "/busy") for _ in range(40)]
        while not all(page.done() for page in pages):
            servers.primary.execute("BEGIN; LOCK TABLE auth_group; COMMIT", "site")
            time.sleep(0.05)

    assert {page.result()[:2] for page in pages} == {(200, "[1]")}
    assert sum(replica.execute(canceled)[0][0] for replica in servers.replicas) > 0


def test_asking_costs_little(site, servers):
    """Each process asks each server twice a second, whatever is read."""
    before = [(server.data / "log").read_text().count("pg_current_wal_lsn()") for server in servers.all]
    start = time.monotonic()
    while time.monotonic() - start < 2:
        site.get("/case/read")
    asked = [(server.data / "log").read_text().count("pg_current_wal_lsn()") for server in servers.all]

    assert all(0 < after - then <= 2 * 2 * (2 + 1) for then, after in zip(before, asked, strict=True))


class Visitor(threading.Thread):
    """Somebody who changes a row of their own now and then and looks at it in between; one who never does is a reader.

    Pages are (status, seconds, ports of the servers that answered, whether older than what was acknowledged).
    """

    def __init__(self, site, number, writes):
        super().__init__(daemon=True)
        self.site, self.number, self.writes = site, number, writes
        self.browser = {"User-Agent": f"browser {number}"}
        self.pages, self.stores, self.stored, self.cookie, self.forgets = [], [], 0, None, 0
        self.stopped = threading.Event()

    def run(self):
        next_store = time.monotonic()
        tried = self.stored
        while not self.stopped.wait(0.02):
            cookie = {"Cookie": self.cookie} if self.cookie and time.monotonic() < self.forgets else {}
            cookie |= self.browser
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


def served_by(site, servers, count=24):
    """Return the numbers of the servers that pages are read from, in all workers: 0 is the primary."""
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(lambda number: site.get("/page/1", **{"User-Agent": f"browser {number}"}), range(count)))
    return {servers.ports.index(port) for _, text, _, _ in pages for port in json.loads(text)["ports"]}


def takes_writes(site, count=8):
    with ThreadPoolExecutor(count) as pool:
        return {answer[0] for answer in pool.map(lambda _: site.get("/store/20/1", "POST"), range(count))} == {200}


@pytest.fixture
def outage(site, servers, record_property, matrix):
    """Return a function that runs a state under load, sees all replicas return, and returns what happened."""

    def run(state, begin, end, seconds, during=None, back=frozenset({1, 2})):
        visitors = [Visitor(site, number, number <= WRITERS) for number in range(1, WRITERS + READERS + 1)]
        for visitor in visitors:
            visitor.start()
        time.sleep(0.5)
        begin()
        # Until something is written, nobody can lag.
        servers.primary.execute("UPDATE auth_group SET name = '20 2' WHERE id = 20", "site")
        time.sleep(seconds)
        seen = during and served_by(site, servers)
        end()
        over = time.monotonic()
        wait_until(lambda: served_by(site, servers) == back and takes_writes(site))
        after = time.monotonic() - over
        for visitor in visitors:
            visitor.stopped.set()
        for visitor in visitors:
            visitor.join()
        readers = [page for visitor in visitors if not visitor.writes for page in visitor.pages]
        pages = [page for visitor in visitors if visitor.writes for page in visitor.pages]
        stores = [store for visitor in visitors for store in visitor.stores]
        ports = [port for page in readers for port in page[2]]
        load = SimpleNamespace(
            readers=Counter(page[0] for page in readers),
            writers=Counter(page[0] for page in pages),
            stores=Counter(store[0] for store in stores),
            worst=max(page[1] for page in readers),
            old=sum(page[3] for page in pages),
        )

        def counts(statuses):
            return " ".join(f"{n}×{status}" for status, n in sorted(statuses.items(), key=str))

        record_property(
            TABLE,
            f"{state:<26}{counts(load.readers):<12}{load.worst:>5.2f} s"
            f"{1 - ports.count(servers.ports[0]) / len(ports):>13.0%}{counts(load.writers):>18}"
            f"{max(page[1] for page in pages):>6.2f} s{load.old:>5}"
            f"{counts(load.stores):>14}{max(store[1] for store in stores):>6.2f} s{after:>8.1f} s",
        )
        slowest = max(answer[1] for answer in [*readers, *pages, *stores])
        matrix(f"replicas: {state}", load.readers + load.writers + load.stores, slowest, after)
        assert not set(load.readers) - {200}
        assert seen == during
        assert load.old == 0
        assert after < RECOVERY
        return load

    return run


def ready(site):
    """Return what /readyz answers."""
    status, text, _, _ = site.get("/readyz")
    return status, json.loads(text)["degraded"]


def test_refused(outage, site, servers):
    found = []

    def end():
        found.append(ready(site))
        servers.relays[1].open()

    load = outage("one refused", servers.relays[1].refuse, end, 2, {2})
    assert load.writers.keys() == load.stores.keys() == {200}
    assert found == [(200, ["replica_1"])]


def test_hung(outage, servers):
    flowing = servers.relays[1].flowing
    load = outage("one hung", flowing.clear, flowing.set, 3, {2})
    assert load.writers.keys() == load.stores.keys() == {200}
    assert load.worst < HUNG + MARGIN


def test_restarted(outage, servers):
    load = outage("one restarted", lambda: servers.replicas[0].control("restart", "-m", "fast"), lambda: None, 0)
    assert load.writers.keys() == load.stores.keys() == {200}


def test_backends_killed(outage, servers):
    load = outage("connections to one killed", servers.replicas[0].kill_backends, lambda: None, 0)
    assert load.writers.keys() == load.stores.keys() == {200}


def test_lags(outage, servers):
    """Somebody who wrote before the replica fell behind, and is no longer sent to the primary, sees it all the same."""
    replay = "SELECT pg_wal_replay_%s()"
    replica = servers.replicas[0]
    load = outage(
        "one lags",
        lambda: replica.execute(replay % "pause"),
        lambda: replica.execute(replay % "resume"),
        PIN + 2,
        {2},
    )
    assert load.writers.keys() == load.stores.keys() == {200}


def test_cut_off_from_primary(outage, servers):
    """Nothing is left to apply, and yet it lags."""
    stream = servers.streams[0]
    load = outage("one cut off from primary", stream.refuse, stream.open, LAG + 1, {2})
    assert load.writers.keys() == load.stores.keys() == {200}


def test_all_refused(outage, servers):
    relays = servers.relays[1:]
    load = outage(
        "all refused", lambda: [relay.refuse() for relay in relays], lambda: [relay.open() for relay in relays], 2, {0}
    )
    assert load.writers.keys() == load.stores.keys() == {200}


def test_all_stopped(outage, servers):
    pids = [pid for replica in servers.replicas for pid in replica.processes()]

    def send(number):
        for pid in pids:
            os.kill(pid, number)

    load = outage("all stopped (SIGSTOP)", lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT), 3, {0})
    assert load.writers.keys() == load.stores.keys() == {200}
    assert load.worst < HUNG + MARGIN


STAFF = """
from django.contrib.auth import get_user_model
from django.test import Client

client = Client()
client.force_login(get_user_model().objects.create_superuser("bob"))
print(client.cookies["sessionid"].value)
"""


@pytest.fixture
def staff(site):
    """The cookie of somebody who logged in a while ago."""
    ran = site.command("python", "manage.py", "shell", "--no-imports", "-c", STAFF)
    return f"sessionid={ran.stdout.split()[-1]}"


def test_primary_refused(outage, site, servers, staff):
    """Sessions are nowhere else without Redis: who has one waits for the primary."""
    found = []

    def end():
        found.append(ready(site))
        found.append(site.get("/admin/", Cookie=staff)[0])
        servers.relays[0].open()

    load = outage("primary refused", servers.relays[0].refuse, end, 3, {1, 2})
    assert load.stores[503]
    assert found == [(200, ["database"]), 503]


def test_primary_hung(outage, servers):
    flowing = servers.relays[0].flowing
    load = outage("primary hung", flowing.clear, flowing.set, 4, {1, 2})
    assert load.stores[503]


def test_everything_refused(site, servers):
    for relay in servers.relays:
        relay.refuse()
    wait_until(lambda: ready(site) == (503, ["database"]))
    status = site.get("/page/1")[0]
    for relay in servers.relays:
        relay.open()

    assert status == 503
    wait_until(lambda: ready(site) == (200, []) and takes_writes(site), RECOVERY)


def test_promoted(outage, servers):
    """What is no longer a replica is not read from; it stays so."""
    load = outage("one promoted", lambda: servers.replicas[0].control("promote"), lambda: None, 1, {2}, {2})
    assert load.writers.keys() == load.stores.keys() == {200}
