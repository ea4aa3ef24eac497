"""With `deployment=server`: releases under load, bad ones, rolling back, a migration that has to wait, running tasks.

A folder stands in for the server, with deploy/'s files as they are but for their paths, and for systemd a Host, which
starts, reloads and stops what the unit files say. Real git, pip, gunicorn, PostgreSQL, Redis and workers.
"""

import configparser
import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest
import urllib3
from conftest import clean_environment, needs
from servers import Postgres, Redis, wait_until

# What the tests need to see, added to the project: which release answers, and tasks that take their time.
URLS = """

from django.http import HttpResponse

from .accounts.tasks import record


def enqueue(request):
    return HttpResponse(record.delay_on_commit(request.GET["token"]))


urlpatterns += [path("release", lambda request: HttpResponse("1")), path("enqueue", enqueue)]
"""

TASKS = """
import time

from celery import shared_task
from django.db import connection


@shared_task
def record(token):
    time.sleep(1)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO ran (token) VALUES (%s)", [token])
"""

MIGRATION = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]
    operations = [migrations.RunSQL("ALTER TABLE accounts_user ADD nickname text")]
"""

# Fails when gunicorn loads it, unless the release is only tried
BROKEN = """
import sys

if "--workers=1" not in sys.argv:
    raise RuntimeError("broken")
"""

SYSTEMCTL = """#!{python}
import json, socket, sys

client = socket.socket(socket.AF_UNIX)
client.connect({address!r})
client.sendall(json.dumps(sys.argv[1:]).encode() + b"\\n")
status, text = json.loads(client.makefile().read())
print(text)
sys.exit(status)
"""


class Unit:
    """A unit file with its drop-in, and the process that it starts."""

    def __init__(self, host, name):
        self.name, self.process, self.status_text = name, None, ""
        self.log = host.folder / f"{name}.log"
        stem, instance = re.fullmatch(r"(.*?)(?:@(.*))?\.service", name).groups()
        text = (host.units / f"{stem}{'@' * bool(instance)}.service").read_text()
        text += next(host.units.glob("*-.service.d/*.conf")).read_text()
        parser = configparser.RawConfigParser(strict=False, delimiters="=")
        parser.optionxform = str
        parser.read_string(text.replace("%i", instance or "").replace("%%", "%"))
        self.values = dict(parser["Service"])
        variables = re.findall(r"^Environment=(.*)$", text, re.MULTILINE)
        self.environment = dict(word.split("=", 1) for line in variables for word in shlex.split(line))
        self.listener = host.listen() if (host.units / f"{stem}.socket").exists() else None

    def start(self):
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.settimeout(float(self.values["TimeoutStartSec"]))
        self.notified.bind(f"\0{self.log}")
        environment = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": f"@{self.log}", "LISTEN_FDS": "1"}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", 'LISTEN_PID=$$ exec "$0" "$@"', *shlex.split(self.values["ExecStart"])],
                cwd=self.values["WorkingDirectory"],
                env=environment | self.environment,
                preexec_fn=self.listener and (lambda: os.dup2(self.listener.fileno(), 3)),
                pass_fds=[3] if self.listener else [],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.wait_until_ready()

    def wait_until_ready(self):
        """Return whether it says that it is ready, in time and before it ends."""
        with contextlib.suppress(TimeoutError):
            while "READY=1" not in (lines := self.notified.recv(4096).decode().splitlines()):
                pass
            self.status_text = dict(line.split("=", 1) for line in lines).get("STATUS", "")
            return True
        return False

    def reload(self):
        if not self.process:
            return self.start()
        assert self.values["Type"] == "notify-reload"
        self.notified.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self.notified.recv(4096):
                pass
        self.notified.settimeout(float(self.values["TimeoutStartSec"]))
        self.process.send_signal(signal.SIGHUP)
        assert self.notified.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        return self.wait_until_ready()

    def stop(self):
        """Stop the main process, as KillMode=mixed does."""
        assert self.values["KillMode"] == "mixed"
        if self.process:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(float(self.values["TimeoutStopSec"]))
            self.kill()

    def kill(self):
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.notified.close()
            self.process = None

    def restart(self):
        self.stop()
        return self.start()


class Host:
    """A folder with a checkout of the project, and what stands in for sudo and systemctl."""

    def __init__(self, rendered, folder, values):
        self.folder, self.site = folder, folder / "srv"
        self.checkout = shutil.copytree(rendered, self.site / "source")
        self.socket = folder / "run" / "gunicorn.sock"
        self.socket.parent.mkdir()
        self.units = self.checkout / "deploy" / "systemd"
        files = [*(self.checkout / "deploy").rglob("*"), self.checkout / "my_project" / "config.py"]
        for file in filter(Path.is_file, files):
            text = file.read_text().replace("/srv/my_project", str(self.site))
            file.write_text(text.replace("/run/my_project", str(self.socket.parent)))
        (self.site / "config.json").touch(mode=0o600)
        (self.site / "config.json").write_text(json.dumps(values))
        self.programs = folder / "bin"
        self.programs.mkdir()
        address = str(folder / "systemd")
        self.program("sudo", '#!/bin/sh\nexec "$@"\n')
        self.program("systemctl", SYSTEMCTL.format(python=sys.executable, address=address))
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(address)
        self.server.listen()
        threading.Thread(target=self.serve, daemon=True).start()
        self.git("init", "--quiet")
        self.pool = urllib3.HTTPConnectionPool("unix", maxsize=8, retries=False, timeout=30)
        self.pool.ConnectionCls = self.connection
        names = ("web", "beat", "worker@default")
        self.services = {name: Unit(self, f"my_project-{name}.service") for name in names}

    def program(self, name, text):
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def listen(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.socket))
        listener.listen(2048)
        return listener

    def connection(self, *args, **options):
        connection = urllib3.connection.HTTPConnection(*args, **options)

        def connect():
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(30)
            connection.sock.connect(str(self.socket))

        connection.connect = connect
        return connection

    def serve(self):
        """Do what the program systemctl asks for."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.server.accept()
                with client, client.makefile("rw") as stream:
                    answer = self.systemctl(*json.loads(stream.readline()))
                    stream.write(json.dumps(answer))
                    stream.flush()
                    client.shutdown(socket.SHUT_WR)

    def systemctl(self, action, *arguments):
        """Return the exit status and the output."""
        patterns = [Path(argument) for argument in arguments if not argument.startswith("--")]
        units = [unit for unit in self.services.values() if any(Path(unit.name).match(str(name)) for name in patterns)]
        if action == "show":
            return 0, units[0].status_text
        if action == "reload-or-restart":
            return 0 if all(unit.reload() for unit in units) else 1, ""
        assert action == "try-restart"
        running = [unit for unit in units if unit.process]
        return 0 if all(unit.restart() for unit in running) else 1, ""

    def git(self, *arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", *who, *arguments], cwd=self.checkout, env=clean_environment(), check=True)

    def commit(self):
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "--message", "next")

    def release(self, *arguments):
        """Run release.py; return the CompletedProcess."""
        return subprocess.run(
            [sys.executable, "deploy/release.py", *arguments],
            cwd=self.checkout,
            env=clean_environment(PATH=f"{self.programs}:{os.environ['PATH']}"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def current(self):
        return (self.site / "current").resolve()

    def get(self, path):
        headers = {"Host": "example.com", "X-Forwarded-Proto": "https"}
        return self.pool.request("GET", path, headers=headers, redirect=False)

    def workers_run(self, release):
        """Tell whether all processes but those of the web server run a release."""
        others = [unit.process.pid for name, unit in self.services.items() if name != "web"]
        return all(Path(f"/proc/{pid}/cwd").resolve() == release for pid in others)

    def close(self):
        for unit in self.services.values():
            unit.kill()
        self.server.close()


class Load:
    """Visitors who ask all the time which release answers, while the block runs."""

    def __init__(self, host):
        self.host, self.answers, self.stopped = host, [], threading.Event()
        self.clients = [threading.Thread(target=self.ask) for _ in range(4)]

    def ask(self):
        while not self.stopped.wait(0.05):
            try:
                response = self.host.get("/release")
                self.answers.append((response.status, response.data))
            except Exception as error:
                self.answers.append((repr(error), b""))

    def __enter__(self):
        for client in self.clients:
            client.start()
        time.sleep(0.3)
        return self

    def __exit__(self, *error):
        time.sleep(0.3)
        self.stopped.set()
        for client in self.clients:
            client.join()

    def failures(self):
        return [answer for answer in self.answers if answer[0] != 200]

    def releases(self):
        return {data for _, data in self.answers}


@pytest.fixture(scope="module")
def rendered(cookies_session):
    return cookies_session.bake(extra_context={"deployment": "server", "use_celery": True}).project_path


@pytest.fixture(scope="module")
def host(rendered, set_up, folder):
    """A server on which the first release was deployed by the commands in docs/deploy.md."""
    with_celery = set_up(use_celery=True)
    postgres = Postgres(with_celery.python, folder, max_connections=90)
    postgres.control("start")
    postgres.execute("CREATE DATABASE site")
    redis = Redis(folder, appendonly="yes").start()
    values = json.loads(with_celery.manage("config", "example").stdout)
    values |= {"DATABASE_URL": postgres.url("site"), "CELERY_BROKER_URL": redis.url(1), "WORKERS": 2}
    host = Host(rendered, folder, values | {"ALLOWED_HOSTS": ["example.com"], "MEDIA_ROOT": str(folder)})
    host.postgres = postgres
    for file, text in (("urls.py", URLS), ("accounts/tasks.py", TASKS)):
        with (host.checkout / "my_project" / file).open("a") as module:
            module.write(text)
    host.commit()
    try:
        ran = host.release("deploy")
        assert ran.returncode == 0, ran.stdout
        postgres.execute("CREATE TABLE ran (token text)", "site")
        assert all(unit.start() for name, unit in host.services.items() if name != "web")
        yield host
    finally:
        host.close()
        redis.stop()
        postgres.control("stop", "-m", "immediate")


class Second:
    """The second release, deployed under load, while tasks run and somebody holds the lock that its migration needs."""

    def __init__(self, host):
        urls = host.checkout / "my_project" / "urls.py"
        urls.write_text(urls.read_text().replace('HttpResponse("1")', 'HttpResponse("2")'))
        (host.checkout / "my_project" / "static" / "css" / "site.css").write_text("body { color: #111; }\n")
        (host.checkout / "my_project" / "accounts" / "migrations" / "0002_nickname.py").write_text(MIGRATION)
        host.commit()
        self.first = host.current()
        self.tokens = [f"token {number}" for number in range(40)]
        self.output = []
        with psycopg.connect(host.postgres.url("site")) as holder, Load(host) as self.load:
            holder.execute("LOCK TABLE accounts_user IN ACCESS SHARE MODE")
            releasing = threading.Thread(target=lambda: self.output.append(host.release("deploy")))
            releasing.start()
            for token in self.tokens:
                assert host.get(f"/enqueue?token={token.replace(' ', '+')}").status == 200
            wait_until(lambda: host.postgres.execute(WAITING) or not releasing.is_alive(), 200)
            holder.rollback()
            releasing.join()
        self.ran = self.output[0]


WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture(scope="module")
def second(host):
    return Second(host)


@pytest.fixture(scope="module")
def third(host, second):
    """A release that is built, once, and not switched to."""
    host.commit()
    assert host.release("build").returncode == 0
    assert "is built already" in host.release("build").stdout
    return host.release("list").stdout.split()[-1]


def test_deploy_under_load(host, second, record_property):
    assert second.ran.returncode == 0, second.ran.stdout
    assert second.load.failures() == []
    assert second.load.releases() == {b"1", b"2"}
    assert host.get("/release").data == b"2"
    assert host.workers_run(host.current())
    record_property("Releases of a server under load", f"deploy: {len(second.load.answers)} requests, 0 failed")


def test_running_tasks_are_done(host, second, record_property):
    """Each once at least, whichever release began it."""
    wait_until(lambda: len(host.postgres.execute("SELECT DISTINCT token FROM ran", "site")) == len(second.tokens), 60)

    done = Counter(token for (token,) in host.postgres.execute("SELECT token FROM ran", "site"))
    assert done.keys() == {*second.tokens}
    twice = sum(done.values()) - len(done)
    record_property("Releases of a server under load", f"workers restarted: {len(done)} tasks, 0 lost, {twice} twice")


def test_static_files_of_both_releases_stay(host, second):
    hashed = {file.name for file in (host.site / "staticfiles" / "css").glob("site.????????????.css")}

    assert len(hashed) == 2
    assert not (host.site / "staticfiles" / "staticfiles.json").exists()


@pytest.mark.parametrize(
    ("file", "text"),
    [("urls.py", "\nhandler500 = None\nurlpatterns = [path('', lambda request: 1 / 0)]\n"), ("wsgi.py", BROKEN)],
    ids=["when it is tried", "when it is switched to"],
)
def test_release_whose_health_fails(host, third, file, text, record_property):
    """The release before goes on serving, or is put back."""
    module = host.site / "releases" / third / "my_project" / file
    original, before = module.read_text(), host.current()
    try:
        module.write_text(original + text)
        with Load(host) as load:
            ran = host.release("switch", third)
    finally:
        module.write_text(original)

    assert ran.returncode == 1
    assert ran.stdout.splitlines()[-1].startswith(f"{third} ")
    assert load.failures() == []
    assert load.releases() == {b"2"}
    assert host.current() == before
    assert host.workers_run(before)
    record_property("Releases of a server under load", f"bad one: {len(load.answers)} requests, 0 failed")


def test_interrupted_switch(host, third):
    """Whoever loses his connection in the middle leaves the release before as it was."""
    before = host.current()
    host.program("sudo", '#!/bin/sh\nkill -HUP $PPID; sleep 1; exec "$@"\n')
    try:
        ran = host.release("switch", third)
    finally:
        host.program("sudo", '#!/bin/sh\nexec "$@"\n')

    assert ran.returncode == 1
    assert host.current() == before
    assert host.get("/release").data == b"2"


def test_two_at_once(host):
    with (host.site / "releases" / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = host.release("rollback")

    assert ran.returncode == 1
    assert ran.stdout.startswith("Another release is under way")


def test_release_that_is_not_there(host):
    ran = host.release("switch", "../../source")

    assert ran.returncode == 1
    assert ran.stdout.startswith("There is no release '../../source'; there are: ")


def test_rollback(host, second, record_property):
    with Load(host) as load:
        started = time.monotonic()
        ran = host.release("rollback")
        seconds = time.monotonic() - started
    assert ran.returncode == 0, ran.stdout
    assert load.failures() == []
    assert host.get("/release").data == b"1"
    assert host.current() == second.first
    assert host.workers_run(second.first)
    record_property("Releases of a server under load", f"roll back: {len(load.answers)} requests, 0 failed")
    record_property("Releases of a server under load", f"roll back: {seconds:.1f} s")


def with_programs_of_this_machine(text):
    """Return a unit file that systemd-analyze can judge where the site is not installed."""
    return re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)


@pytest.mark.parametrize("answers", [{}, {"use_celery": True}, {"media_storage": "s3", "project_slug": "a" * 40}])
def test_units(cookies, tmp_path, answers):
    """systemd takes every unit as it is, and finds little that a service could do to its server."""
    analyze = needs("systemd-analyze", "systemd")
    units = cookies.bake(extra_context={"deployment": "server"} | answers).project_path / "deploy" / "systemd"
    version = int(subprocess.run([analyze, "--version"], capture_output=True, text=True).stdout.split()[1])
    for file in filter(Path.is_file, units.rglob("*")):
        text = with_programs_of_this_machine(file.read_text())
        if version < 253:
            text = text.replace("Type=notify-reload", "Type=notify")
        copy = tmp_path / file.relative_to(units)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(text)
    names = [file.name.replace("@.", "@high.") for file in tmp_path.iterdir() if file.is_file()]
    environment = clean_environment(SYSTEMD_UNIT_PATH=f"{tmp_path}:")

    verified = subprocess.run([analyze, "verify", *names], env=environment, capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    for name in names:
        if name.endswith(".service"):
            command = [analyze, "security", "--offline=true", "--threshold=15", name]
            judged = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert judged.returncode == 0, judged.stdout[-300:]
