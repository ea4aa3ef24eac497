"""The site under load while PostgreSQL is refused, hangs, restarts, loses its connections or has none left.

Real PostgreSQL, gunicorn and PgBouncer, the deploy settings and the timeouts as shipped. A TCP relay between the site
and PostgreSQL can refuse connections or keep them open in silence. A table of all states is printed at the end.
"""

import contextlib
import http.client
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest
import servers
from conftest import free_port, needs
from servers import Load, Postgres, Relay, Site, listens, wait_until

WORKERS, THREADS = 2, 4
REQUEST, MARGIN = 10, 2.5  # seconds: the deadline of a request, and what a busy machine may add
HUNG = 0.5 + 2  # until the server is suspected, and until connecting to it has failed
REFUSED = 1
RECOVERY = 5
MAX_CONNECTIONS = 20

TABLE = (
    f"{'state of the database':<22}{'pages with queries':<26}{'worst':>7}"
    f"{'without':>14}{'worst':>7}{'back after':>12}{'failed then':>13}"
)

VISITORS = ("/rows/", "/rows/", "/rows/", "/write/", "/none/")

TIMEOUTS = {"statement_timeout": "5s", "lock_timeout": "3s", "idle_in_transaction_session_timeout": "15s"}
SLEEPING = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"

URLS = """
import time

from django.contrib.auth import get_user_model
from django.db import connection, connections, transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from my_project.urls import handler500


def execute(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


def rows(request):
    return HttpResponse(get_user_model().objects.count())


@transaction.atomic
def write(request):
    execute("INSERT INTO written DEFAULT VALUES")
    return HttpResponse("written")


def show(request):
    return HttpResponse(execute("SHOW " + request.GET["name"]))


def leak(request):
    execute("SET statement_timeout = '77s'")
    return HttpResponse("set")


@transaction.atomic
def abandoned(request):
    execute("SET LOCAL idle_in_transaction_session_timeout = '100ms'")
    time.sleep(0.5)
    return HttpResponse(execute("SELECT 1"))


@transaction.atomic
def locked(request):
    execute("LOCK TABLE written")
    return HttpResponse("locked")


def anew(request):
    connection = connections.create_connection("default")  # as the first page of a thread does
    try:
        connection.ensure_connection()
    finally:
        connection.close()
    return HttpResponse("connected")


def stream(request):
    return StreamingHttpResponse(f"{execute('SELECT pg_sleep(0.1)')}." for _ in range(int(request.GET["pieces"])))


def busy(request):
    time.sleep(11.5)
    return HttpResponse("busy")


urlpatterns = [
    path("none/", lambda request: HttpResponse("no database")),
    path("rows/", rows),
    path("write/", write),
    path("show/", show),
    path("leak/", leak),
    path("sleep/", lambda request: HttpResponse(execute("SELECT pg_sleep(30)"))),
    path("nap/", lambda request: HttpResponse(execute("SELECT pg_sleep(0.1)"))),
    path("four/", lambda request: HttpResponse(execute("SELECT pg_sleep(4)"))),
    path("anew/", anew),
    path("stream/", stream),
    path("wrong/", lambda request: HttpResponse(execute("SELECT * FROM no_such_table"))),
    path("abandoned/", abandoned),
    path("locked/", locked),
    path("busy/", busy),
]
"""


@pytest.fixture(scope="module")
def postgres(default_project, folder):
    server = Postgres(default_project.python, folder, max_connections=MAX_CONNECTIONS)
    server.control("start")
    try:
        server.execute("CREATE DATABASE site")
        server.execute("CREATE TABLE written (id bigserial PRIMARY KEY)", "site")
        yield server
    finally:
        server.control("stop", "-m", "immediate")


@pytest.fixture(scope="module")
def relay(postgres):
    return Relay(postgres.port)


@pytest.fixture(scope="module")
def site(default_project, folder, postgres, relay):
    url = postgres.url("site", relay.port)
    site = Site(default_project, folder, URLS, DATABASE_URL=url, WORKERS=WORKERS, THREADS=THREADS)
    default_project.manage("migrate", **site.environment)
    try:
        site.start("/rows/")
        yield site
    finally:
        site.stop()


@pytest.fixture
def outage(site, record_property, matrix):
    """Return a function that runs a state under load, sees the site return, and returns the load."""

    def run(state, begin, end, seconds, *more):
        with Load(site, *["/nap/"] * 2 * WORKERS * THREADS, "/none/") as before:  # every thread connects
            time.sleep(0.5)
        assert set(before.statuses("/nap/", "/none/")) == {200}

        with Load(site, *VISITORS, *more) as load:
            time.sleep(0.2)
            load.answers.clear()
            begin()
            time.sleep(seconds)
            end()
            over = time.monotonic()
            # Every thread of every worker answers a few times in this while; leaving waits for what hangs longer.
            time.sleep(2)
        failures = [start + took - over for _, status, _, start, took in load.answers if status != 200]
        with Load(site, *VISITORS) as after:
            time.sleep(1)
        failed_after = sum(status != 200 for _, status, *_ in after.answers)
        queries, plain = ("/rows/", "/write/", "/four/"), ("/none/",)

        def counts(paths):
            return " ".join(f"{n}×{status}" for status, n in sorted(load.statuses(*paths).items(), key=str))

        record_property(
            TABLE,
            f"{state:<22}{counts(queries):<26}{load.worst(*queries):>5.2f} s{counts(plain):>14}"
            f"{load.worst(*plain):>5.2f} s{max([0, *failures]):>10.2f} s{failed_after:>13}",
        )
        matrix(f"PostgreSQL: {state}", load.statuses(*queries), load.worst(*queries), max([0, *failures]))
        assert set(load.statuses(*queries)) <= {200, 503}
        assert {after for _, status, after, *_ in load.answers if status == 503} <= {"5"}
        assert set(load.statuses(*plain)) == {200}
        assert max([0, *failures]) < RECOVERY
        assert failed_after == 0
        return load

    return run


def test_refused(outage, relay):
    load = outage("refused", relay.refuse, relay.open, 2)
    assert load.statuses("/rows/")[503]
    assert load.worst("/rows/", "/write/", "/none/") < REFUSED


def test_black_holed(outage, relay):
    load = outage("black-holed", relay.flowing.clear, relay.flowing.set, 6)
    assert load.statuses("/rows/")[503]
    assert load.worst("/rows/", "/write/", "/none/") < HUNG + MARGIN


def test_stopped(outage, postgres):
    load = outage("stopped (SIGSTOP)", postgres.stop, postgres.resume, 6)
    assert load.statuses("/rows/")[503]
    assert load.worst("/rows/", "/write/", "/none/") < HUNG + MARGIN


def test_slow_connects(outage, relay):
    """What has a connection goes on with it; what needs a new one fails, at once after the first."""
    load = outage(
        "slow to connect to",
        lambda: setattr(relay, "connect_delay", 3),
        lambda: setattr(relay, "connect_delay", 0),
        10,
        "/four/",
        "/anew/",
    )
    assert set(load.statuses("/rows/", "/write/", "/four/")) == {200}
    assert set(load.statuses("/anew/")) >= {503}


def test_slow_server(outage, relay):
    """Connecting takes longer than it may; open connections are slow and work."""
    load = outage(
        "slow (0.6 s a packet)", lambda: setattr(relay, "delay", 0.6), lambda: setattr(relay, "delay", 0), 8, "/anew/"
    )
    assert set(load.statuses("/rows/", "/write/", "/none/")) == {200}


def test_return_is_noticed_without_visitors(site, relay):
    """The first visitors after an outage, all at once, find the site as it was."""
    relay.flowing.clear()
    assert site.get("/rows/")[0] == 503
    relay.flowing.set()
    time.sleep(RECOVERY)
    answers = []
    visitors = [threading.Thread(target=lambda: answers.append(site.get("/rows/")[0])) for _ in range(8)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert answers == [200] * 8


def test_one_backend_stopped(site, postgres):
    """The server lives and its process for one connection does not: the deadline ends the request, not before."""
    answer = []
    client = threading.Thread(target=lambda: answer.append(site.get("/sleep/")))
    client.start()
    wait_until(lambda: postgres.execute(SLEEPING))
    ((pid,),) = postgres.execute(SLEEPING)
    os.kill(pid, signal.SIGSTOP)
    try:
        client.join()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert answer[0][0] == 503
    assert REQUEST - 1 < answer[0][3] < REQUEST + MARGIN
    (line,) = [line for line in site.log.read_text().splitlines() if "ended its wait" in line and '"/sleep/ ' in line]
    assert json.loads(line)["request_id"] == answer[0][2]["X-Request-ID"]


def test_restarted(outage, postgres):
    outage("restarted", lambda: postgres.control("restart", "-m", "fast"), lambda: None, 0)


def test_backends_killed(outage, postgres):
    outage("all backends killed", postgres.kill_backends, lambda: None, 0)


def test_idle_connections_killed(site, postgres):
    """Connections that died between two requests cost none of them."""
    for kill in (postgres.kill_backends, lambda: postgres.control("restart", "-m", "fast")):
        with Load(site, *VISITORS):
            time.sleep(0.3)
        kill()
        with Load(site, *VISITORS) as load:
            time.sleep(1)
        assert set(load.statuses("/rows/", "/write/")) == {200}


def test_out_of_connections(outage, postgres):
    held = []

    def take():
        postgres.kill_backends()
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                held.append(psycopg.connect(postgres.url("site")))
                if len(held) == MAX_CONNECTIONS - 3:
                    postgres.kill_backends()

    def give_back():
        while held:
            held.pop().close()

    load = outage("out of connections", take, give_back, 2)
    assert load.worst("/rows/", "/write/", "/none/") < REFUSED


def test_server_that_takes_no_writes(site, postgres):
    """Its disk is full, or it was the primary: what only reads is served."""
    try:
        postgres.execute("ALTER DATABASE site SET default_transaction_read_only = on")
        postgres.kill_backends()
        wait_until(lambda: site.get("/write/")[0] == 503)
        assert {site.get("/write/")[0] for _ in range(8)} == {503}
        assert {site.get("/rows/")[0] for _ in range(8)} == {200}
    finally:
        postgres.execute("ALTER DATABASE site RESET default_transaction_read_only")
        postgres.kill_backends()
    wait_until(lambda: site.get("/write/")[0] == 200)


def test_acknowledged_rows_are_there(site, postgres):
    with Load(site, *VISITORS) as load:
        time.sleep(0.2)
    before = postgres.execute("SELECT count(*) FROM written", "site")[0][0]
    with Load(site, *VISITORS) as load:
        time.sleep(0.2)
        postgres.control("restart", "-m", "immediate")
        time.sleep(1)
    after = postgres.execute("SELECT count(*) FROM written", "site")[0][0]
    assert after - before >= load.statuses("/write/")[200] > 0


def test_slow_statement(site):
    status, _, headers, seconds = site.get("/sleep/")
    assert (status, headers["Retry-After"]) == (503, "5")
    assert 4.5 < seconds < 7


def test_lock_timeout(site, postgres):
    with psycopg.connect(postgres.url("site")) as connection:
        connection.execute("LOCK TABLE written")
        status, _, _, seconds = site.get("/locked/")
    assert status == 503
    assert 2.5 < seconds < 5


def test_transaction_killed_while_idle(site):
    assert site.get("/abandoned/")[0] == 503


def test_wrong_query_is_an_error_of_the_program(site):
    assert site.get("/wrong/")[0] == 500


def test_outage_is_logged_once_with_its_traceback(site):
    site.log.write_text("")
    site.get("/abandoned/")
    log = site.log.read_text()
    assert log.count("Service Unavailable: /abandoned/") == 1
    assert log.count("IdleInTransactionSessionTimeout") <= 2  # psycopg's, and Django's words on it
    assert "in abandoned" in log


def test_requests_longer_than_the_deadline(site):
    """A request that is late outside the database is reported with its stack; a stream may take its time."""
    with ThreadPoolExecutor() as clients:
        busy, stream = clients.submit(site.get, "/busy/"), clients.submit(site.get, "/stream/?pieces=110")
    assert busy.result()[0] == 200
    assert stream.result()[1].count(".") == 110
    assert stream.result()[3] > REQUEST
    log = site.log.read_text()
    assert "/stream/ after" not in log
    assert log.count("/busy/ after 10 s: cannot end it outside the database") == 1
    assert "in busy" in log


@pytest.fixture(scope="module")
def small_site(default_project, folder, postgres, relay, site):
    """One worker of four threads."""
    url = postgres.url("site", relay.port)
    small = Site(default_project, folder, URLS, DATABASE_URL=url, WORKERS=1, THREADS=THREADS)
    try:
        small.start("/rows/")
        yield small
    finally:
        small.stop()


def read_stream(site, begun):
    """Read a stream that breaks off; return how it ended."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=40)
    connection.request("GET", "/stream/?pieces=300")
    response = connection.getresponse()
    begun.append(response.read(1))
    try:
        return response.read()
    except http.client.HTTPException as error:
        return error
    finally:
        connection.close()


def test_streams_do_not_wait_for_a_hung_server(small_site, relay, record_property, matrix):
    """A stream in each thread: what has no database to wait for is served again as soon as these have ended."""
    begun = []
    with ThreadPoolExecutor() as clients:
        streams = [clients.submit(read_stream, small_site, begun) for _ in range(THREADS)]
        wait_until(lambda: len(begun) == THREADS)
        relay.flowing.clear()
        try:
            status, _, _, seconds = small_site.get("/livez")
            ends = [stream.result() for stream in streams]
        finally:
            relay.flowing.set()
    record_property(TABLE, f"{'hung, streams':<22}{'4×broken off':<26}{'':>9}{f'1×{status}':>14}{seconds:>5.2f} s")
    matrix("PostgreSQL: hung, a stream in each thread", Counter({"broken off": len(ends)}), seconds)
    assert status == 200
    assert seconds < HUNG + MARGIN
    assert {type(end) for end in ends} == {http.client.IncompleteRead}
    wait_until(lambda: small_site.get("/rows/")[0] == 200, RECOVERY)


def descriptors(process):
    time.sleep(0.01)
    return {int(file.name) for file in Path(f"/proc/{process.pid}/fd").iterdir()}


def test_deadline_survives_a_worker_without_descriptors(small_site, postgres, relay):
    """A connection needs two, of which one is left: psycopg raises an OSError then."""
    (worker,) = servers.workers(small_site)
    with ThreadPoolExecutor() as clients:
        page = clients.submit(small_site.get, "/sleep/")
        wait_until(lambda: postgres.execute(SLEEPING))
        limits = worker.rlimit(psutil.RLIMIT_NOFILE)
        used = set.intersection(*(descriptors(worker) for _ in range(50)))  # for longer than a moment
        _, limit = itertools.islice((number for number in itertools.count() if number not in used), 2)
        worker.rlimit(psutil.RLIMIT_NOFILE, (limit, limits[1]))
        try:
            postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'my_project' AND state = 'idle'"
            )
            wait_until(lambda: "Too many open files" in small_site.log.read_text())
        finally:
            worker.rlimit(psutil.RLIMIT_NOFILE, limits)
        assert page.result()[0] == 503
        page = clients.submit(small_site.get, "/sleep/")
        wait_until(lambda: postgres.execute(SLEEPING))
        relay.flowing.clear()
        try:
            assert page.result()[0] == 503
        finally:
            relay.flowing.set()
        assert page.result()[3] < HUNG + MARGIN


@pytest.mark.parametrize("command", [["python", "manage.py"], ["django-admin"], ["python", "-m", "django"]])
def test_commands_have_timeouts_of_their_own(site, command):
    code = (
        "from django.db import connection as c; k = c.cursor();"
        "print([k.execute('SHOW ' + n).fetchone()[0] for n in ('statement_timeout', 'lock_timeout')])"
    )
    assert site.command(*command, "shell", "--no-imports", "-c", code).stdout.strip() == "['1h', '2s']"


def test_requests_have_the_timeouts_of_the_table(site):
    assert {name: site.get(f"/show/?name={name}")[1] for name in TIMEOUTS} == TIMEOUTS


POOLER = """
[databases]
site = host=127.0.0.1 port={postgres} dbname=site pool_size=1
* = host=127.0.0.1 port={postgres}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 14
"""


@pytest.fixture(scope="module")
def pooled_site(default_project, folder, postgres, site):
    """A site like the other, behind PgBouncer in transaction mode with one server connection for all its clients."""
    port = free_port()
    ini, users = folder / "pgbouncer.ini", folder / "users.txt"
    users.write_text('"limited" "secret"\n')
    ini.write_text(POOLER.format(postgres=postgres.port, port=port, users=users))
    postgres.execute("CREATE ROLE limited LOGIN SUPERUSER")
    for name, value in TIMEOUTS.items():
        postgres.execute(f"ALTER ROLE limited SET {name} = '{value}'")
    pooler = subprocess.Popen(
        [needs("pgbouncer", "pgbouncer"), "-q", ini], user=postgres.user, stderr=subprocess.DEVNULL
    )
    url = f"postgresql://limited:secret@127.0.0.1:{port}/site"
    values = {"DATABASE_URL": url, "DATABASE_POOLER": "pgbouncer", "WORKERS": WORKERS, "THREADS": THREADS}
    pooled = Site(default_project, folder, URLS, **values)
    try:
        wait_until(lambda: listens(port))
        pooled.start("/rows/")
        yield pooled
    finally:
        pooled.stop()
        pooler.terminate()
        pooler.wait(10)


class TestPgBouncer:
    def test_pages(self, pooled_site):
        with Load(pooled_site, *VISITORS) as load:
            time.sleep(1)
        assert set(load.statuses("/rows/", "/write/", "/none/")) == {200}

    def test_statement_that_fills_the_pool(self, pooled_site):
        """The others wait in PgBouncer's queue, and so do the probes: that is no server that hangs."""
        with Load(pooled_site, *VISITORS, "/four/") as load:
            time.sleep(5)
        assert set(load.statuses("/rows/", "/write/", "/four/")) == {200}

    def test_stopped(self, pooled_site, postgres):
        """PgBouncer still takes connections: the deadline ends the request."""
        postgres.stop()
        try:
            status, _, _, seconds = pooled_site.get("/rows/")
        finally:
            postgres.resume()
        assert status == 503
        assert seconds < REQUEST + MARGIN

    def test_timeouts_are_those_of_the_role(self, pooled_site):
        assert {name: pooled_site.get(f"/show/?name={name}")[1] for name in TIMEOUTS} == TIMEOUTS

    def test_site_leaves_nothing_to_the_next_client(self, pooled_site):
        with Load(pooled_site, *VISITORS):
            time.sleep(0.3)
        # PgBouncer itself hands these from client to client.
        changed = "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name <> ALL(%s)"
        tracked = ["application_name", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings"]
        with psycopg.connect(pooled_site.values["DATABASE_URL"], autocommit=True, prepare_threshold=None) as other:
            assert other.execute(changed, [tracked]).fetchall() == []
            assert other.execute("SELECT name FROM pg_prepared_statements").fetchall() == []

    def test_tests_of_the_project_pass(self, project, pooled_site):
        """All but those that are about the settings of a session, or change one."""
        left_out = ("tests/scaling/db/test_timeouts.py", "tests/scaling/cache/test_cache.py::test_cache_read_only")
        file = project.path / "tests" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"DATABASE_POOLER": "pgbouncer"}))
        deselected = [f"--deselect={test}" for test in left_out]
        project.run(
            project.python,
            "-m",
            "pytest",
            "-q",
            "--reuse-db",
            *deselected,
            DATABASE_URL=pooled_site.values["DATABASE_URL"],
        )

    def test_session_setting_would_leak(self, pooled_site):
        """What the project must not do, so that the test before can fail."""
        pooled_site.get("/leak/")
        assert pooled_site.get("/show/?name=statement_timeout")[1] == "77s"
