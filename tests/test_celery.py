"""With `use_celery`, tasks are done at least once, whatever happens to broker, workers and beat; without, no trace.

Real PostgreSQL, Redis, gunicorn, workers and beat, with the deploy settings and, where waiting would take minutes,
shorter limits. A table of the broker's outages is printed at the end. CELERY_TEST_BROKER=amqp://… with a port runs
all but those of a stopped and of a restarted Redis on a RabbitMQ.
"""

import contextlib
import json
import os
import signal
import socket
import ssl
import statistics
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import psutil
import pytest
from conftest import Server, clean_environment, free_port, processes_in, wait_until_gone
from servers import Load, Postgres, Redis, Relay, Site, wait_until

RABBITMQ = os.environ.get("CELERY_TEST_BROKER")

SETTINGS = """
from outage_settings import *

DATABASES |= {"legacy": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 1
CELERY_WORKER_MAX_MEMORY_PER_CHILD = 150_000
if CELERY_BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS |= {
        "visibility_timeout": 5, "unacked_restore_interval": 1, "unacked_restore_throttle": 1
    }
CELERY_BEAT_SCHEDULE = {
    "tick": {"task": "my_project.accounts.tasks.record", "schedule": 2, "args": ["beat"], "options": {"queue": "low"}}
}
"""

TASKS = """
import os
import time

from celery import shared_task
from django.db import connection, connections


@shared_task(bind=True)
def record(self, token, seconds=0):
    time.sleep(seconds)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO ran (token, id, pid) VALUES (%s, %s, %s)", [token, self.request.id, os.getpid()])


@shared_task
def show_statement_timeout():
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        record(*cursor.fetchone())


@shared_task
def ask_legacy():
    with connections["legacy"].cursor() as cursor:
        record(*map(str, cursor.execute("SELECT 'legacy'").fetchone()))


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
    bytearray(b"x") * 200_000_000


@shared_task(bind=True)
def lose_first_process(self):
    record("lost")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM ran")
        if cursor.fetchone()[0] == 1:
            os.kill(os.getpid(), 9)
"""

URLS = """
import uuid

from django.db import connection, transaction
from django.http import HttpResponse
from django.urls import path

from my_project.accounts import tasks
from my_project.accounts.tasks import record
from my_project.urls import handler500


def write(token):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO asked (token) VALUES (%s)", [token])


def enqueue(request):
    token = request.GET.get("token") or str(uuid.uuid4())
    with transaction.atomic():
        write(token)
        record.delay_on_commit(token)
    return HttpResponse("enqueued")


@transaction.atomic
def roll_back(request):
    record.delay_on_commit("outside")
    try:
        with transaction.atomic():
            record.delay_on_commit("rolled back to the savepoint")
            raise ValueError
    except ValueError:
        record.delay_on_commit("after the savepoint")
    transaction.set_rollback("all" in request.GET)
    return HttpResponse("rolled back")


def delay(request):
    record.delay("direct")
    return HttpResponse("sent")


def do(request):
    exec(request.GET["code"], vars(tasks))
    return HttpResponse("done")


urlpatterns = [
    path("enqueue/", enqueue),
    path("roll_back/", roll_back),
    path("delay/", delay),
    path("do/", do),
    path("none/", lambda request: HttpResponse("nothing")),
]
"""


class Stack:
    """A project with all the servers that it needs."""

    def __init__(self, project, folder):
        self.folder = folder
        self.project = project.copy(folder)
        with (self.project.package / "accounts" / "tasks.py").open("a") as tasks:
            tasks.write(TASKS)
        for file, figure, shorter in (
            ("alive.py", "MAX_AGE = 60", "MAX_AGE = 5"),
            ("main_process.py", "ALIVE_INTERVAL = 5", "ALIVE_INTERVAL = 1"),
            ("publisher.py", "RECOVER = 10", "RECOVER = 1"),
            ("upkeep.py", "seconds=timeouts.TASK_VISIBILITY", "seconds=5"),
        ):
            module = self.project.package / "scaling" / "tasks" / file
            assert figure in module.read_text()
            module.write_text(module.read_text().replace(figure, shorter))
        self.postgres = Postgres(project.python, folder, max_connections=60)
        self.postgres.control("start")
        self.postgres.execute("CREATE DATABASE site")
        self.execute("CREATE TABLE ran (number serial, token text, id text, pid int)")
        self.execute("CREATE TABLE asked (token text)")
        self.redis = Redis(folder, appendonly="yes").start()
        self.relay = Relay(urlsplit(RABBITMQ).port if RABBITMQ else self.redis.port)
        self.broker = self.redis.url(1, self.relay.port)
        if RABBITMQ:
            self.broker = RABBITMQ.replace(str(self.relay.target[1]), str(self.relay.port))
        values = {"DATABASE_URL": self.postgres.url("site"), "CELERY_BROKER_URL": self.broker, "WORKERS": 2}
        values["EMAIL_URL"] = "smtp://127.0.0.1:1"
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
        if arguments[0] == "worker" and "--hostname" not in str(arguments):
            arguments = (*arguments, f"--hostname=worker{Process.number}@%h")
        process = Process(self, arguments, environment)
        self.processes.append(process)
        if wait:
            wait_until(lambda: any("ready" in line["message"] for line in process.lines()), 30)
        return process

    def do(self, code):
        """Run code in a web process."""
        status, text, *_ = self.site.get(f"/do/?{urlencode({'code': code})}")
        assert status == 200, text

    def ran(self):
        return Counter(token for (token,) in self.execute("SELECT token FROM ran"))

    def waiting(self):
        return self.execute("SELECT count(*) FROM scaling_tasks_outboxmessage WHERE sent IS NULL")[0][0]

    def clear(self):
        for process in self.processes:
            process.stop()
        self.processes.clear()
        self.truncate()
        self.flush()

    def close(self):
        """Stop everything."""
        self.clear()
        self.site.stop()
        self.redis.stop()
        self.postgres.control("stop", "-m", "immediate")

    def flush(self):
        """Empty the broker."""
        if RABBITMQ:
            celery = self.project.python.with_name("celery")
            self.project.run(celery, "--app", "my_project", "purge", "-f", **self.site.environment)
        self.redis.ask("FLUSHALL")

    def truncate(self):
        self.execute("TRUNCATE ran, asked, scaling_tasks_outboxmessage, scaling_tasks_periodicrun")


class Process:
    """A worker or beat, in a session of its own."""

    number = seen = 0

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

    def lines(self, level=None):
        """Return the lines of JSON in the log since the test began, of one level or of all."""
        lines = [json.loads(line) for line in self.log.read_text()[self.seen :].splitlines() if line.startswith("{")]
        return [line for line in lines if level in (None, line["level"])]

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
    stack.close()


@pytest.fixture
def note(record_property):
    """Return a function that adds a row to the table of the broker's outages."""

    def note(what, statuses, worst, median):
        row = f"{what:<60} {dict(statuses)!s:<14}   worst {worst:5.2f} s, median {median * 1000:4.0f} ms"
        record_property("Outages of the broker", row)

    return note


@pytest.fixture(scope="module")
def shared_worker(whole_stack):
    whole_stack.clear()
    return whole_stack.start("worker", "--concurrency=1")


@pytest.fixture
def worker(whole_stack, shared_worker):
    """A worker of all queues, which has no task."""
    whole_stack.truncate()
    shared_worker.seen = shared_worker.log.stat().st_size
    return shared_worker


@pytest.fixture
def stack(whole_stack):
    """The servers, without a worker."""
    whole_stack.clear()
    yield whole_stack
    whole_stack.clear()


# With one worker for all


def test_request_id_is_in_the_line_of_the_task(whole_stack, worker):
    status, _, headers, _ = whole_stack.site.get("/enqueue/?token=a")
    (line,) = wait_until(lambda: [line for line in worker.lines() if "task" in line])

    assert status == 200
    assert line["request_id"] == headers["X-Request-ID"]
    assert (line["task"], line["queue"], line["outcome"]) == ("my_project.accounts.tasks.record", "default", "success")
    assert line["id"] == whole_stack.execute("SELECT id FROM ran")[0][0]
    assert line["queries"] == 1
    assert 0 < line["wait_ms"] < 2000
    assert line["ms"] >= line["database_ms"] > 0


def test_rolled_back_transaction_sends_nothing(whole_stack, worker):
    whole_stack.site.get("/roll_back/?all")
    whole_stack.site.get("/roll_back/")
    wait_until(lambda: len(whole_stack.ran()) == 2)
    time.sleep(0.5)

    assert whole_stack.ran() == {"outside": 1, "after the savepoint": 1}


def test_failure_is_logged_once(whole_stack, worker):
    whole_stack.do("fail.delay()")
    wait_until(lambda: worker.lines("error"))
    time.sleep(0.3)
    (line,) = [line for line in worker.lines() if "deliberate" in str(line)]

    assert (line["task"], line["outcome"]) == ("my_project.accounts.tasks.fail", "failure")
    assert line["exception"].endswith("ValueError: deliberate")


def test_mail_is_tried_again_when_the_server_refuses(whole_stack, worker):
    whole_stack.do(
        "from my_project.scaling.tasks import send_mail\nsend_mail.delay('Hello', 'Text', ['ada@example.com'])"
    )
    line, *_ = wait_until(lambda: [line for line in worker.lines() if "send_mail" in str(line.get("task"))])

    assert (line["outcome"], line["level"], line["queue"]) == ("retry", "warning", "high")


def test_runaway_task_is_stopped(whole_stack, worker):
    whole_stack.do("run_away.apply_async(soft_time_limit=1, time_limit=2)\nrecord.delay('next')")
    wait_until(lambda: whole_stack.ran() == {"next": 1})
    (error,) = [line for line in worker.lines("error") if "run_away" in str(line)]

    assert "Hard time limit (2s) exceeded" in error["message"]


def test_statements_end_with_their_task(whole_stack, worker):
    """The server ends them when the task's time is over, not after the hour that other commands have."""
    whole_stack.do("show_statement_timeout.delay()")
    wait_until(whole_stack.ran)

    assert whole_stack.ran() == {"5min": 1}


def test_process_that_leaks_is_replaced(whole_stack, worker):
    whole_stack.do("hog.delay()\nrecord.delay('next')")
    wait_until(lambda: len(whole_stack.ran()) == 2)

    assert len({pid for (pid,) in whole_stack.execute("SELECT pid FROM ran")}) == 2


# With workers of their own


@contextlib.contextmanager
def refused(stack):
    stack.relay.refuse()
    try:
        yield
    finally:
        stack.relay.open()


@contextlib.contextmanager
def black_holed(stack):
    stack.relay.flowing.clear()
    try:
        yield
    finally:
        stack.relay.flowing.set()


@contextlib.contextmanager
def stopped(stack):
    os.kill(stack.redis.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stack.redis.pid, signal.SIGCONT)


@contextlib.contextmanager
def restarted(stack):
    stack.redis.stop(signal.SIGKILL)
    try:
        yield
    finally:
        stack.redis.start()


OUTAGES = {outage.__name__: outage for outage in (refused, black_holed, *([] if RABBITMQ else [stopped, restarted]))}


@pytest.mark.parametrize("state", OUTAGES)
def test_broker_outage_costs_requests_nothing(stack, state, note, matrix):
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
    asked = {token for (token,) in stack.execute("SELECT token FROM asked")}
    wait_until(lambda: stack.ran().keys() >= asked, 30)
    recovery = time.monotonic() - back
    again = stack.ran().total() - len(asked)

    for phase, load in zip(("up", state), phases, strict=True):
        seconds = [answer[-1] for answer in load.answers if answer[0] == "/enqueue/"]
        note(phase, load.statuses("/enqueue/"), max(seconds), statistics.median(seconds))
    matrix(f"broker: {state}", load.statuses("/enqueue/"), max(seconds), recovery)
    note(f"{state}: all {len(asked)} tasks done, of them {again} twice", {}, recovery, 0)
    for load in phases:
        assert set(load.statuses("/enqueue/", "/none/")) == {200}
        assert load.worst("/enqueue/") < 1
    assert len([line for line in worker.lines() if "outbox cannot" in line["message"]]) <= 1
    assert stack.waiting() == 0


def test_delay_to_a_broker_that_is_away_fails_in_time(stack, note):
    took = {}
    for state, outage in OUTAGES.items():
        with outage(stack):
            status, *_, took[state] = stack.site.get("/delay/")
        assert status == 500
    wait_until(lambda: stack.site.get("/delay/")[0] == 200)

    for state, seconds in took.items():
        note(f"delay(), {state}", {500: 1}, seconds, seconds)
    assert max(took.values()) < 2.5


def test_no_task_is_lost(stack, note):
    """1,000 tasks across an outage, with a worker that is killed and one that is told to stop: all are done."""
    enqueue = (
        "from django.db import transaction\nfor number in range({}, {}):\n"
        "    with transaction.atomic(): record.delay_on_commit(number, 0.01)"
    )
    tokens = {str(number) for number in range(1000)}
    workers = [stack.start("worker", "--concurrency=2", f"--hostname=w{n}", wait=False) for n in range(3)]
    stack.do(enqueue.format(0, 500))
    wait_until(lambda: len(stack.ran()) > 50, 30)
    with refused(stack):
        stack.do(enqueue.format(500, 1000))
        waited = stack.waiting()
    wait_until(lambda: len(stack.ran()) > 600, 30)
    workers[0].stop()
    wait_until(lambda: len(stack.ran()) > 800, 30)
    workers[1].signal(signal.SIGTERM)
    wait_until(lambda: stack.ran().keys() >= tokens, 40)
    ran = stack.ran()

    again = sum(ran.values()) - len(tokens)
    note(f"1,000 tasks, {waited} of them in the outbox: {len(ran)} done, {again} twice", {}, 0, 0)
    assert waited > 0
    assert again < 120


@pytest.mark.skipif(bool(RABBITMQ), reason="is about a Redis")
def test_broker_loses_everything(stack):
    """Tasks that were sent and have not begun are sent again."""
    worker = stack.start("worker", "--concurrency=1")
    stack.do("for number in range(40): record.delay_on_commit(number, 0.1)")
    wait_until(lambda: stack.waiting() == 0 and len(stack.ran()) > 5)
    stack.flush()
    wait_until(lambda: len(stack.ran()) == 40, 40)

    assert any("lost" in line["message"] for line in worker.lines("warning"))
    wait_until(lambda: stack.execute("SELECT count(*) FROM scaling_tasks_outboxmessage") == [(0,)])


def with_a_task(project, folder):
    """Return a copy of a project in which /task asks for a task."""
    project = project.copy(folder)
    with (project.package / "urls.py").open("a") as urls:
        urls.write(
            "\nfrom django.http import HttpResponse\nfrom .scaling.tasks import clear_sessions\n"
            'urlpatterns.append(path("task", lambda request: HttpResponse(clear_sessions.delay_on_commit())))\n'
        )
    return project


@pytest.mark.parametrize("broker", ["own", "address", "none"])
def test_make_dev(with_celery, whole_stack, tmp_path, broker):
    """A worker and beat run on whichever broker there is, and Ctrl-C ends all; without one, tasks run at once."""
    project = with_a_task(with_celery, tmp_path)
    address = f"127.0.0.1:{free_port()}"
    environment = clean_environment()
    if broker == "address":
        environment["CELERY_BROKER_URL"] = whole_stack.redis.url(2)
    elif broker == "none":
        environment["PATH"] = path_without(tmp_path / "bin", "redis-server", "valkey-server")
    log = tmp_path / "dev.log"
    server = Server(["make", "dev", f"ADDRESS={address}"], address, log, cwd=project.path, env=environment)
    server.wait_until_up()
    said = {"own": "on a Redis in .local/redis", "address": "on CELERY_BROKER_URL", "none": "at once"}[broker]
    lines = {"own": ["clear_sessions success", "beat: Starting"], "address": ["clear_sessions success"], "none": []}

    assert server.get("/task").status_code == 200
    assert f"Tasks are done {'' if broker == 'none' else 'by a worker, with beat, '}{said}" in log.read_text()
    if broker == "none":
        assert "clear_sessions" in log.read_text()
        assert "celery" not in str([process.cmdline() for process in processes_in(project.path)])
    else:
        wait_until(lambda: all(line in log.read_text() for line in lines[broker]), 30)
    if broker == "own":
        with (project.package / "celery.py").open("a") as code:
            code.write("# changed\n")
        wait_until(lambda: log.read_text().count("beat: Starting") == 2, 30)
    server.stop(signal.SIGKILL if broker == "address" else signal.SIGINT)
    wait_until_gone(tmp_path)
    wait_until(lambda: not [p for p in psutil.process_iter(["cwd"]) if str(tmp_path) in (p.info["cwd"] or "")])
    assert "Traceback" not in log.read_text()


@pytest.fixture
def made(tmp_path):
    """Return a function that serves a project with `make dev` or `make serve`; all ends with the test."""
    servers = []

    def make(project, target, address):
        log = tmp_path / f"{target}.log"
        servers.append(
            Server(["make", target, f"ADDRESS={address}"], address, log, cwd=project.path, env=clean_environment())
        )
        return servers[-1].wait_until_up(120)

    yield make
    for server in servers:
        server.stop()
        assert "Traceback" not in server.log.read_text()
    wait_until_gone(tmp_path)


def test_second_command_leaves_the_first_its_broker(with_celery, tmp_path, made):
    """At the same address it says that it is in use; at another one, as `make serve`, it has a broker of its own."""
    project = with_a_task(with_celery, tmp_path)
    dev = made(project, "dev", f"127.0.0.1:{free_port()}")
    second = project.run("make", "dev", f"ADDRESS={urlsplit(dev.url).netloc}", check=False)
    serve = made(project, "serve", f"127.0.0.1:{free_port()}")

    assert second.returncode != 0
    assert f"{urlsplit(dev.url).netloc} cannot be served" in second.stdout
    for expected in ("beat: Starting", "ready."):
        wait_until(lambda said=expected: said in serve.log.read_text(), 60)
    serve.stop()
    assert dev.get("/task").status_code == 200
    wait_until(lambda: "clear_sessions success" in dev.log.read_text(), 60)


def test_make_serve_has_a_worker(with_celery, tmp_path, made):
    project = with_a_task(with_celery, tmp_path)
    serve = made(project, "serve", f"127.0.0.1:{free_port()}")

    assert serve.get("/task").status_code == 200
    wait_until(lambda: '"outcome":"success"' in serve.log.read_text(), 60)


def test_make_dev_starts_beat_again(with_celery, tmp_path, made):
    """When the code changes, also that of an app which is not in the package, and when it is lost."""
    project = with_celery.copy(tmp_path)
    dev = made(project, "dev", f"127.0.0.1:{free_port()}")

    def wait_for_starts(count):
        wait_until(lambda: dev.log.read_text().count("beat: Starting") >= count, 60)
        time.sleep(2)
        assert dev.log.read_text().count("beat: Starting") == count

    wait_for_starts(1)
    project.manage("startapp", "shop")
    with (project.package / "settings" / "base.py").open("a") as settings:
        settings.write('INSTALLED_APPS += ["shop"]\n')
    wait_for_starts(2)
    (project.path / "shop" / "tasks.py").write_text("")
    wait_for_starts(3)
    (parent,) = (p for p in processes_in(project.path) if p.cmdline()[1] == "-P" and p.cmdline()[-1] == "beat")
    parent.children()[0].kill()
    wait_for_starts(4)


def path_without(folder, *programs):
    """Return a PATH on which all programs are found but some."""
    folder.mkdir()
    for source in reversed(os.environ["PATH"].split(":")):
        for program in Path(source).glob("*"):
            if program.name not in programs:
                (folder / program.name).unlink(missing_ok=True)
                (folder / program.name).symlink_to(program)
    return str(folder)


def test_options_survive_the_outbox(stack):
    with refused(stack):
        stack.do(
            "record.apply_async_on_commit(['late'], countdown=2, queue='high', headers={'colour': 'blue'})\n"
            "record.apply_async_on_commit(['expired'], expires=0.1)"
        )
    stack.start("worker", "--queues=high")
    wait_until(lambda: stack.ran() == {"late": 1})
    stack.start("worker", "--queues=default")

    time.sleep(0.5)
    assert stack.ran() == {"late": 1}


def test_order_is_kept(stack):
    with refused(stack):
        stack.do("for t in range(300): record.delay_on_commit(t)")
    stack.start("worker", "--concurrency=1")
    wait_until(lambda: len(stack.ran()) == 300, 30)

    assert [int(token) for (token,) in stack.execute("SELECT token FROM ran ORDER BY number")] == [*range(300)]


def test_task_of_a_killed_process_runs_again(stack):
    stack.start("worker", "--concurrency=1")
    stack.do("lose_first_process.delay()")
    wait_until(lambda: stack.ran() == {"lost": 2}, 25)


def test_sigterm_lets_tasks_end_and_gives_back_the_others(stack):
    stack.start("worker", "--concurrency=1", "--hostname=a@%h").lines()
    worker = stack.processes[0]
    stack.do("record.delay('short', 0.5)\nrecord.apply_async(['eta'], countdown=3)")
    time.sleep(0.3)
    took = worker.signal(signal.SIGTERM)
    ran = stack.ran()
    stack.start("worker", "--concurrency=1", "--hostname=b@%h")
    wait_until(lambda: stack.ran().keys() == {"short", "eta"}, 30)

    assert ran == {"short": 1}
    assert took < 8


def test_high_overtakes_low(stack):
    stack.start("worker", "--concurrency=1", "--queues=low", "--hostname=low@%h")
    stack.start("worker", "--concurrency=1", "--queues=high", "--hostname=high@%h")
    stack.do(
        "for _ in range(1000): record.apply_async(['low', 0.02], queue='low')\n"
        "record.apply_async(['high'], queue='high')"
    )
    wait_until(lambda: stack.ran()["high"], 5)

    assert stack.ran()["low"] < 500


def test_beat_fires_once_however_many_run(stack):
    beats = [stack.start("beat", wait=False) for _ in range(2)]
    wait_until(lambda: stack.waiting() >= 1, 20)
    started, before = time.monotonic(), stack.waiting()
    time.sleep(6)
    fired = stack.waiting() - before
    beats[0].stop()
    wait_until(lambda: stack.waiting() > before + fired, 10)

    assert (time.monotonic() - started) // 3 <= fired <= 4
    assert not [line for beat in beats for line in beat.lines() if line["level"] == "error"]


def test_task_of_another_kind_of_database(stack):
    """The worker gives its statements' timeout to PostgreSQL only."""
    stack.start("worker", "--concurrency=1")
    stack.do("ask_legacy.delay_on_commit()")

    assert wait_until(stack.ran) == {"legacy": 1}


def test_liveness(stack):
    """It sees a process that hangs, and does not mind a broker that is away."""
    worker = stack.start("worker", "--hostname=high@%h", "--queues=high")
    beat = stack.start("beat", wait=False)
    program = stack.project.package / "scaling" / "tasks" / "alive.py"

    def alive(name):
        probe = stack.project.run(stack.project.python, program, name, check=False, **stack.site.environment)
        return probe.returncode == 0

    wait_until(lambda: alive("high") and alive("beat"))
    assert not alive("nobody")
    with black_holed(stack):
        time.sleep(6)
        assert alive("high")
        assert alive("beat")
    for process, name in ((worker, "high"), (beat, "beat")):
        process.process.send_signal(signal.SIGSTOP)
        wait_until(lambda name=name: not alive(name), 10)
        process.process.send_signal(signal.SIGCONT)
        wait_until(lambda name=name: alive(name))


HANDSHAKE = """
try:
    clear_sessions.delay()
except Exception as error:
    print(error)
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with the certificate of an authority, and with those that it gave to two names."""
    folder = tmp_path_factory.mktemp("certificates")
    leaf = ("-addext", "basicConstraints=critical,CA:false")
    for name, *extra in (
        ("ca", "keyUsage=critical,keyCertSign"),
        ("localhost", "subjectAltName=DNS:localhost", *leaf, "-CA", "ca.pem", "-CAkey", "ca.key"),
        ("elsewhere", "subjectAltName=DNS:elsewhere", *leaf, "-CA", "ca.pem", "-CAkey", "ca.key"),
    ):
        command = (
            f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"
        )
        subprocess.run([*command.split(), "-addext", *extra], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("scheme", ["rediss", "amqps"])
@pytest.mark.parametrize(
    ("name", "trusted", "good"), [("localhost", True, True), ("localhost", False, False), ("elsewhere", True, False)]
)
def test_certificate_of_the_broker_is_verified(with_celery, tmp_path, certificates, scheme, name, trusted, good):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")

    def serve():
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as secured:
                secured.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        broker = f"{scheme}://localhost:{listener.getsockname()[1]}"
        environment = with_celery.configure(tmp_path, CELERY_BROKER_URL=broker)
        if trusted:
            environment["SSL_CERT_FILE"] = str(certificates / "ca.pem")
        code = f"from my_project.scaling.tasks import clear_sessions{HANDSHAKE}"
        said = with_celery.manage("shell", "--no-imports", "-c", code, **environment).stdout

    assert said
    assert ("CERTIFICATE_VERIFY_FAILED" in said) is not good


@pytest.mark.parametrize("url", ["", "localhost", "sqs://", "redis://", "redis://host:99999/1"])
def test_wrong_broker_is_named(with_celery, tmp_path, url):
    environment = with_celery.configure(tmp_path, CELERY_BROKER_URL=url)
    ran = with_celery.manage("config", "check", check=False, **environment)

    assert ran.returncode == 1
    assert "CELERY_BROKER_URL: found" in ran.stdout
    assert "expected a URL such as redis://:password@host:6379/1" in ran.stdout
