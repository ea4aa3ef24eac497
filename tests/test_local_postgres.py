"""The PostgreSQL for development starts on demand, is shared, and goes with the last process that uses it."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import Project, clean_environment, processes_in, wait_until_gone

# Holds the server until standard input ends.
HOLD = """
import sys, psycopg
from my_project import local_postgres
with psycopg.connect(local_postgres.start()) as connection:
    print(connection.info.server_version, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold():
    """Start processes that use the server of a project; return them when they are connected."""
    started = []

    def hold(project, count=1):
        new = [
            subprocess.Popen(
                [project.python, "-c", HOLD],
                cwd=project.path,
                env=clean_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        started.extend(new)
        for process in new:
            assert process.stdout.readline().startswith("18"), "a PostgreSQL 18 answers"
        return new

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def postmaster(project):
    return int((project.path / ".local" / "postgres" / "postmaster.pid").read_text().split()[0])


def test_shared_and_gone_with_the_last(project, hold):
    """Eight processes that begin at once get one server, which lasts until the last has ended."""
    *others, last = hold(project, count=8)
    server = postmaster(project)

    for process in others:
        process.communicate()
    time.sleep(1)
    assert postmaster(project) == server
    hold(project)

    last.kill()
    last.wait()
    assert postmaster(project) == server


def test_gone_when_killed(project, hold):
    (process,) = hold(project)

    process.kill()

    process.wait()
    wait_until_gone(project.path)


def test_starts_again_while_it_stops(project, hold):
    """A process that comes while the last one leaves is served all the same."""
    for _ in range(5):
        (process,) = hold(project)
        process.communicate()


def test_two_projects(project, hold, tmp_path):
    shutil.copytree(project.path, tmp_path / "other" / project.path.name, symlinks=True)
    other = Project(tmp_path / "other" / project.path.name)

    hold(project)
    (process,) = hold(other)

    assert postmaster(project) != postmaster(other)
    process.communicate()
    wait_until_gone(other.path)
    assert processes_in(project.path)


def test_long_path_with_blanks(project, hold, tmp_path):
    """A Unix socket's path has about a hundred bytes, and PostgreSQL's options are split at blanks."""
    folder = tmp_path / "a folder with blanks and 'quotes'" / ("x" * 100)
    shutil.copytree(project.path, folder / project.path.name, symlinks=True)

    hold(Project(folder / project.path.name))


@pytest.mark.parametrize("pid", ["its own", "another program's"])
def test_crash(project, hold, pid):
    """After a crash the lock file of PostgreSQL is left, and its number may belong to another program by now."""
    (process,) = hold(project)
    for victim in processes_in(project.path):
        if victim.pid != os.getpid():
            victim.send_signal(signal.SIGKILL)
    process.wait()
    wait_until_gone(project.path)
    file = project.path / ".local" / "postgres" / "postmaster.pid"
    lines = file.read_text().splitlines()
    if pid == "another program's":
        file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")

    hold(project)


def test_data_of_an_older_postgresql(project, hold):
    (process,) = hold(project)
    process.communicate()
    wait_until_gone(project.path)
    (project.path / ".local" / "postgres" / "PG_VERSION").write_text("16\n")

    ran = project.manage("check", check=False)

    assert ran.returncode == 1
    assert "Traceback" not in ran.stdout
    assert "was made by PostgreSQL 16, this project uses 18. Move the folder away" in ran.stdout


def test_own_server(project, hold):
    """DATABASE_URL names another server, and none is started."""
    hold(project)
    other = Project(project.path.with_name("other") / project.path.name)
    shutil.copytree(project.path, other.path, symlinks=True, ignore=shutil.ignore_patterns(".local"))
    url = project.run(
        project.python, "-c", "from my_project import local_postgres; print(local_postgres.start())"
    ).stdout.strip()

    other.manage("migrate", DATABASE_URL=url)

    assert not (other.path / ".local").exists()


def test_locale_that_is_not_installed(project, hold, monkeypatch):
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")

    hold(project)
