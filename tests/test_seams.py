"""With everything on, the options hold together while the replicas lag: nobody reads what is older than he has seen.

One project with every option, a primary, two replicas that apply what they receive half a second and a quarter of one
late, Redis, and gunicorn on the deploy settings. `slow` and `slower` below are these replicas.
"""

import json
import os
import re
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import psycopg
import pytest
from servers import Postgres, Redis, Relay, Site, wait_until

LAG, PAUSE = 3, 3  # seconds: REPLICA_LAG, REPLICA_PAUSE
RECOVERY = 5
OPTIONS = ("use_redis", "use_celery", "use_cdn", "use_replica", "use_sentry")

SETTINGS = """
from outage_settings import *
from outage_settings import config, database

DATABASES |= {"legacy": database(config.DATABASE_URL) | {"NAME": "legacy"}}
MIDDLEWARE = ["outage_urls.wrapping", *MIDDLEWARE]
"""

URLS = """
from contextvars import ContextVar

from django.conf import settings
from django.contrib.auth import get_user_model, login, logout
from django.contrib.auth.models import Group
from django.db import connection
from django.db.models import Func, IntegerField
from django.http import HttpResponse, JsonResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import path

from my_project.scaling.cache import cached
from my_project.scaling.http.public import public
from my_project.scaling.db.replicas import reading_from_primary
from my_project.urls import handler500

PORT = Func(function="inet_server_port", output_field=IntegerField())
calls = ContextVar("calls", default=0)


def count(execute, sql, params, many, context):
    calls.set(calls.get() + 1)
    return execute(sql, params, many, context)


def wrapping(get_response):
    '''What Django's documentation shows under "Database instrumentation".'''

    def middleware(request):
        calls.set(0)
        with connection.execute_wrapper(count):
            return get_response(request)

    return middleware


def template(text):
    return engines["django"].from_string("{% load scaling %}" + text)


def store(request, pk, value):
    Group.objects.filter(pk=pk).update(name=f"{pk} {value}")
    return HttpResponse("stored")


def value(pk):
    return Group.objects.get(pk=pk).name.split()[1]


def seen(request, pk):
    return JsonResponse({"value": int(value(pk)), "port": Group.objects.annotate(port=PORT).get(pk=pk).port})


def seen_after_the_primary_answered(request, pk):
    with reading_from_primary():
        Group.objects.get(pk=pk)
    return JsonResponse({"value": int(value(pk))})


def computed(request, pk, key):
    return HttpResponse(cached(key, settings.LONG_TTL, lambda: value(pk)))


def rows(request, pk, key):
    groups = cached(key, settings.LONG_TTL, lambda: Group.objects.filter(pk=pk))
    return HttpResponse(groups[0].name.split()[1])


def fragment(request, pk, key):
    groups = "{% for group in groups %}{{ group }}{% endfor %}"
    page = template("{% fragment LONG_TTL 'groups' key %}" + groups + "{% endfragment %}")
    return HttpResponse(page.render({"groups": Group.objects.filter(pk=pk), "key": key}, request).split()[1])


@public(settings.SHORT_TTL)
def public_page(request, pk):
    return HttpResponse(value(pk))


@public(settings.SHORT_TTL)
def public_template(request, pk):
    '''Rendered, and its query executed, when the view has returned.'''
    text = template("{% for group in groups %}{{ group.name }}{% endfor %}")
    return TemplateResponse(request, text, {"groups": Group.objects.filter(pk=pk)})


@public(settings.SHORT_TTL)
async def public_async(request, pk):
    return HttpResponse((await Group.objects.aget(pk=pk)).name)


def enter(request):
    login(request, get_user_model().objects.get_or_create(username=request.GET["name"])[0])
    return HttpResponse("welcome")


def leave(request):
    logout(request)
    return HttpResponse("bye")


def who(request):
    return HttpResponse(request.user.username)


def legacy_save(request, pk):
    group = Group.objects.using("legacy").get(pk=pk)
    group.name = "saved"
    group.save()
    return HttpResponse("saved")


def legacy_delete(request, pk):
    Group.objects.using("legacy").get(pk=pk).delete()
    return HttpResponse("deleted")


def write(request):
    Group.objects.filter(pk=1).update(name="1 0")
    return JsonResponse({"calls": calls.get(), "port": Group.objects.annotate(port=PORT).get(pk=1).port})


urlpatterns = [
    path("store/<int:pk>/<int:value>", store),
    path("seen/<int:pk>", seen),
    path("seen_after/<int:pk>", seen_after_the_primary_answered),
    path("cached/<int:pk>/<key>", computed),
    path("fragment/<int:pk>/<key>", fragment),
    path("rows/<int:pk>/<key>", rows),
    path("public/<int:pk>", public_page),
    path("public_template/<int:pk>", public_template),
    path("public_async/<int:pk>", public_async),
    path("enter", enter),
    path("leave", leave),
    path("who", who),
    path("legacy/save/<int:pk>", legacy_save),
    path("legacy/delete/<int:pk>", legacy_delete),
    path("write", write),
    path("none", lambda request: HttpResponse("nothing")),
]
store.csrf_exempt = who.csrf_exempt = True
"""


class Seams:
    """The site with all its servers, and what its visitors do."""

    def __init__(self):
        self.stack = ExitStack()
        self.number = 0

    def start(self, project, folder):
        settings = {"max_connections": 100, "log_statement": "all", "wal_retrieve_retry_interval": "200ms"}
        self.primary = Postgres(project.python, folder, **settings)
        self.primary.control("start")
        self.stack.callback(self.primary.control, "stop", "-m", "immediate")
        self.primary.execute("CREATE DATABASE site")
        self.streams = [Relay(self.primary.port), Relay(self.primary.port)]
        self.replicas = []
        for stream, delay in zip(self.streams, ("500ms", "250ms"), strict=True):
            replica = self.primary.replica(folder, stream.port)
            self.stack.callback(replica.control, "stop", "-m", "immediate")
            replica.execute(f"ALTER SYSTEM SET recovery_min_apply_delay = '{delay}'")
            self.replicas.append(replica)
        replica.execute("ALTER SYSTEM SET superuser_reserved_connections = 90")
        for replica in self.replicas:
            replica.control("restart")
        self.relays = [Relay(server.port) for server in (self.primary, *self.replicas)]
        urls = [self.primary.url("site", relay.port) for relay in self.relays]
        self.redis = Redis(folder).start()
        self.stack.callback(self.redis.stop)
        values = {"DATABASE_URL": urls[0], "REPLICA_DATABASE_URLS": urls[1:], "WORKERS": 2, "THREADS": 4}
        values |= {"CACHE_REDIS_URL": self.redis.url(0), "CELERY_BROKER_URL": self.redis.url(1)}
        self.site = Site(project, folder, URLS, **values)
        (folder / "seams_settings.py").write_text(SETTINGS)
        self.site.environment["DJANGO_SETTINGS_MODULE"] = "seams_settings"
        project.manage("migrate", **self.site.environment)
        rows = "INSERT INTO auth_group (id, name) SELECT n, n || ' 0' FROM generate_series(1, 20) AS n"
        self.primary.execute(rows, "site")
        self.primary.execute("CREATE DATABASE legacy TEMPLATE site")
        self.site.command("python", "manage.py", "collectstatic", "--no-input")
        self.stack.callback(self.site.stop)
        self.site.start("/none")
        wait_until(self.reads_from_replicas, 30)

    def get(self, path, method="GET", **headers):
        """Return the text of a page; it must be one."""
        status, text, *_ = self.site.get(path, method, **headers)
        assert status == 200, f"{path} answered {status}: {text}"
        return text

    def reads_from_replicas(self):
        """Tell whether all visitors, in all workers, are served by replicas, and each of these serves somebody."""
        answers = [self.site.get("/seen/1", **visitor(n)) for n in range(40)]
        found = {json.loads(text)["port"] if status == 200 else None for status, text, *_ in answers}
        return found == {replica.port for replica in self.replicas}

    def store(self, pk):
        """Have somebody write a row; return the value, which no other test has written."""
        self.number += 1
        self.get(f"/store/{pk}/{self.number}", "POST")
        return self.number

    def catch_up(self):
        """Wait until the replicas have applied what has been written."""
        position = self.primary.execute("SELECT pg_current_wal_insert_lsn()")[0][0]
        applied = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        wait_until(lambda: all(replica.execute(applied)[0][0] for replica in self.replicas))

    def kill_watchers(self):
        """Close the connections on which the site asks the primary how far it is."""
        watchers = "query LIKE '%pg_last_wal_replay_lsn%' AND pid <> pg_backend_pid()"
        self.primary.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {watchers}")

    def times_asked(self):
        """Return how often each replica was asked how far it is."""
        return [(replica.data / "log").read_text().count("pg_last_wal_receive_lsn") for replica in self.replicas]

    def degraded(self):
        return json.loads(self.site.get("/readyz")[1])["degraded"]


def visitor(number):
    """Return the headers of one of several visitors without cookies."""
    return {"User-Agent": f"browser {number}"}


def cookies(headers):
    """Return what a browser keeps of a response, as its headers."""
    found = dict(cookie.partition(";")[0].split("=", 1) for cookie in headers.get_all("Set-Cookie"))
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in found.items())}


@pytest.fixture(scope="module")
def seams(set_up, folder):
    project = set_up(**dict.fromkeys(OPTIONS, True), media_storage="s3")
    seams = Seams()
    with seams.stack:
        seams.start(project, folder)
        yield seams


def test_session_that_ended_stays_ended(seams):
    """One tab logs out while another one's request is on its way: that must not bring the session back, for anybody."""
    session = cookies(seams.site.get("/enter?name=ada")[2])
    tab = {"Cookie": re.search(r"sessionid=\w+", session["Cookie"])[0]}
    seams.catch_up()
    assert seams.get("/who", **tab) == "ada"

    assert seams.get("/leave", **session) == "bye"
    at_once = seams.get("/who", **tab)
    seams.catch_up()
    assert [at_once, seams.get("/who", **tab), seams.get("/who", "POST", **tab)] == ["", "", ""]


@pytest.mark.parametrize("page", ["cached", "fragment", "rows"])
def test_what_is_cached_is_computed_from_what_is_current(seams, page):
    """Somebody else asks right after a write for what is then kept for an hour."""
    value = seams.store(2)
    path = f"/{page}/2/{page}-{value}"
    at_once = seams.get(path)
    seams.catch_up()

    assert [at_once, seams.get(path)] == [str(value)] * 2


@pytest.mark.parametrize("page", ["public", "public_template", "public_async"])
def test_public_page_is_made_of_what_is_current(seams, page):
    """A CDN fetches a page anew right after a write, and keeps it."""
    value = seams.store(3)
    status, text, headers, _ = seams.site.get(f"/{page}/3")

    assert (status, text.split()[-1]) == (200, str(value))
    assert "s-maxage=600" in headers["Cache-Control"]


def test_rows_of_another_database_stay_there(seams):
    rows = "SELECT id, name FROM auth_group WHERE id IN (4, 5) ORDER BY id"
    before = seams.primary.execute(rows, "site")
    seams.get("/legacy/save/4")
    seams.get("/legacy/delete/5")

    assert seams.primary.execute(rows, "legacy") == [(4, "saved")]
    assert seams.primary.execute(rows, "site") == before


def test_wrappers_of_a_middleware_and_ours_leave_each_other_alone(seams):
    """Each thread of each worker is asked more than once."""
    answers = [seams.site.get("/write") for _ in range(40)]

    assert {json.loads(text)["calls"] for _, text, *_ in answers} == {1}
    assert {json.loads(text)["port"] for _, text, *_ in answers} == {seams.primary.port}
    assert [bool(re.match("wrote=", headers["Set-Cookie"] or "")) for _, _, headers, _ in answers] == [True] * 40


def test_reloading_never_goes_back(seams):
    """Several visitors reload while somebody else writes; the replicas differ by a quarter of a second."""
    of = {}
    for n in range(40):
        of.setdefault(json.loads(seams.get("/seen/6", **visitor(n)))["port"], []).append(n)
    stopped = threading.Event()
    seen = {n: [] for visitors in of.values() for n in visitors[:3]}

    def write():
        while not stopped.wait(0.02):
            seams.store(6)

    def reload(n):
        while not stopped.is_set():
            seen[n].append(json.loads(seams.get("/seen/6", **visitor(n))))

    threads = [threading.Thread(target=write), *(threading.Thread(target=reload, args=[n]) for n in seen)]
    for thread in threads:
        thread.start()
    with suppress(AssertionError):
        wait_until(lambda: all(len({page["value"] for page in pages}) > 10 for pages in seen.values()), 60)
    stopped.set()
    for thread in threads:
        thread.join()

    values = {n: [page["value"] for page in pages] for n, pages in seen.items()}
    assert min(len(set(pages)) for pages in values.values()) > 10
    assert values == {n: sorted(pages) for n, pages in values.items()}
    assert {page["port"] for pages in seen.values() for page in pages} == {server.port for server in seams.replicas}


@contextmanager
def no_slots(seams):
    """Take all connections of the primary but those that are in use; the watchers lose theirs."""
    taken = []
    try:
        seams.kill_watchers()
        with suppress(psycopg.OperationalError):
            while True:
                taken.append(psycopg.connect(seams.primary.url("postgres")))
        yield
    finally:
        for connection in taken:
            connection.close()


@contextmanager
def no_new_connections(seams):
    """Refuse the watchers a new connection, and leave all others theirs."""
    with suppress(OSError):
        seams.relays[0].listener.shutdown(socket.SHUT_RDWR)
    seams.relays[0].listener.close()
    seams.kill_watchers()
    try:
        yield
    finally:
        seams.relays[0].open()


@contextmanager
def refused(seams):
    """Keep the site, but not the replicas, from the primary."""
    seams.relays[0].refuse()
    try:
        yield
    finally:
        seams.relays[0].open()


@contextmanager
def paused(seams):
    """Have the replicas receive, but not apply."""
    for replica in seams.replicas:
        replica.execute("SELECT pg_wal_replay_pause()")
    try:
        yield
    finally:
        for replica in seams.replicas:
            replica.execute("SELECT pg_wal_replay_resume()")


@contextmanager
def cut_off(seams):
    """Keep the replicas from the primary."""
    for stream in seams.streams:
        stream.refuse()
    try:
        yield
    finally:
        for stream in seams.streams:
            stream.open()


@pytest.mark.parametrize(
    ("primary", "replicas", "page", "is_served"),
    [
        (no_slots, paused, "seen", True),
        (no_slots, cut_off, "seen", True),  # it is the server that refuses
        (no_new_connections, cut_off, "seen_after", True),  # its statements are answered
        (refused, paused, "seen", False),  # they know that something newer exists
    ],
)
def test_who_cannot_ask_the_primary(seams, primary, replicas, page, is_served):
    """That a worker does not hear of anything newer does not mean that nobody writes: it reads nothing old for long."""

    def ask():
        status, text, *_ = seams.site.get(f"/{page}/7", **visitor(time.monotonic_ns()))
        return json.loads(text)["value"] if status == 200 else None  # no thread's connection, or none at all

    def degraded():
        status, text, *_ = seams.site.get("/readyz")
        return json.loads(text)["degraded"] if status == (200 if is_served else 503) else None

    for _ in range(40):  # the threads have their connections
        seams.store(7)
    seams.catch_up()
    seams.number += 1
    with psycopg.connect(seams.primary.url("site"), autocommit=True) as writer, replicas(seams), primary(seams):
        writer.execute(f"UPDATE auth_group SET name = '7 {seams.number}' WHERE id = 7")
        end = time.monotonic() + LAG + 2
        while time.monotonic() < end:
            ask()
            time.sleep(0.1)
        values = {ask() for _ in range(20)}
        named = wait_until(degraded)
    wait_until(lambda: seams.degraded() == [], 30)
    wait_until(seams.reads_from_replicas, 30)

    assert values - {None} == ({seams.number} if is_served else set())
    assert "database" in named


SHADOW = """
    CREATE SCHEMA shadow;
    %s;
    ALTER DATABASE site SET search_path = shadow, pg_catalog, public;
"""
NOTHING = """
    CREATE FUNCTION shadow.pg_last_wal_replay_lsn() RETURNS pg_lsn LANGUAGE sql AS 'SELECT NULL::pg_lsn'
"""
TEXT = """
    CREATE FUNCTION shadow.far(pg_lsn, pg_lsn) RETURNS text LANGUAGE sql AS $$ SELECT 'far' $$;
    CREATE OPERATOR shadow.- (LEFTARG = pg_lsn, RIGHTARG = pg_lsn, FUNCTION = shadow.far)
"""


@pytest.mark.parametrize("answer", [NOTHING, TEXT], ids=["nothing", "text"])
def test_watcher_survives_an_answer_that_it_does_not_expect(seams, answer):
    """A replica that says no position is left alone, and read from again when it says one."""
    seams.primary.execute(SHADOW % answer, "site")
    seams.catch_up()
    for replica in seams.replicas:
        replica.kill_backends()
    try:
        asked = seams.times_asked()
        wait_until(lambda: all(now > then + 8 for now, then in zip(seams.times_asked(), asked, strict=True)))
        assert seams.degraded() == ["replica_1", "replica_2"]
        value = seams.store(9)
        assert json.loads(seams.get("/seen/9"))["value"] == value
    finally:
        seams.primary.execute("ALTER DATABASE site RESET search_path; DROP SCHEMA shadow CASCADE", "site")
        seams.catch_up()
        for replica in seams.replicas:
            replica.kill_backends()

    wait_until(seams.reads_from_replicas, RECOVERY + 5)


@contextmanager
def silent(seams):
    """Let nothing pass between the site and the primary, for longer than one that failed is left alone."""
    seams.relays[0].flowing.clear()
    try:
        time.sleep(PAUSE + 2)
        yield
    finally:
        seams.relays[0].flowing.set()


@pytest.mark.parametrize("gone", [refused, silent])
def test_primary_gone(seams, gone):
    """With Redis, pages are served that have fragments or a session; what replicas gave nobody keeps."""
    key = gone.__name__
    session = cookies(seams.site.get("/enter?name=bob")[2])
    tab = {"Cookie": re.search(r"sessionid=\w+", session["Cookie"])[0]}
    value = seams.store(10)
    seams.catch_up()
    seams.get("/who", **tab)  # Redis has it
    with gone(seams):
        wait_until(lambda: all(seams.site.get("/public/10")[0] == 200 for _ in range(20)))  # all workers know
        assert seams.degraded() == ["database"]
        pages = [seams.get(f"/{page}/10/{key}-{page}") for page in ("cached", "fragment") for _ in range(4)]
        public = [seams.site.get(f"/{page}/10") for page in ("public", "public_template") for _ in range(4)]
        user = seams.get("/who", **tab)
        seams.primary.execute("UPDATE auth_group SET name = '10 0' WHERE id = 10", "site")
        seams.catch_up()
    wait_until(lambda: seams.degraded() == [])
    wait_until(lambda: seams.get(f"/cached/10/{key}-cached") == "0", RECOVERY)

    assert set(pages) == {str(value)}
    assert {(status, text.split()[-1], headers["Cache-Control"]) for status, text, headers, _ in public} == {
        (200, str(value), "private")
    }
    assert user == "bob"


def test_connections_of_each_server_are_counted(seams, tmp_path):
    """The second replica accepts fewer; Celery has a worker for each queue, with a process for each core."""
    hosts = {**seams.site.environment, **seams.site.project.configure(tmp_path, **seams.site.values, HOSTS=20)}
    check = ("check", "--database", "default")
    one, twenty = (seams.site.project.manage(*check, **config).stdout for config in (seams.site.environment, hosts))

    replica = "2 workers x 4 threads x 1 hosts, 2 threads that watch the replicas and 5 more need 15 connections"
    assert f"{replica}; replica_2 accepts 10." in one
    assert "replica_1 accepts" not in one
    assert f"40 threads that watch the replicas, {20 * (3 * (os.cpu_count() + 1) + 1)} of Celery and 5 more" in twenty


def test_replica_that_a_failover_left_ahead(seams, folder):
    """It has applied what the new primary never had, and gets nothing any more: it is not fresh, wherever it stands."""
    log = "INSERT INTO auth_group (id, name) SELECT n, repeat('x', 100) || n FROM generate_series(1000, 9000) AS n"
    with ExitStack() as stack:
        (folder / "former").mkdir()
        former = Postgres(seams.site.project.python, folder / "former", max_connections=50)
        servers = [former]
        former.control("start")
        former.execute("CREATE DATABASE site TEMPLATE template0")
        stream = Relay(former.port)
        for port in (stream.port, former.port):
            servers.append(former.replica(folder / "former", port))
        for server in servers[1:]:
            stack.callback(server.control, "stop", "-m", "immediate")
        former, promoted, ahead = servers
        settings = {"DATABASE_URL": former.url("site"), "REPLICA_DATABASE_URLS": [], "WORKERS": 1}
        site = Site(seams.site.project, folder, URLS, **seams.site.values | settings)
        site.environment["DJANGO_SETTINGS_MODULE"] = "seams_settings"
        site.project.manage("migrate", "--verbosity=0", **site.environment)
        former.execute("INSERT INTO auth_group (id, name) VALUES (1, '1 0')", "site")
        wait_until(lambda: promoted.execute("SELECT name FROM auth_group", "site") == [("1 0",)])
        stream.refuse()
        former.execute(log, "site")
        written = "SELECT count(*) > 8000 FROM auth_group"
        wait_until(lambda: ahead.execute(written, "site") == [(True,)])
        former.control("stop", "-m", "immediate")
        promoted.control("promote")

        settings |= {"DATABASE_URL": promoted.url("site"), "REPLICA_DATABASE_URLS": [ahead.url("site")]}
        site = Site(seams.site.project, folder, URLS, **seams.site.values | settings)
        site.environment["DJANGO_SETTINGS_MODULE"] = "seams_settings"
        stack.callback(site.stop)
        site.start("/none")
        wait_until(lambda: "it was not rewound" in site.log.read_text())
        assert site.get("/store/1/42", "POST")[0] == 200
        for _ in range(30):
            assert json.loads(site.get("/seen/1")[1]) == {"value": 42, "port": promoted.port}
            time.sleep(0.1)
        assert json.loads(site.get("/readyz")[1])["degraded"] == ["replica_1"]
