"""With everything on and replicas that lag by half a second, one server after another fails under load.

Alone each block may be right and together wrong. So visitors of four kinds hold what nobody may ever see: whoever wrote
reads what he wrote, nobody who stays with his server sees a page go back in time, no session that ended is logged in
again, no cached value outlives the write that replaced it, and each task that was asked for is done, or has its row.
"""

import http.cookies
import itertools
import json
import signal
import subprocess
import threading
import time
from collections import Counter
from types import SimpleNamespace

import psutil
import pytest
from conftest import clean_environment
from servers import Postgres, Redis, Relay, Site, wait_until

LAG = 0.5  # seconds
SECONDS = 4  # of each state
KEPT = 4  # seconds: what is cached while only replicas answer, jitter included
numbers = itertools.count(1)

TABLE = (
    f"{'everything on, replicas 0.5 s behind':<38}{'answers':>9}{'not 200':>9}{'worst':>9}{'own write lost':>16}"
    f"{'back in time':>14}{'logged in again':>17}{'cached for ever':>17}{'tasks':>7}{'lost':>6}"
)

TASKS = """
from celery import shared_task
from django.db import connection


@shared_task
def record(token):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO ran (token) VALUES (%s)", [token])
"""

URLS = """
import json

from django.contrib.auth import get_user_model, login, logout
from django.contrib.auth.models import Group
from django.core.cache import cache
from django.db import connection, transaction
from django.http import HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from my_project.accounts.tasks import record
from my_project.scaling.cache import cached, make_key
from my_project.urls import handler500


def value(visitor):
    return int(Group.objects.get(pk=visitor).name.split()[1])


@csrf_exempt
def enter(request, name):
    login(request, get_user_model().objects.get(username=name))
    return HttpResponse("welcome")


@csrf_exempt
def leave(request):
    logout(request)
    return HttpResponse("bye")


def page(request, visitor):
    return JsonResponse(value(visitor), safe=False)


def from_cache(request, visitor):
    return JsonResponse(cached("group", 3600, lambda: value(visitor), visitor), safe=False)


@csrf_exempt
@transaction.atomic
def store(request, visitor, new):
    Group.objects.filter(pk=visitor).update(name=f"{visitor} {new}")
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO asked (token) VALUES (%s)", [f"{visitor} {new}"])
    record.delay_on_commit(f"{visitor} {new}")
    transaction.on_commit(lambda: cache.delete(make_key("group", visitor)))
    return HttpResponse("stored")


urlpatterns = [
    path("enter/<name>", enter),
    path("leave", leave),
    path("who", lambda request: HttpResponse(request.user.username)),
    path("page/<int:visitor>", page),
    path("cached/<int:visitor>", from_cache),
    path("store/<int:visitor>/<int:new>", store),
    path("none", lambda request: HttpResponse("no database")),
]
"""


@pytest.fixture(scope="module")
def project(set_up, folder):
    answers = dict.fromkeys(("use_redis", "use_celery", "use_cdn", "use_replica", "use_sentry"), True)
    project = set_up(media_storage="s3", **answers).copy(folder)
    with (project.package / "accounts" / "tasks.py").open("a") as tasks:
        tasks.write(TASKS)
    return project


@pytest.fixture(scope="module")
def servers(project, folder):
    """PostgreSQL with two replicas, a Redis for the cache and one for the broker, and a relay before each."""
    found = SimpleNamespace(started=[])
    try:
        found.primary = Postgres(project.python, folder, max_connections=80, wal_retrieve_retry_interval="200ms")
        found.primary.control("start")
        found.started.append(found.primary)
        found.primary.execute("CREATE DATABASE site")
        for _ in range(2):
            replica = found.primary.replica(folder)
            found.started.append(replica)
            replica.execute(f"ALTER SYSTEM SET recovery_min_apply_delay = '{LAG}s'")
            replica.execute("SELECT pg_reload_conf()")
        found.cache, found.broker = Redis(folder).start(), Redis(folder, appendonly="yes").start()
        names = ("primary", "replica", "other replica", "cache", "broker")
        ports = [server.port for server in (*found.started, found.cache, found.broker)]
        found.relays = {name: Relay(port) for name, port in zip(names, ports, strict=True)}
        found.sentry = Relay(1)
        found.sentry.flowing.clear()
        yield found
    finally:
        for server in found.started:
            server.control("stop", "-m", "immediate")
        for server in (found.cache, found.broker):
            server.stop()


@pytest.fixture(scope="module")
def site(project, folder, servers):
    primary, *replicas = (servers.primary.url("site", relay.port) for relay in list(servers.relays.values())[:3])
    site = Site(
        project,
        folder,
        URLS,
        DATABASE_URL=primary,
        REPLICA_DATABASE_URLS=replicas,
        CACHE_REDIS_URL=servers.cache.url(port=servers.relays["cache"].port),
        CELERY_BROKER_URL=servers.broker.url(1, servers.relays["broker"].port),
        SENTRY_DSN=f"http://key@127.0.0.1:{servers.sentry.port}/1",
        WORKERS=2,
        THREADS=6,
    )
    project.manage("migrate", "--verbosity=0", **site.environment)
    execute(servers, "CREATE TABLE asked (token text); CREATE TABLE ran (token text)")
    execute(servers, "INSERT INTO auth_group (id, name) SELECT n, n || ' 0' FROM generate_series(1, 9) AS n")
    users = "from my_project.accounts.models import User; [User.objects.create_user(f'user{n}') for n in range(9)]"
    project.manage("shell", "--no-imports", "-c", users, **site.environment)
    with (folder / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [project.python.with_name("celery"), "--quiet", "--app", "my_project", "worker", "--concurrency=2"],
            cwd=project.path,
            env=clean_environment(**site.environment),
            stdout=log,
            stderr=log,
        )
    try:
        site.start("/none")
        wait_until(lambda: json.loads(site.get("/readyz")[1])["degraded"] == [])
        yield site
    finally:
        site.stop()
        worker.send_signal(signal.SIGQUIT)
        worker.wait(30)


def execute(servers, sql):
    return servers.primary.execute(sql, "site")


class Visitor:
    """A browser: it keeps its cookies, and notes what it should never have seen."""

    def __init__(self, site, number, record):
        self.site, self.number, self.record, self.cookies = site, number, record, {}

    def ask(self, path, method="GET", cookies=None):
        """Return the text of an answer, or None if there was another status than 200."""
        sent = self.cookies if cookies is None else cookies
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in sent.items())} if sent else {}
        status, text, headers, seconds = self.site.get(path, method, **headers, **{"User-Agent": f"v{self.number}"})
        self.record.answers.append((status, seconds))
        for line in (headers.get_all("Set-Cookie") or []) if cookies is None and headers else []:
            for name, morsel in http.cookies.SimpleCookie(line).items():
                self.cookies[name] = morsel.value
        return text if status == 200 else None

    def writer(self):
        """Write, and read at once what was written."""
        new = next(numbers)
        if self.ask(f"/store/{self.number}/{new}", "POST") is not None:
            self.record.stored[self.number] = new
            seen = self.ask(f"/page/{self.number}")
            self.record.violations["own write lost"] += seen is not None and int(seen) < new
        time.sleep(0.1)

    def reader(self):
        """Look again and again at what somebody else writes."""
        seen = self.ask(f"/page/{self.number - 2}")
        if seen is not None:
            self.record.violations["back in time"] += int(seen) < self.record.seen[self.number]
            self.record.seen[self.number] = int(seen)

    def session(self):
        """Log in and out; the session that another tab still has must be nobody's, then and later."""
        if self.ask(f"/enter/user{self.number}", "POST") is None:
            return
        tab = {"sessionid": self.cookies["sessionid"]}
        time.sleep(1.5 * LAG)  # the replicas know the session by now, and do not know that it ends
        if self.ask("/leave", "POST") is not None:
            self.record.ended.append(tab)
            self.is_nobody(tab)
        self.cookies.clear()

    def is_nobody(self, tab):
        self.record.violations["logged in again"] += self.ask("/who", cookies=tab) not in ("", None)

    def cached(self):
        """Have the value computed that writers delete from the cache."""
        self.ask(f"/cached/{self.number - 6}")


@pytest.fixture
def together(site, servers, record_property, matrix):
    """Return a function that runs a state under load and records what visitors saw in it and right after it."""

    def run(state, begin, end, fails=False, moves=False):
        record = SimpleNamespace(answers=[], ended=[], stored={}, seen=Counter(), violations=Counter())
        stopped, crashed = threading.Event(), []

        def visit(visitor, act):
            try:
                while not stopped.wait(0.01):
                    act(visitor)
            except Exception as error:
                crashed.append(error)
                raise

        acts = [Visitor.writer] * 2 + [Visitor.reader] * 2 + [Visitor.session] * 2 + [Visitor.cached] * 2
        visitors = [Visitor(site, number, record) for number in range(1, len(acts) + 1)]
        threads = [threading.Thread(target=visit, args=pair) for pair in zip(visitors, acts, strict=True)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        begin()
        time.sleep(SECONDS)
        end()
        time.sleep(2)
        stopped.set()
        for thread in threads:
            thread.join()
        assert crashed == []

        wait_until(lambda: json.loads(site.get("/readyz")[1])["degraded"] == [], 20)
        again = Visitor(site, 0, SimpleNamespace(answers=[], violations=record.violations))
        for tab in record.ended:
            again.is_nobody(tab)
        end = time.monotonic() + KEPT
        for number, stored in record.stored.items():
            while (is_old := int(again.ask(f"/cached/{number}")) < stored) and time.monotonic() < end:
                time.sleep(0.1)
            record.violations["cached for ever"] += is_old
        (asked,) = execute(servers, "SELECT count(*) FROM asked")[0]
        undone = "SELECT count(*) FROM asked WHERE token NOT IN (SELECT token FROM ran)"
        end = time.monotonic() + 30
        while execute(servers, undone) != [(0,)] and time.monotonic() < end:
            time.sleep(0.1)
        # What a broker lost with its connection is sent again after TASK_VISIBILITY, from its row.
        of_token = "sent IS NOT NULL AND error = '' AND strpos(arguments, '\"' || token || '\"') > 0"
        has_row = f"EXISTS (SELECT 1 FROM scaling_tasks_outboxmessage WHERE {of_token})"
        (left,) = execute(servers, f"{undone} AND NOT {has_row}")[0]
        execute(servers, "TRUNCATE asked, ran")

        others = sum(status != 200 for status, _ in record.answers)
        worst = max(seconds for _, seconds in record.answers)
        columns = {"own write lost": 16, "back in time": 14, "logged in again": 17, "cached for ever": 17}
        counts = "".join(f"{record.violations[name]:>{width}}" for name, width in columns.items())
        row = f"{state:<38}{len(record.answers):>9}{others:>9}{worst:>7.2f} s{counts}{asked:>7}{left:>6}"
        record_property(TABLE, row)
        matrix(f"everything on: {state}", Counter(status for status, _ in record.answers), worst)
        if moves:  # who changes from one server to another may see what that one does not know yet
            del record.violations["back in time"]
        assert record.violations.total() == 0, record.violations
        assert left == 0
        assert record.ended
        assert record.stored
        assert fails or others == 0
        return others, worst

    return run


def refuse(relay):
    return relay.refuse, relay.open


def black_hole(relay):
    return relay.flowing.clear, relay.flowing.set


def test_nothing_fails(together):
    together("nothing", lambda: None, lambda: None)


def test_workers_replaced(together, site):
    """A new worker reads from the replicas that the others read from, from its first request on."""
    together("workers: replaced", lambda: site.process.send_signal(signal.SIGHUP), lambda: None)

    # The old ones still end their requests, and would forget with themselves what they miss of the next outage.
    wait_until(lambda: len(psutil.Process(site.process.pid).children()) == 1, 40)


@pytest.mark.parametrize("how", [refuse, black_hole])
@pytest.mark.parametrize("name", ["cache", "broker", "replica"])
def test_one_is_away(together, servers, name, how):
    _, worst = together(f"{name}: {how.__name__}", *how(servers.relays[name]), moves=name == "replica")

    assert worst < 3


def test_cache_restarted(together, servers):
    together("cache: restarted", lambda: servers.cache.stop(signal.SIGKILL), servers.cache.start)


def test_cache_and_broker_away(together, servers):
    relays = [servers.relays[name] for name in ("cache", "broker")]

    together(
        "cache and broker: refuse",
        lambda: [relay.refuse() for relay in relays],
        lambda: [relay.open() for relay in relays],
    )


@pytest.mark.parametrize("how", [refuse, black_hole])
def test_primary_away(together, servers, how):
    """What needs the primary answers 503; what was acknowledged before is all there after it."""
    _, worst = together(f"primary: {how.__name__}", *how(servers.relays["primary"]), fails=True, moves=True)

    assert worst < 10
