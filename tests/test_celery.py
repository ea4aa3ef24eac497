"""With `use_celery`, tasks are done at least once, whatever happens to broker, workers and beat; without, no trace.

Real PostgreSQL, Redis, gunicorn, workers and beat, with the deploy settings and, where waiting would take minutes,
shorter limits. A table of the broker's outages is printed at the end. CELERY_TEST_BROKER=amqp://… runs the tests of
tasks on a RabbitMQ.
"""

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
from conftest import clean_environment
from servers import Load, Postgres, Redis, Relay, Site, wait_until

SETTINGS = """
from outage_settings import *
from my_project.scaling import timeouts

CELERY_TASK_SOFT_TIME_LIMIT = 1
CELERY_TASK_TIME_LIMIT = 2
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 1
CELERY_WORKER_MAX_MEMORY_PER_CHILD = 150_000
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_connect_timeout": timeouts.BROKER, "socket_timeout": timeouts.BROKER, "visibility_timeout": 5,
    "max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0, "unacked_restore_interval": 1, "unacked_restore_throttle": 1,
}
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": {"port": 1}}}
"""

TASKS = """
import os
import time

from celery import shared_task
from django.db import connection


@shared_task(bind=True)
def record(self, token, seconds=0):
    time.sleep(seconds)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO ran (token, id, pid) VALUES (%s, %s, %s)", [token, self.request.id, os.getpid()])


@shared_task
def fail():
    raise ValueError("deliberate")


@shared_task
def run_away():
    while True:
        try:
            time.sleep(60)
        except Exception:
            pass


@shared_task
def hog():
    record("hog")
    bytearray(os.urandom(1)) * 200_000_000


@shared_task
def suicide(token):
    record(token)
    os.kill(os.getpid(), 9)
"""

URLS = """
from django.db import connection, transaction
from django.http import HttpResponse
from django.urls import path

from my_project.accounts.tasks import record
from my_project.scaling.models import OutboxMessage
from my_project.urls import handler500


def write(token):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO asked (token) VALUES (%s)", [token])


def enqueue(request):
    with transaction.atomic():
        write(request.GET.get("token", "load"))
        record.delay_on_commit(request.GET.get("token", "load"))
    return HttpResponse("enqueued")


@transaction.atomic
def roll_back(request):
    record.delay_on_commit("rolled back")
    try:
        with transaction.atomic():
            record.delay_on_commit("rolled back to the savepoint")
            raise ValueError
    except ValueError:
        record.delay_on_commit("committed")
    transaction.set_rollback("all" in request.GET)
    return HttpResponse("rolled back")


def delay(request):
    record.delay("direct")
    return HttpResponse("sent")


urlpatterns = [
    path("enqueue/", enqueue),
    path("roll_back/", roll_back),
    path("delay/", delay),
    path("none/", lambda request: HttpResponse("nothing")),
]
"""


class Stack:
    """A project with all the servers that it needs."""

    def __init__(self, project, folder):
        self.folder = folder
        self.project = project.copy(folder)
        (self.project.package / "accounts" / "tasks.py").write_text(TASKS)
        self.postgres = Postgres(project.python, folder, max_connections=60)
        self.postgres.control("start")
        self.postgres.execute("CREATE DATABASE site")
        self.execute("CREATE TABLE ran (number serial, token text, id text, pid int)")
        self.execute("CREATE TABLE asked (token text)")
        self.redis = Redis(folder, appendonly="yes").start()
        self.relay = Relay(self.redis.port)
        self.broker = os.environ.get("CELERY_TEST_BROKER") or self.redis.url(1, self.relay.port)
        values = {"DATABASE_URL": self.postgres.url("site"), "CELERY_BROKER_URL": self.broker, "WORKERS": 2}
        self.site = Site(self.project, folder, URLS, **values)
        (folder / "celery_settings.py").write_text(SETTINGS)
        self.site.environment["DJANGO_SETTINGS_MODULE"] = "celery_settings"
        self.site.environment["TMPDIR"] = str(folder)
        self.project.manage("migrate", "--verbosity", "0", **self.site.environment)
        self.processes = []

    def execute(self, sql):
        return self.postgres.execute(sql, "site")

    def start(self, *arguments, wait=True, **environment):
        """Start a worker or beat; return its Process."""
        process = Process(self, arguments, environment)
        self.processes.append(process)
        if wait:
            wait_until(lambda: any("ready" in line["message"] for line in process.lines()), 30)
        return process

    def shell(self, code):
        """Run code in a Django shell; return what it printed."""
        code = f"from my_project.accounts.tasks import *\n{code}"
        return self.project.manage("shell", "--no-imports", "-c", code, **self.site.environment).stdout

    def ran(self):
        return Counter(token for (token,) in self.execute("SELECT token FROM ran"))

    def waiting(self):
        return self.execute("SELECT count(*) FROM scaling_outboxmessage")[0][0]

    def clear(self):
        for process in self.processes:
            process.stop()
        self.processes.clear()
        self.execute("TRUNCATE ran, asked, scaling_outboxmessage, scaling_periodicrun")
        self.redis.command_line = None


class Process:
    """A worker or beat, in a session of its own."""

    number = 0

    def __init__(self, stack, arguments, environment):
        Process.number += 1
        self.log = stack.folder / f"celery-{Process.number}.log"
        self.process = subprocess.Popen(
            [stack.project.python.with_name("celery"), "--quiet", "--app", "my_project", *arguments],
            cwd=stack.project.path,
            env=clean_environment(**stack.site.environment | environment),
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def lines(self):
        """Return the lines of JSON in the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def children(self):
        return psutil.Process(self.process.pid).children()

    def signal(self, number):
        """Send a signal to the main process, as an orchestrator does; return the seconds until it ended."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(30)
        return time.monotonic() - started

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def with_celery(set_up):
    return set_up(use_celery=True)


@pytest.fixture(scope="module")
def whole_stack(with_celery, tmp_path_factory):
    folder = tmp_path_factory.mktemp("celery")
    folder.chmod(0o755)
    stack = Stack(with_celery, folder)
    stack.site.start("/none/")
    yield stack
    stack.clear()
    stack.site.stop()
    stack.redis.stop()
    stack.postgres.control("stop", "-m", "immediate")


@pytest.fixture(scope="module", autouse=True)
def table():
    yield
    reporter = sys.stderr if os.environ.get("CI") else sys.__stdout__
    print(file=reporter)
    for what, statuses, worst, median in TABLE:
        print(f"{what:<60} {dict(statuses)!s:<14}   worst {worst:5.2f} s, median {median * 1000:4.0f} ms", file=reporter)


@pytest.fixture
def stack(whole_stack):
    whole_stack.clear()
    yield whole_stack
    whole_stack.clear()


def test_request_id_is_in_the_line_of_the_task(stack):
    worker = stack.start("worker", "--concurrency=2")

    status, _, headers, _ = stack.site.get("/enqueue/?token=a")
    wait_until(lambda: stack.ran() == {"a": 1})
    (line,) = wait_until(lambda: [line for line in worker.lines() if "task" in line])

    assert status == 200
    assert line["request_id"] == headers["X-Request-ID"]
    assert (line["task"], line["queue"], line["outcome"]) == ("my_project.accounts.tasks.record", "default", "success")
    assert line["id"] == stack.execute("SELECT id FROM ran")[0][0]
    assert line["queries"] == 1
    assert 0 < line["wait_ms"] < 2000
    assert line["ms"] >= line["database_ms"] > 0


@contextlib.contextmanager
def refused(stack):
    stack.relay.refuse()
    yield
    stack.relay.open()


@contextlib.contextmanager
def black_holed(stack):
    stack.relay.flowing.clear()
    yield
    stack.relay.flowing.set()


@contextlib.contextmanager
def stopped(stack):
    os.kill(stack.redis.pid, signal.SIGSTOP)
    yield
    os.kill(stack.redis.pid, signal.SIGCONT)


@contextlib.contextmanager
def restarted(stack):
    stack.redis.stop(signal.SIGKILL)
    yield
    stack.redis.start()


OUTAGES = {outage.__name__: outage for outage in (refused, black_holed, stopped, restarted)}
TABLE = []


@pytest.mark.parametrize("state", OUTAGES)
def test_broker_outage_costs_requests_nothing(stack, state):
    """Requests go on as before, and what they asked for is done within seconds of the broker's return."""
    worker = stack.start("worker", "--concurrency=2")
    phases = []
    for during in (contextlib.nullcontext(), OUTAGES[state](stack)):
        with during:
            time.sleep(0.5)
            with Load(stack.site, "/enqueue/", "/none/") as load:
                time.sleep(2)
        phases.append(load)
    back = time.monotonic()
    (asked,) = stack.execute("SELECT count(*) FROM asked")[0]
    wait_until(lambda: stack.ran()["load"] >= asked, 30)
    recovery = time.monotonic() - back

    for phase, load in zip(("up", state), phases, strict=True):
        seconds = [answer[-1] for answer in load.answers if answer[0] == "/enqueue/"]
        TABLE.append((phase, load.statuses("/enqueue/"), max(seconds), statistics.median(seconds)))
    TABLE.append((f"{state}: all {asked} tasks done, of them {stack.ran()['load'] - asked} twice", {}, recovery, 0))
    for load in phases:
        assert set(load.statuses("/enqueue/", "/none/")) == {200}
        assert load.worst("/enqueue/") < 1
    assert len([line for line in worker.lines() if "outbox cannot" in line["message"]]) <= 1
    assert stack.waiting() == 0


def test_delay_to_a_broker_that_is_away_fails_in_time(stack):
    took = {}
    for state, outage in OUTAGES.items():
        with outage(stack):
            status, *_, took[state] = stack.site.get("/delay/")
        assert status == 500
    wait_until(lambda: stack.site.get("/delay/")[0] == 200)

    TABLE.extend((f"delay(), {state}", {500: 1}, seconds, seconds) for state, seconds in took.items())
    assert max(took.values()) < 2.5


def test_no_task_is_lost(stack):
    """1,000 tasks across an outage, with a worker that is killed and one that is told to stop: all are done."""
    tokens = [f"t{number}" for number in range(1000)]
    enqueue = "from django.db import transaction\nfor t in {}:\n    with transaction.atomic():\n        record.delay_on_commit(t, 0.01)"
    workers = [stack.start("worker", "--concurrency=2", f"--hostname=w{n}", wait=False) for n in range(3)]
    stack.shell(enqueue.format(tokens[:500]))
    wait_until(lambda: len(stack.ran()) > 50, 30)
    with refused(stack):
        stack.shell(enqueue.format(tokens[500:]))
        waited = stack.waiting()
    wait_until(lambda: len(stack.ran()) > 300, 30)
    workers[0].stop()
    wait_until(lambda: len(stack.ran()) > 600, 30)
    workers[1].signal(signal.SIGTERM)
    wait_until(lambda: stack.ran().keys() >= {*tokens}, 40)
    ran = stack.ran()

    again = sum(ran.values()) - len(tokens)
    TABLE.append((f"1,000 tasks, {waited} of them in the outbox: {len(ran)} done, {again} twice", {}, 0, 0))
    assert ran.keys() == {*tokens}
    assert waited > 0
    assert again < 120
