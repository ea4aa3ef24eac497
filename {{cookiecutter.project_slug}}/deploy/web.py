"""The web server of every deployed environment, from the project's folder:

    python deploy/web.py --bind unix:/run/{{ cookiecutter.project_slug }}/gunicorn.sock

It holds the socket and runs gunicorn on it, with gunicorn.conf.py and the options that follow the address.

SIGHUP starts another gunicorn beside the one that serves, with the code, the packages and the config as they are now;
when all its workers are ready, the old one is told to leave. One that does not start leaves the old one serving. Where
this file was named through a link, each gunicorn is of the release that the link leads to when it starts.
SIGTERM drains: /readyz turns to 503 at once, requests are served for another DRAIN seconds, those that still run then
finish, and this process ends with gunicorn's status. A second SIGTERM ends the wait. SIGINT and SIGQUIT stop at once.
"""

import argparse
import ctypes
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime

# Seconds that a gunicorn may take to start; then it is given up.
START = 60

# Connections that wait to be accepted
BACKLOG = 2048

# The number of the listening socket, here and in gunicorn: where systemd puts those that it opens
SOCKET = 3

# Of prctl(2): the signal that a process gets when its parent dies
PR_SET_PDEATHSIG = 1

# The project's folder by the name that it was started with
PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
{% if cookiecutter.deployment == "server" %}

# Where systemd listens; gunicorn must not answer there, too
NOTIFY_SOCKET = os.environ.pop("NOTIFY_SOCKET", None)
{% endif %}


def say(level, message):
    """Write a line that looks like the site's, unless nobody reads; this process must not load the site's code."""
    line = {"time": f"{datetime.now(UTC):%FT%T.%fZ}", "level": level, "logger": "deploy.web", "message": message}
    with suppress(OSError):
        if select.select([], [1], [], 1)[1]:
            os.write(1, f"{json.dumps(line)}\n".encode())


{% if cookiecutter.deployment == "server" %}
def notify(*states):
    """Tell systemd, if it has started this process, what this process does; see sd_notify(3)."""
    if NOTIFY_SOCKET:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto("\n".join(states).encode(), NOTIFY_SOCKET.replace("@", "\0", 1))


{% endif %}
def listen(address):
    """Return a socket that listens on HOST:PORT, or on unix:PATH for this user and this group."""
    if address.startswith("unix:/"):
        return listen_on_file(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:8000, or unix:/PATH")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    return socket.create_server(
        (host.strip("[]"), int(port)), family=family, backlog=BACKLOG, dualstack_ipv6=host == "[::]"
    )


def listen_on_file(path):
    """Return a socket in place of the last one's, unless somebody still answers there."""
    listener = socket.socket(socket.AF_UNIX)
    if os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode):
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(path) == 0:
                raise ValueError("another process listens there")
        os.unlink(path)
    umask = os.umask(0o007)
    listener.bind(path)
    os.umask(umask)
    listener.listen(BACKLOG)
    return listener


def before_exec():
    """Tell gunicorn, in its process, that the socket is meant for it, and to stop when this process is killed."""
    os.environ["LISTEN_PID"] = str(os.getpid())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Gunicorn:
    """A gunicorn on the socket: it starts, it is ready when all its workers are, it leaves, it has ended."""

    def __init__(self, options, draining):
        # A link may lead elsewhere before this gunicorn has loaded all that it needs.
        self.release, programs = os.path.realpath(PROJECT), os.path.realpath(os.path.dirname(sys.executable))
        python, config = os.path.join(programs, os.path.basename(sys.executable)), "deploy/gunicorn.conf.py"
        self.is_ready = self.is_leaving = self.is_given_up = False
        self.drain = 0
        self.received = b""
        self.give_up_at = time.monotonic() + START
        pipe, workers_end = os.pipe()
        os.set_blocking(pipe, False)
        self.pipe = open(pipe, "rb", buffering=0)  # noqa: SIM115  closed when all workers are ready
        os.environ |= {"LISTEN_FDS": "1", "READY_FD": str(workers_end), "DRAINING_FD": str(draining)}
        os.environ["PWD"] = self.release  # gunicorn takes its folder from there
        try:
            self.process = subprocess.Popen(
                [python, "-m", "gunicorn", f"--config={config}", *options],
                cwd=self.release,
                pass_fds=[SOCKET, workers_end, draining],
                preexec_fn=before_exec,
            )
        finally:
            os.close(workers_end)

    def leave(self, number=signal.SIGTERM):
        self.is_leaving = True
        self.process.send_signal(number)

    def read(self):
        """Read a line of each worker that is ready: how many there are to be, and for how many seconds to drain."""
        self.received += self.pipe.read(4096) or b""
        if lines := self.received.splitlines():
            workers, self.drain = map(int, lines[-1].split())
            self.is_ready = len(lines) >= workers


class Web:
    """The generations of gunicorn, the newest last, and when to stop them all."""

    def __init__(self, options):
        self.options = options
        self.draining = tempfile.TemporaryFile()  # noqa: SIM115  scaling/http/health.py looks at its one byte
        os.pwrite(self.draining.fileno(), b"\0", 0)
        self.generations = []
        self.stop_at = None
        self.status = 0
        self.start()

    def start(self):
        self.generations.append(Gunicorn(self.options, self.draining.fileno()))

    def handle(self, number):
        """Do what a signal asks for."""
        drain = max(gunicorn.drain for gunicorn in self.generations)
        if number == signal.SIGHUP and not self.stop_at:
{% if cookiecutter.deployment == "server" %}
            notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
{% endif %}
            *older, newest = self.generations
            if not newest.is_ready and any(not gunicorn.is_leaving for gunicorn in older):
                newest.leave()  # it may have read what has changed since
            try:
                self.start()
            except OSError as error:
                say("error", f"gunicorn cannot be started: {error}")
{% if cookiecutter.deployment == "server" %}
                self.announce()
{% endif %}
        elif number == signal.SIGTERM and not self.stop_at:
{% if cookiecutter.deployment == "server" %}
            notify("STOPPING=1")
{% endif %}
            os.pwrite(self.draining.fileno(), b"\1", 0)
            self.stop_at = time.monotonic() + drain
            say("info", f"SIGTERM: stops in {drain} s.")
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self.stop(number)

    def stop(self, number=signal.SIGTERM):
        """Let nobody connect any more, and every gunicorn finish what it has begun."""
        self.stop_at = float("inf")
        with suppress(OSError):
            os.close(SOCKET)
        for gunicorn in self.generations:
            gunicorn.leave(number)

{% if cookiecutter.deployment == "server" %}
    def announce(self):
        """Tell systemd which release serves, unless one that may is starting."""
        if not self.stop_at and self.generations and self.generations[-1].is_ready:
            notify("READY=1", f"STATUS=Serves {self.generations[-1].release}")

{% endif %}
    def look_after(self, gunicorn):
        """Note that a gunicorn is ready, takes too long to be, or has ended."""
        if not (gunicorn.is_ready or gunicorn.is_leaving):
            gunicorn.read()
            if gunicorn.is_ready:
                gunicorn.pipe.close()
                for older in self.generations[: self.generations.index(gunicorn)]:
                    older.leave()
{% if cookiecutter.deployment == "server" %}
                self.announce()
{% endif %}
            elif time.monotonic() > gunicorn.give_up_at:
                say("error", f"gunicorn was not ready within {START} s, and is given up.")
                gunicorn.is_given_up = True
                gunicorn.leave(signal.SIGQUIT)
        if gunicorn.process.poll() is not None:
            self.generations.remove(gunicorn)
            self.status = gunicorn.process.returncode
            if gunicorn.is_given_up:
                self.status = self.status or 1
            elif gunicorn.is_leaving:
                self.status = max(self.status, 0)  # one that is told to leave while it starts ends of the signal
            else:
                others = "the one before goes on serving" if self.generations else "there is no other"
                say("error", f"gunicorn has ended with status {self.status}: {others}.")
{% if cookiecutter.deployment == "server" %}
            self.announce()
{% endif %}

    def run(self, signals):
        """Look after them until the last one has ended; return its status."""
        while self.generations:
            if select.select([signals], [], [], 0.05)[0]:
                for number in os.read(signals, 64):
                    self.handle(number)
            if self.stop_at and time.monotonic() > self.stop_at:
                self.stop()
            for gunicorn in list(self.generations):
                self.look_after(gunicorn)
            self.see_off_orphans()
        return self.status

    def see_off_orphans(self):
        """End zombies of others: a container's first process gets the children of those that ended before them."""
        own = [gunicorn.process.pid for gunicorn in self.generations]
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in own:
                os.waitpid(ended.si_pid, 0)


def caught_signals():
    """Return the end of a pipe from which the numbers of the signals of this process can be read."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return readable


def main():
    """Serve until a signal ends it; return gunicorn's status."""
    arguments = argparse.ArgumentParser(allow_abbrev=False, description="Run gunicorn, and replace it without a pause.")
    arguments.add_argument("-b", "--bind", default="127.0.0.1:8000", help="HOST:PORT or unix:/PATH; or %(default)s")
    known, options = arguments.parse_known_args()
    if os.environ.get("LISTEN_PID") != str(os.getpid()):  # else systemd has opened the socket already
        try:
            listener = listen(known.bind)
        except (OSError, ValueError) as error:
            sys.exit(f"--bind {known.bind}: {error}")
        if listener.fileno() != SOCKET:
            os.dup2(listener.fileno(), SOCKET)
            listener.close()
    signals = caught_signals()  # whose pipe would else be given the number of the socket
    status = Web(options).run(signals)
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
