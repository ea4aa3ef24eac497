"""What a server of WSGI applications must do right for Django, probe by probe.

    python tests/application_servers.py [--server gunicorn] [--server granian] … [--only reload]
    python tests/application_servers.py --install waitress --command 'waitress-serve --port={port} {application}'

Each server runs a rendered project with one worker of four threads and the URLs in APPLICATION; what the project does
not require comes from PyPI, into an environment of its own. The table has a line for each probe: whether the server did
right, and what was seen of it.

To add a probe, write a function that gets a running server and returns these two; its docstring says what is right.
To add a server, write a line in SERVERS.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
from conftest import ROOT, Project, clean_environment, free_port
from servers import wait_until

THREADS = 4
HOST = "example.com"


@dataclass
class Kind:
    """How a server is started, and what it needs besides the project's requirements.

    Some probes start it with options: with `recycle` it replaces its worker now and then, with `hang` one that hangs
    for 3 s, and with `idle` it ends threads that idle.
    """

    command: str
    install: str = ""
    recycle: str = ""
    hang: str = ""
    idle: str = ""


OURS = "python deploy/web.py --bind {bind} {options}"
PLAIN = "gunicorn --worker-class gthread --threads 4 --bind {bind} {options} {application}"
GRANIAN = "granian --interface wsgi --blocking-threads 4 --respawn-failed-workers --host {host} --port {port}"
GUNICORN = {"recycle": "--max-requests 50 --max-requests-jitter 0", "hang": "--timeout 3"}
SERVERS = {
    "gunicorn": Kind(OURS, **GUNICORN),
    "gunicorn-fast": Kind(OURS + " --http-parser fast", "gunicorn_h1c", **GUNICORN),
    "gunicorn-plain": Kind(PLAIN, **GUNICORN),
    "granian": Kind(
        GRANIAN + " {options} {application}",
        "granian",
        recycle="--workers-lifetime 60",
        idle="--blocking-threads-idle-timeout 5",
    ),
}

CONFIG = {"ALLOWED_HOSTS": [HOST], "HTTPS": False, "TRUSTED_PROXIES": ["127.0.0.1"], "WORKERS": 1, "THREADS": THREADS}

SETTINGS = """
from my_project.settings.deploy import *

ROOT_URLCONF = "probed.urls"
STORAGES |= {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
"""

APPLICATION = """
import contextvars
import ctypes
import os
import threading
import time

from django.core.cache import caches
from django.db import connection
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from .release import RELEASE

left = threading.Event()
variable = contextvars.ContextVar("variable")


def seen(request):
    meta = {name: value for name, value in request.META.items() if isinstance(value, str)}
    return JsonResponse({"path": request.path, "cookies": request.COOKIES, "meta": meta})


def lines(request):
    body = request.environ["wsgi.input"]
    read = [body.readline(), body.readline(2), body.readline(), body.read(2), *body, body.read(5), body.readline()]
    return JsonResponse([line.decode() for line in read], safe=False)


def posted(request):
    body = request.environ["wsgi.input"]
    return HttpResponse(body.read() + body.read(1))


def stream(request):
    def pieces():
        for piece in ("one", "two", "three"):
            yield piece
            time.sleep(0.5)

    return StreamingHttpResponse(pieces())


def fails(request):
    def pieces():
        yield "one"
        time.sleep(0.2)
        raise RuntimeError("as it should")

    headers = {"Content-Length": "100"} if "length" in request.GET else {}
    return StreamingHttpResponse(pieces(), headers=headers)


def short(request):
    return StreamingHttpResponse(iter(["one"]), headers={"Content-Length": "100"})


def endless(request):
    def pieces():
        try:
            while True:
                yield "x" * 10_000
                time.sleep(0.01)
        finally:
            left.set()

    return StreamingHttpResponse(pieces())


def large(request):
    return StreamingHttpResponse(b"x" * 100_000 for _ in range(200))


def headers(request):
    response = HttpResponse("ok", headers={"X-Name": "Zoë"})
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


def slow(request):
    time.sleep(float(request.GET["seconds"]))
    return HttpResponse("done")


def hang(request):
    ctypes.PyDLL(None).sleep(60)  # and lets no other thread of the process run


def query(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), pg_sleep(0.05)")
        return HttpResponse(str(cursor.fetchone()[0]))


def sessions(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'my_project'")
        return HttpResponse(str(cursor.fetchone()[0]))


def context(request):
    value = object()
    variable.set(value)

    def pieces():
        time.sleep(0.05)
        yield str(variable.get() is value)

    return StreamingHttpResponse(pieces())


def cache(request):
    time.sleep(0.01)
    return HttpResponse(f"{threading.get_ident()} {id(caches['default'])}")


urlpatterns = [
    path("ok", lambda request: HttpResponse("ok")),
    path("empty", lambda request: HttpResponse(status=204)),
    path("file", lambda request: FileResponse(open(__file__, "rb"))),
    path("left", lambda request: HttpResponse(str(left.is_set()))),
    path("pid", lambda request: HttpResponse(str(os.getpid()))),
    path("release", lambda request: HttpResponse(RELEASE)),
    path("lines", csrf_exempt(lines)),
    path("posted", csrf_exempt(posted)),
    path("unread", csrf_exempt(lambda request: HttpResponse("ok"))),
    *(path(view.__name__, view) for view in (stream, fails, short, endless, large, headers, slow, hang)),
    *(path(view.__name__, view) for view in (query, sessions, cache, context)),
    path("seen", seen),
    path("seen/<path:rest>", lambda request, rest: seen(request)),
    path("", include("my_project.urls")),
]
"""


class Server:
    """A server of a kind, on a free port, with a project and APPLICATION."""

    def __init__(self, kind, project, folder, environment, programs):
        self.kind, self.project, self.folder, self.process = kind, project, folder, None
        probed = folder / "probed"
        probed.mkdir(exist_ok=True)
        (probed / "settings.py").write_text(SETTINGS)
        (probed / "urls.py").write_text(APPLICATION)
        self.release = probed / "release.py"
        self.environment = clean_environment(**environment) | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": f"{project.path}:{folder}",
            "PYTHONDONTWRITEBYTECODE": "1",  # which would hide a second release of the same second
            "DJANGO_SETTINGS_MODULE": "probed.settings",
            "HTTP_OF_THE_PROCESS": "leaked",
            "OF_THE_PROCESS": "leaked",
        }

    def start(self, options=""):
        """Start it, and wait until it answers."""
        self.port = free_port()
        self.release.write_text('RELEASE = "1"\n')
        self.log = self.folder / f"{self.port}.log"
        bind = {"host": "127.0.0.1", "port": self.port, "bind": f"127.0.0.1:{self.port}"}
        command = self.kind.command.format(**bind, options=options, application="my_project.wsgi:application")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                shlex.split(command),
                cwd=self.project.path,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(lambda: self.process.poll() is not None or self.text("/ok") == "ok", 30)
        assert self.process.poll() is None, f"{command}\n{self.log.read_text()}"
        return self

    def stop(self):
        """End all of it, if it runs: it leads a group of processes."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def is_up(self):
        return bool(self.process) and self.text("/ok") == "ok"

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port))

    def ask(self, path, *headers, seconds=5, method="GET", **options):
        """Return the answer to a request on a connection of its own."""
        with Client(self, seconds) as client:
            client.ask(path, "Connection: close", *headers, method=method, **options)
            return client.answer(method)

    def text(self, path, seconds=30):
        """Return what a path answers, or else why not."""
        try:
            answer = self.ask(path, seconds=seconds)
        except (OSError, ValueError) as error:
            return type(error).__name__
        return answer.body.decode() if answer.status == 200 else str(answer.status)

    def texts(self, path, count):
        """Return what as many clients as there are threads get for a path."""
        with ThreadPoolExecutor(THREADS) as clients:
            return list(clients.map(self.text, [path] * count))

    def worker(self):
        """Return the number of the process that answers."""
        answer = self.text("/pid", 2)
        return int(answer) if answer.isdecimal() else None

    def wait_for_another(self, worker, seconds=20):
        wait_until(lambda: self.worker() not in (None, worker), seconds)


class Client:
    """A connection on which anything can be sent."""

    def __init__(self, server, seconds=5):
        self.socket = server.connect()
        self.socket.settimeout(seconds)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def ask(self, path, *headers, method="GET", version="1.1", body=None):
        """Send a request."""
        length = [] if body is None else [f"Content-Length: {len(body)}"]
        lines = [f"{method} {path} HTTP/{version}", f"Host: {HOST}", *length, *headers, "\r\n"]
        self.send("\r\n".join(lines).encode() + (body or b""))

    def answer(self, method="GET"):
        """Return the next answer; a ConnectionError says that there is none."""
        if not (line := self.file.readline()):
            raise ConnectionError
        version, status, *_ = line.split()
        answer = Answer(version, int(status), [])
        while line := self.file.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            answer.headers.append((name.lower(), value.strip()))
        if method != "HEAD" and status not in (b"100", b"204", b"304"):
            answer.body, answer.is_whole = self.body(answer)
        return answer

    def body(self, answer):
        """Return the body of an answer, and whether it is all there."""
        body = b""
        if answer["Transfer-Encoding"] == "chunked":
            while line := self.file.readline():
                size = int(line, 16)
                chunk = self.file.read(size + 2)
                body += chunk[:size]
                if size == 0 or len(chunk) < size + 2:
                    return body, chunk == b"\r\n"
            return body, False
        length = int(answer["Content-Length"] or -1)
        with contextlib.suppress(ConnectionError):
            body = self.file.read(length)
        return body, length in (-1, len(body))

    def answers(self):
        """Return all answers until the server closes the connection, or is silent: then it waits for more."""
        answers = []
        try:
            while True:
                answers.append(self.answer())
        except (OSError, ValueError) as error:
            self.is_waited_for = isinstance(error, TimeoutError)
        return answers


@dataclass
class Answer:
    version: bytes
    status: int
    headers: list
    body: bytes = b""
    is_whole: bool = True

    def __getitem__(self, name):
        return ", ".join(value for key, value in self.headers if key == name.lower())

    def json(self):
        return json.loads(self.body)


class Load:
    """Clients that ask for the release until the block ends: two with a connection for each request, two with one."""

    def __init__(self, server):
        self.server, self.answers, self.slowest = server, Counter(), 0
        self.ended = threading.Event()
        self.clients = [threading.Thread(target=self.ask, args=[keeps], daemon=True) for keeps in (0, 0, 1, 1)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        time.sleep(0.5)
        return self

    def __exit__(self, *error):
        self.ended.set()
        for client in self.clients:
            client.join()

    def ask(self, keeps):
        client = None
        while not self.ended.wait(0.01):
            start = time.monotonic()
            try:
                client = client or Client(self.server, 30)
                client.ask("/release", *([] if keeps else ["Connection: close"]))
                answer = client.answer()
                is_over = "close" in answer["Connection"].lower() or not keeps
                self.answers[answer.body.decode() if answer.status == 200 else str(answer.status)] += 1
            except (OSError, ValueError) as error:
                is_over = True
                self.answers[type(error).__name__] += 1
            self.slowest = max(self.slowest, time.monotonic() - start)
            if is_over and client:
                client.__exit__()
                client = None

    def seen(self):
        """Return whether all were answered, none of them late, and what was seen."""
        failed = {answer: count for answer, count in self.answers.items() if answer not in ("1", "2")}
        failures = ", ".join(f"{count} × {answer}" for answer, count in failed.items()) or "none failed"
        return not failed and self.slowest < 1, f"{failures} of {self.answers.total()}, slowest {self.slowest:.1f} s"


def statuses(answers):
    return ", ".join(str(answer.status) for answer in answers) or "closed"


# The probes: those that share a server, those of them that gunicorn needs a proxy for, and those that take more time,
# for they start a server of their own
SHARED, BEHIND_PROXY, OWN = [], [], []


def probe(function):
    SHARED.append(function)
    return function


def behind_proxy(function):
    BEHIND_PROXY.append(function)
    return probe(function)


def own(function):
    OWN.append(function)
    return function


# What arrives


@probe
def utf8_cookie(server):
    """A UTF-8 cookie leaves the session cookie beside it alone"""
    cookies = server.ask("/seen", "Cookie: name=Zoë; sessionid=abc").json()["cookies"]
    return "sessionid" in cookies, f"cookies: {', '.join(cookies) or 'none'}"


@probe
def utf8_header(server):
    """A UTF-8 header arrives, byte by byte, and so do those beside it"""
    meta = server.ask("/seen", "X-Name: Zoë", "X-Other: 1").json()["meta"]
    name = meta.get("HTTP_X_NAME", "").encode("latin-1").decode(errors="replace")
    return (name, meta.get("HTTP_X_OTHER")) == ("Zoë", "1"), name or "lost"


@probe
def utf8_path(server):
    """A path is decoded once, a query not at all"""
    answer = server.ask("/seen/Zo%C3%AB%2520?name=%C3%AB").json()
    path, query = answer["path"], answer["meta"]["QUERY_STRING"]
    return (path, query) == ("/seen/Zoë%20", "name=%C3%AB"), f"{path} {query}"


@probe
def absolute_address(server):
    """An absolute address in the request line leads to its path"""
    answer = server.ask(f"http://{HOST}/seen/1")
    return answer.json()["path"] == "/seen/1", answer.json()["path"]


@probe
def repeated_header(server):
    """A header that is sent twice arrives as one list"""
    seen = server.ask("/seen", "X-Name: 1", "X-Name: 2").json()["meta"]["HTTP_X_NAME"]
    return re.fullmatch("1, ?2", seen), seen


@probe
def underscores(server):
    """X_Forwarded_For and Content_Length do not pass for headers with hyphens"""
    forged = ["X_Forwarded_For: 192.0.2.1", "Content_Length: 7"]
    seen = []
    for headers in (forged, [*forged, "X-Forwarded-For: 203.0.113.9"], ["X-Forwarded-For: 203.0.113.9", *forged]):
        answer = server.ask("/seen", *headers)
        meta = answer.json()["meta"] if answer.status == 200 else {}
        seen += [meta.get("REMOTE_ADDR", str(answer.status)), *meta.get("CONTENT_LENGTH", "")]
    return not {"192.0.2.1", "7"} & set(seen), ", ".join(seen)


@probe
def process_environment(server):
    """The environment of the process is not among what a request has sent"""
    leaked = [name for name, value in server.ask("/seen").json()["meta"].items() if value == "leaked"]
    return not leaked, ", ".join(leaked) or "apart"


@probe
def lines(server):
    """wsgi.input gives lines, bytes and iterates as a file does"""
    answer = server.ask("/lines", method="POST", body=b"one\ntwo\nthree\nfour\n\nfive")
    expected = ["one\n", "tw", "o\n", "th", "ree\n", "four\n", "\n", "five", "", ""]
    return answer.json() == expected, "as a file" if answer.json() == expected else f"{answer.json()}"


@probe
def chunked_body(server):
    """A chunked body arrives whole, with extensions and trailers, and the next request after it"""
    with Client(server) as client:
        client.ask("/posted", "Transfer-Encoding: chunked", method="POST")
        client.send(b"5;name=value\r\nhello\r\n")
        time.sleep(0.2)
        client.send(b"6\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n")
        bodies = [client.answer().body]
        client.ask("/ok", "Connection: close")
        bodies.append(client.answer().body)
    return bodies == [b"hello world", b"ok"], b", ".join(bodies).decode()


@probe
def unread_body(server):
    """A body that the application does not read is not taken for the next request"""
    inner = f"GET /empty HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    with Client(server, 2) as client:
        client.ask("/unread", method="POST", body=inner)
        client.ask("/ok", "Connection: close")
        answers = client.answers()
    return [answer.body for answer in answers] in ([b"ok"], [b"ok", b"ok"]), statuses(answers)


@probe
def pipelining(server):
    """Requests that are sent at once are answered in their order"""
    with Client(server) as client:
        for number in (1, 2, 3):
            client.ask(f"/seen/{number}", *(["Connection: close"] if number == 3 else []))
        paths = [answer.json()["path"] for answer in client.answers()]
    return paths == ["/seen/1", "/seen/2", "/seen/3"], f"{len(paths)} answers"


@probe
def expect(server):
    """Expect: 100-continue is answered before the body is sent"""
    with Client(server) as client:
        client.ask("/posted", "Expect: 100-continue", "Content-Length: 5", "Connection: close", method="POST")
        first = client.answer()
        client.send(b"hello")
        answers = [first, client.answer()]
    return statuses(answers) == "100, 200" and answers[1].body == b"hello", statuses(answers)


@probe
def upgrade(server):
    """Upgrade: h2c is not followed"""
    answer = server.ask(
        "/ok", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"
    )
    return (answer.status, answer.body) == (200, b"ok"), str(answer.status)


# What is answered


@probe
def head(server):
    """HEAD has the length of GET, and no body"""
    with Client(server) as client:
        client.ask("/ok", method="HEAD")
        client.ask("/ok", "Connection: close")
        first, second = client.answer("HEAD"), client.answer()
    return first["Content-Length"] == "2" and second.body == b"ok", f"length {first['Content-Length'] or 'none'}"


@probe
def no_content(server):
    """204 has no body, and no length of one"""
    with Client(server) as client:
        client.ask("/empty")
        client.ask("/ok", "Connection: close")
        first, second = client.answer(), client.answer()
    framing = [name for name in ("Content-Length", "Transfer-Encoding") if first[name] not in ("", "0")]
    return second.body == b"ok" and not framing, ", ".join(framing) or "none"


@probe
def http_1_0(server):
    """A client of HTTP/1.0 gets a stream without chunks, up to the end of the connection"""
    with Client(server) as client:
        client.ask("/stream", version="1.0")
        answer = client.answer()
    return answer.body == b"onetwothree", f"{answer['Transfer-Encoding'] or 'plain'}, {len(answer.body)} bytes"


@probe
def header_beyond_ascii(server):
    """A response's header beyond ASCII arrives, and both cookies"""
    answer = server.ask("/headers")
    cookies = [value for name, value in answer.headers if name == "set-cookie"]
    return (answer["X-Name"], len(cookies)) == ("Zoë", 2), f"{answer['X-Name']}, {len(cookies)} cookies"


@probe
def file(server):
    """A file arrives whole"""
    body = server.ask("/file").body
    return body == APPLICATION.encode(), f"{len(body)} bytes"


@probe
def stream(server):
    """A stream is sent piece by piece"""
    with Client(server) as client:
        client.ask("/stream", "Connection: close")
        received = b""
        while b"one" not in received:
            received += client.file.read1()
    return b"three" not in received, "at once" if b"three" in received else "piece by piece"


@probe
def stream_that_fails(server):
    """A stream that fails looks cut off to the client"""
    answer = server.ask("/fails")
    return not answer.is_whole, f"{answer.body.decode()}, {'as if complete' if answer.is_whole else 'cut off'}"


@probe
def short_stream(server):
    """A stream that fails, or ends, before its length is reached ends the connection"""
    for path in ("/fails?length", "/short"):
        try:
            if server.ask(path).is_whole:
                return False, "as if complete"
        except TimeoutError:
            return False, "the client waits"
        except ConnectionError:
            pass
    return True, "cut off"


# Smuggling: nothing that proxies and servers could read differently is answered, nor what follows it

CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
MALFORMED = {
    "Content-Length beside Transfer-Encoding is refused": (["Content-Length: 5", "Transfer-Encoding: chunked"], CHUNKS),
    "Transfer-Encoding that is sent twice is refused": (["Transfer-Encoding: chunked"] * 2, CHUNKS),
    "Transfer-Encoding: chunked, chunked is refused": (["Transfer-Encoding: chunked, chunked"], CHUNKS),
    "Transfer-Encoding: chunked, identity is refused": (["Transfer-Encoding: chunked, identity"], CHUNKS),
    "Transfer-Encoding: xchunked is refused": (["Transfer-Encoding: xchunked"], CHUNKS),
    "Transfer-Encoding of vertical tabs is refused": (["Transfer-Encoding: \vchunked"], CHUNKS),
    "Two lengths are refused": (["Content-Length: 5", "Content-Length: 6"], b"hello"),
    "Content-Length: 5, 6 is refused": (["Content-Length: 5, 6"], b"hello"),
    "Content-Length: +5 is refused": (["Content-Length: +5"], b"hello"),
    "Content-Length: 0x5 is refused": (["Content-Length: 0x5"], b"hello"),
    "Content-Length: -5 is refused": (["Content-Length: -5"], b"hello"),
    "A blank before a colon is refused": (["Content-Length : 5"], b"hello"),
    "A folded header is refused": (["X-Name: 1", " Content-Length: 5"], b"hello"),
    "A header without a colon is refused": (["X-Name"], b""),
    "NUL in a header is refused": (["X-Name: 1\0"], b""),
    "CR in a header is refused": (["X-Name: 1\rContent-Length: 5"], b"hello"),
    "A chunk of size 0x5 is refused": (["Transfer-Encoding: chunked"], b"0x5\r\nhello\r\n0\r\n\r\n"),
    "A chunk of size +5 is refused": (["Transfer-Encoding: chunked"], b"+5\r\nhello\r\n0\r\n\r\n"),
    "A chunk of size 1_0 is refused": (["Transfer-Encoding: chunked"], b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
    "A chunk of 2⁶⁴ + 5 bytes is refused": (["Transfer-Encoding: chunked"], b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "A chunk longer than its size is refused": (["Transfer-Encoding: chunked"], b"5\r\nhello!!\r\n0\r\n\r\n"),
    "A chunk whose size ends with LF is refused": (["Transfer-Encoding: chunked"], b"5;\nx\r\nhello\r\n0\r\n\r\n"),
}


def refuses(sentence, headers, body):
    def malformed(server):
        with Client(server, 2) as client:
            client.ask("/posted", *headers, method="POST")
            with contextlib.suppress(ConnectionError):
                client.send(body)
                client.ask("/ok")
            answers = client.answers()
        return not any(answer.status < 400 for answer in answers[:1]) and len(answers) < 2, statuses(answers)

    malformed.__doc__ = sentence
    return malformed


SHARED += [refuses(sentence, *parts) for sentence, parts in MALFORMED.items()]


@probe
def old_transfer_encoding(server):
    """Transfer-Encoding of HTTP/1.0 ends the connection"""
    with Client(server, 2) as client:
        client.ask("/posted", "Transfer-Encoding: chunked", "Connection: keep-alive", method="POST", version="1.0")
        with contextlib.suppress(ConnectionError):
            client.send(CHUNKS)
            client.ask("/ok")
        answers = client.answers()
    return len(answers) < 2, statuses(answers)


@probe
def second_host(server):
    """A second Host is refused"""
    status = server.ask("/ok", "Host: other.example").status
    return status == 400, str(status)


@probe
def versions(server):
    """HTTP/9.9, HTTP/1.1x and what is no HTTP at all are refused"""
    seen = []
    for line in (b"GET /ok HTTP/9.9", b"GET /ok HTTP/1.1x", b"GET /ok /ok HTTP/1.1", b"\x16\x03\x01\x02\x00\x01"):
        with Client(server, 2) as client:
            client.send(line + b"\r\nHost: example.com\r\n\r\n")
            seen.append(statuses(client.answers()[:1]))
    return not any(status.startswith("2") for status in seen), "; ".join(seen)


# Too much


@probe
def long_line(server):
    """A request line of 100 kB is refused"""
    with Client(server) as client:
        with contextlib.suppress(ConnectionError):
            client.ask(f"/seen/{'x' * 100_000}")
        answers = client.answers()
    return bool(answers) and answers[0].status in (400, 414, 431), statuses(answers)


@probe
def many_headers(server):
    """A thousand headers are refused"""
    with Client(server) as client:
        with contextlib.suppress(ConnectionError):
            client.ask("/seen", *(f"X-{number}: 1" for number in range(1000)))
        answers = client.answers()
    return bool(answers) and answers[0].status in (400, 431), statuses(answers)


def refuses_endless(server, start, more):
    """Return whether what goes on for 2 MB is refused, and what was seen."""
    with Client(server) as client:
        with contextlib.suppress(ConnectionError):
            client.send(start)
            for _ in range(200):
                client.send(more * (10_000 // len(more)))
        answers = client.answers()
    if client.is_waited_for and not answers:
        return False, "waits for more"
    return not any(answer.status < 400 for answer in answers), statuses(answers)


@probe
def endless_header(server):
    """A header without an end is refused"""
    return refuses_endless(server, b"GET /ok HTTP/1.1\r\nX-Name: ", b"x")


CHUNKED = f"POST /posted HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


@probe
def endless_extension(server):
    """An extension of a chunk without an end is refused"""
    return refuses_endless(server, CHUNKED + b"5;", b"x")


@probe
def endless_trailers(server):
    """Trailers without an end are refused"""
    return refuses_endless(server, CHUNKED + b"0\r\n", b"X-Name: 1\r\n")


@probe
def large_body(server):
    """A body that is too large is refused before it is sent"""
    status = server.ask("/posted", "Content-Length: 999999999999", method="POST").status
    return status == 413, str(status)


# Slow clients, and those that leave


@probe
def client_that_leaves(server):
    """A stream whose client leaves is closed"""
    with Client(server) as client:
        client.ask("/endless")
        client.file.read(1000)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: server.text("/left") == "True", 5)
        return True, "closed"
    return False, "goes on"


@probe
def clients_that_leave(server):
    """A hundred clients that leave at once, or without reading, are no matter"""
    for number in range(100):
        with Client(server) as client:
            if number % 3 == 0:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if number % 2 == 0:
                client.ask("/large")
    return held_up(server)


def held_up(server):
    """Return whether somebody else is answered soon, even on a busy machine, and after how many seconds."""
    start = time.monotonic()
    answer = server.text("/ok", 30)
    seconds = time.monotonic() - start
    return answer == "ok" and seconds < 2, f"{seconds:.1f} s" if answer == "ok" else "over 30 s"


@contextlib.contextmanager
def clients(server, count=2 * THREADS):
    """Connect as many clients; close their connections."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Client(server)) for _ in range(count)]


@behind_proxy
def silent_clients(server):
    """Eight connections on which nothing is sent hold up nobody"""
    with clients(server):
        return held_up(server)


@behind_proxy
def half_sent_headers(server):
    """Eight half-sent headers hold up nobody"""
    with clients(server) as slow:
        for client in slow:
            client.send(f"GET /ok HTTP/1.1\r\nHost: {HOST}\r\nX-Na".encode())
        time.sleep(0.5)
        return held_up(server)


@behind_proxy
def half_sent_bodies(server):
    """Eight half-sent bodies hold up nobody"""
    with clients(server) as slow:
        for client in slow:
            client.ask("/posted", "Content-Length: 100", method="POST")
            client.send(b"half")
        time.sleep(0.5)
        return held_up(server)


@probe
def given_up(server):
    """A request that is half sent is given up"""
    with clients(server, 2) as (first, second):
        first.send(b"GET /ok HTTP/1.1\r\nX-Na")
        second.ask("/posted", "Content-Length: 100", method="POST")
        start = time.monotonic()
        for client in (first, second):
            client.socket.settimeout(15)
            client.answers()
    if first.is_waited_for or second.is_waited_for:
        return False, "waits for more"
    return True, f"after {time.monotonic() - start:.1f} s"


@behind_proxy
def answers_not_read(server):
    """Eight large answers that are not read hold up nobody"""
    with clients(server) as slow:
        for client in slow:
            client.ask("/large")
        time.sleep(0.5)
        return held_up(server)


@behind_proxy
def connections_not_closed(server):
    """Eight clients that leave their connections open after the last answer hold up nobody"""
    with clients(server) as slow:
        for client in slow:
            client.ask("/ok", "Connection: close")
        time.sleep(0.5)
        return held_up(server)


# Threads, their contexts and their connections


@probe
def context_of_a_thread(server):
    """The requests of a thread share a context, where Django keeps connections of caches"""
    seen = {tuple(text.split()) for text in server.texts("/cache", 40)}
    threads = {thread for thread, _ in seen}
    return len(seen) == len(threads) <= THREADS, f"{len(seen)} in {len(threads)} threads"


@probe
def context_of_a_request(server):
    """What a request sets in its context is there while its stream is sent"""
    texts = set(server.texts("/context", 12))
    return texts == {"True"}, "there" if texts == {"True"} else ", ".join(sorted(texts))


@probe
def persistent_connections(server):
    """Each thread keeps its connection to PostgreSQL"""
    connections = set(server.texts("/query", 40))
    return len(connections) <= THREADS, f"{len(connections)} connections"


@own
def idle_threads(server):
    """Threads that come and go leave no connections to PostgreSQL behind"""
    server.start(server.kind.idle)
    for _ in range(3):
        server.texts("/query", 20)
        time.sleep(7)
    sessions = int(server.text("/sessions"))
    return sessions <= THREADS + 1, f"{sessions} connections"  # the one more belongs to the deadline of requests


# Life and death


@own
def drain(server):
    """SIGTERM: the request that runs is answered, and the process ends with status 0"""
    server.start()
    with Client(server, 30) as client:
        client.ask("/slow?seconds=2")
        time.sleep(0.5)
        server.process.terminate()
        body = client.answer().body.decode()
    status = server.process.wait(40)
    return (body, status) == ("done", 0), f"{body}, status {status}"


@own
def reload(server):
    """SIGHUP under load: new code, and no request fails or waits for a second"""
    server.start()
    with Load(server) as load:
        server.release.write_text('RELEASE = "2"\n')
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: load.answers["2"] > 10, 30)
        time.sleep(3)
    return load.seen()


@own
def reload_of_broken_code(server):
    """SIGHUP with code that does not start: the old code serves on, and the next SIGHUP brings the new"""
    server.start()
    server.release.write_text("1 / 0\n")
    server.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 8
    texts = set()
    while time.monotonic() < end:
        texts.add(server.text("/release", 2))
        time.sleep(0.05)
    if texts != {"1"}:
        return False, ", ".join(sorted(texts))
    server.release.write_text('RELEASE = "2"\n')
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.text("/release") == "2", 30)
    return True, "served on"


@own
def recycling(server):
    """A worker that is replaced now and then under load: no request fails or waits for a second"""
    server.start(server.kind.recycle)
    worker = server.worker()
    with Load(server) as load:
        server.wait_for_another(worker, 90)
        time.sleep(2)
    return load.seen()


@own
def killed_worker(server):
    """A worker that is killed is replaced"""
    server.start()
    worker = server.worker()
    start = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    server.wait_for_another(worker)
    return True, f"{time.monotonic() - start:.1f} s"


@own
def killed_parent(server):
    """A parent that is killed leaves no process behind, and the address free"""
    server.start()
    processes = psutil.Process(server.process.pid).children(recursive=True)
    server.process.kill()
    server.process.wait()
    _, left = psutil.wait_procs(processes, 20)
    return not left, f"{len(left)} processes left"


@own
def hanging_worker(server):
    """A worker that hangs, even one that keeps the interpreter's lock, is replaced"""
    server.start(server.kind.hang)
    worker = server.worker()
    start = time.monotonic()
    with Client(server) as client:
        client.ask("/hang")
        server.wait_for_another(worker, 20)
    return True, f"{time.monotonic() - start:.1f} s"


@own
def stacks_of_a_hanging_worker(server):
    """A worker that hangs leaves the stacks of its threads in the log"""
    server.start(server.kind.hang)
    with Client(server) as client:
        client.ask("/hang")
        wait_until(lambda: "in hang" in server.log.read_text(), 20)
    return True, "in the log"


# The command


def outcome(probe, server):
    """Return whether a probe passed, and what was seen."""
    try:
        passed, seen = probe(server)
    except AssertionError as error:  # of wait_until()
        passed, seen = False, str(error)
    except (OSError, ValueError, KeyError) as error:
        passed, seen = False, type(error).__name__
    return bool(passed), seen


def outcomes(server, only=""):
    """Yield the sentence and the outcome of each probe with a text in its sentence."""
    shared = [probe for probe in SHARED if only in probe.__doc__]
    for probe in shared:
        if not server.is_up():  # the first, or one that made an end of it, must not spoil the next
            server.stop()
            server.start()
        yield probe.__doc__, *outcome(probe, server)
    for probe in OWN:
        server.stop()
        if only in probe.__doc__:
            yield probe.__doc__, *outcome(probe, server)
    server.stop()


def install(kind, project, folder):
    """Return the folder of the programs, in an environment with what the project and the server require."""
    if not kind.install:
        return project.path / ".venv" / "bin"
    venv = folder / "venv"
    pip = ["uv", "pip", "install", "--quiet", "--python", venv]
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, venv], check=True)
    subprocess.run([*pip, "--require-hashes", "-r", project.path / "requirements.txt"], check=True)
    subprocess.run([*pip, *shlex.split(kind.install)], check=True)
    return venv / "bin"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--server", action="append", choices=SERVERS, default=[], help="gunicorn, as shipped, by default"
    )
    parser.add_argument("--command", help="of another server: {bind} or {host} and {port}, {application}, {options}")
    parser.add_argument("--install", default="", help="what that command needs from PyPI")
    parser.add_argument("--only", default="", help="run the probes whose names or sentences have this text in them")
    arguments = parser.parse_args()
    kinds = {name: SERVERS[name] for name in arguments.server}
    if arguments.command:
        kinds[arguments.command.split()[0]] = Kind(arguments.command, arguments.install)
    kinds = kinds or {"gunicorn": SERVERS["gunicorn"]}

    with tempfile.TemporaryDirectory(prefix="servers-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # where root runs this, PostgreSQL is another user's
        cookiecutter = Path(sys.executable).with_name("cookiecutter")
        subprocess.run([cookiecutter, "--no-input", "-o", folder, ROOT], check=True, stdout=subprocess.DEVNULL)
        project = Project(folder / "my_project")
        project.run("make", "setup")
        table = {}
        with project.database() as url:
            for name, kind in kinds.items():
                (folder / name).mkdir()
                programs = install(kind, project, folder / name)
                environment = project.configure(folder / name, **CONFIG, DATABASE_URL=url)
                project.manage("migrate", **environment)
                server = Server(kind, project, folder / name, environment, programs)
                for sentence, passed, seen in outcomes(server, arguments.only):
                    table.setdefault(sentence, []).append(f"{'yes' if passed else '**no**'}: {seen}")
                    print(f"{name}: {sentence}: {table[sentence][-1]}", file=sys.stderr)
    print("|", " | ".join(["", *kinds]), "|")
    print("|---" * (len(kinds) + 1) + "|")
    for sentence, cells in table.items():
        print("|", " | ".join([sentence, *cells]), "|")


if __name__ == "__main__":
    main()
