"""Render the template, and set rendered projects up, as people do."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import psutil
import pytest
import requests

ROOT = Path(__file__).resolve().parent.parent

# A place of our own: the pytest of a rendered project would close the usual one to PostgreSQL, which for root runs as
# another user.
TEMPORARY = Path(tempfile.gettempdir(), "cookiecutter-django-scale")
TEMPORARY.mkdir(exist_ok=True)
os.environ["PYTEST_DEBUG_TEMPROOT"] = str(TEMPORARY)


def needs(program, package):
    """Return the path of a program that PyPI does not have; without it skip the test, or fail it in CI."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin")
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {program}: apt install {package}")
    return found


def pytest_terminal_summary(terminalreporter):
    """Print the tables that tests recorded rows of, and say which tests were left out and how to have them run."""
    tables = {}
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for name, row in report.user_properties if report.when == "call" else ():
            tables.setdefault(name, []).append(row)
    for name, rows in tables.items():
        terminalreporter.write_line("\n".join(["", name, *rows]))
    left_out = {}
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        left_out.setdefault(reason, []).append(report.nodeid)
    for reason, tests in left_out.items():
        terminalreporter.write_line(f"\n{len(tests)} tests were left out; one {reason}:")
        for test in tests:
            terminalreporter.write_line(f"  {test}")


@pytest.fixture
def matrix(record_property):
    """Return a function that adds a row to the table of outages, which benchmarks/outages.py writes to a document."""

    def add(what, answers, worst, back=None):
        """Add what failed, a Counter of the answers, and the seconds of the longest and until all was well again."""
        total = answers.total()
        others = [f"{answer} for {count} of {total}" for answer, count in answers.items() if answer != 200]
        seen, well = ", ".join(others) or f"nothing, {total} times", "–" if back is None else f"{back:.1f} s"
        record_property("Outages", f"| {what.replace('_', ' ')} | {seen} | {worst:.1f} s | {well} |")

    return add


def free_port():
    """Return a TCP port of 127.0.0.1 that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def clean_environment(**variables):
    """Return this environment without what would make a project's programs behave otherwise, and with variables."""
    foreign = ("ARGS", "DATABASE_URL", "DJANGO_", "MAKE", "MFLAGS", "PYTEST_", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | variables


class Project:
    """A rendered project that has been set up."""

    def __init__(self, path):
        self.path = path
        self.package = path / path.name
        self.python = path / ".venv" / "bin" / "python"

    def run(self, *command, check=True, **environment):
        """Run a command in the project; return the CompletedProcess with its output as text."""
        ran = subprocess.run(
            [str(part) for part in command],
            cwd=self.path,
            env=clean_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or ran.returncode == 0, f"{command} ended with {ran.returncode}:\n{ran.stdout}"
        return ran

    def manage(self, *arguments, **options):
        """Run manage.py; see run()."""
        return self.run(self.python, "manage.py", *arguments, **options)

    def copy(self, folder):
        """Return a copy in a folder, without its database and on the same environment."""
        path = folder / self.path.name
        shutil.copytree(self.path, path, ignore=shutil.ignore_patterns(".local", ".venv"))
        (path / ".venv").symlink_to(self.path / ".venv")
        return Project(path)

    def configure(self, folder, **values):
        """Write the example config, changed by values, to a folder; return the environment that names it."""
        config = json.loads(self.manage("config", "example").stdout) | values
        file = folder / "config.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(config))
        return {"DJANGO_CONFIG": str(file), "DJANGO_SETTINGS_MODULE": f"{self.path.name}.settings.deploy"}

    @contextlib.contextmanager
    def database(self):
        """Keep the project's PostgreSQL running; give its URL."""
        hold = f"from {self.path.name}.scaling.local import postgres; print(postgres.start(), flush=True); input()"
        with subprocess.Popen(
            [self.python, "-c", hold],
            cwd=self.path,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder:
            yield holder.stdout.readline().strip()
            holder.communicate("\n")


class Server:
    """A program that serves HTTP, with all the processes that it starts."""

    def __init__(self, command, address, log, **options):
        self.url = f"http://{address}"
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )

    def wait_until_up(self, seconds=60):
        """Wait until it answers; fail with what it printed if it ends or takes longer."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(requests.ConnectionError):
                self.get("/")
                return self
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"{self.process.args} does not serve {self.url}:\n{self.log.read_text()}")

    def get(self, path, **options):
        """Ask for a path without following redirects."""
        return requests.get(self.url + path, timeout=30, allow_redirects=False, **options)

    def stop(self, number=signal.SIGINT):
        """Send a signal to all processes as Ctrl-C does; return the exit status once the first of them has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        return self.process.wait(30)


def processes_in(folder):
    """Return the processes that were started from a folder, zombies left out."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(folder) in part for part in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_until_gone(folder, seconds=20):
    """Wait until no process that was started from a folder is left."""
    deadline = time.monotonic() + seconds
    while left := processes_in(folder):
        assert time.monotonic() < deadline, f"still running: {[process.cmdline() for process in left]}"
        time.sleep(0.1)


def rendered(path):
    """Return the texts of a project, by path."""
    files = (file for file in Path(path).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(path)): file.read_text(encoding="utf-8") for file in files}


@pytest.fixture(scope="session")
def set_up(cookies_session):
    """Render a project from answers, run `make setup` in it, return it as a Project: for the same ones, the same."""

    paths = []

    @cache
    def set_up(**answers):
        baked = cookies_session.bake(extra_context=answers)
        assert baked.exception is None, baked.exception
        paths.append(baked.project_path)
        project = Project(baked.project_path)
        project.run("make", "setup")
        return project

    yield set_up
    # A PostgreSQL that is still stopping would remove files while the folder is removed.
    for path in paths:
        wait_until_gone(path)


@pytest.fixture(scope="session")
def cruft(tmp_path_factory):
    """The program cruft, in an environment of its own; None where it cannot be installed, which is a failure in CI."""
    folder = tmp_path_factory.mktemp("cruft") / "environment"
    for command in (
        ["uv", "venv", "--python", sys.executable, folder],
        ["uv", "pip", "install", "--python", folder, "cruft==2.16.0"],
    ):
        ran = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True)
        assert ran.returncode == 0 or not os.environ.get("CI"), ran.stderr
    return folder / "bin" / "cruft" if ran.returncode == 0 else None


@pytest.fixture(scope="session")
def default_project(set_up):
    """The project of the default answers, set up once; tests leave it as they found it."""
    return set_up()


@pytest.fixture(scope="session")
def database_url(default_project):
    """The URL of the default project's database, which runs until the last test has ended."""
    with default_project.database() as url:
        yield url


@pytest.fixture(scope="module")
def folder():
    """A folder that PostgreSQL can enter, which for root runs as another user; tmp_path is closed to it."""
    path = Path(tempfile.mkdtemp(prefix="outages-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def project(default_project, tmp_path):
    """A copy of the project of the default answers that a test may change."""
    return default_project.copy(tmp_path)


@pytest.fixture
def serve(tmp_path):
    """Serve a project with `make dev`; return the Server."""
    servers = []

    def serve(project):
        address = f"127.0.0.1:{free_port()}"
        server = Server(
            ["make", "dev", f"ADDRESS={address}"],
            address,
            tmp_path / "make-dev.log",
            cwd=project.path,
            env=clean_environment(),
        )
        servers.append(server)
        return server.wait_until_up()

    yield serve
    for server in servers:
        server.stop()
