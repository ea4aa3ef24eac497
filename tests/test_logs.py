"""What a deployed project says about its requests: a real gunicorn, its lines read from a pipe and parsed."""

import contextlib
import itertools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import servers
import test_server as server
import urllib3
from conftest import clean_environment, free_port
from servers import wait_until

HOST = "example.com"
SECRET = "hunter2"
WORD = "b\u00f6se \u2603"

# What the tests need to happen, added to the copy of the project.
VIEWS = """

import logging

from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render

from .accounts.models import User

logger = logging.getLogger("shop")


def plain(request, pk=None):
    return HttpResponse("plain")


plain.csrf_exempt = True


def query(seconds=0, parameter=""):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s), %s", [seconds, parameter])  # sent here
        return cursor.fetchall()


def slow(request):
    return HttpResponse(query(0.06, request.GET["password"]))


def slow_template(request):
    rows = User.objects.raw("SELECT 1 AS id FROM pg_sleep(0.06)")
    return render(request, "slow.html", {"rows": rows})


def broken(request):
    raise ValueError(f"{request.GET['word']}\\nsecond line")


def logged(request, size):
    logger.warning("<%s>", request.GET["letter"] * size, extra={"order": size})
    return HttpResponse("logged")


def info(request, number):
    for index in range(number):
        logger.info("line %d", index)
    return HttpResponse("info")


def mixed(request, number):
    for index in range(number):
        query(0.001)
        cache.get_many([f"missing-{number}-{index}", "present"])
        logger.info("%d " % number * (3000 if index == 0 else 10))
    return HttpResponse("mixed")


def stream(request):
    def rows():
        for index in range(3):
            query(0.02)
            yield b"row"

    return StreamingHttpResponse(rows())


def half(request):
    logger.info("half \\udce4", extra={"odd": object()})
    return HttpResponse("half")


urlpatterns += [
    path("plain/", plain),
    path("plain/<int:pk>/", plain),
    path("posted/", lambda request: HttpResponse(str(request.POST))),
    path("slow/", slow),
    path("slow-template/", slow_template),
    path("broken/", broken),
    path("logged/<int:size>/", logged),
    path("info/<int:number>/", info),
    path("mixed/<int:number>/", mixed),
    path("stream/", stream),
    path("half/", half),
    path("present/", lambda request: HttpResponse(cache.set("present", 1))),
]
"""


class Site:
    """gunicorn with its output in a pipe, which a thread reads in small pieces."""

    def __init__(self, project, environment):
        self.port, self.output, self.pause = free_port(), b"", 0
        self.process = subprocess.Popen(
            [project.python, "deploy/web.py", "--bind", f"127.0.0.1:{self.port}"],
            cwd=project.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.pool = urllib3.HTTPConnectionPool("127.0.0.1", self.port, maxsize=16, retries=False, timeout=30)
        self.until(lambda: self.probe().status == 200)

    def read(self):
        while data := self.process.stdout.read(4096):
            self.output += data
            time.sleep(self.pause)

    def until(self, condition, seconds=20):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if found := condition():
                    return found
            except urllib3.exceptions.HTTPError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"no success in {seconds} s:\n{self.output.decode(errors='replace')[-3000:]}")

    def probe(self):
        return self.pool.request("GET", "/livez", headers={"Host": "10.0.0.1"})

    def get(self, path, method="GET", body=None, **headers):
        headers = {"Host": HOST, "X-Forwarded-Proto": "https"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.pool.request(method, path, body=body, headers=headers, redirect=False)

    def lines(self):
        """Return all lines as objects: every byte that came must be part of one."""
        return [json.loads(line) for line in self.output.splitlines(keepends=True) if line.endswith(b"\n")]

    def line(self, response):
        """Return the line of the request that was answered, without what differs each time, and those before it."""
        request_id = response.headers["X-Request-ID"]
        mine = lambda: [line for line in self.lines() if line.get("request_id") == request_id]  # noqa: E731
        self.until(lambda: any("ms" in line and "status" in line for line in mine()))
        *before, last = mine()
        return last, before

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(40)
        self.reader.join(10)


@pytest.fixture(scope="module")
def statsd():
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        yield server


@pytest.fixture(scope="module")
def served(default_project, tmp_path_factory):
    """A copy of the project with VIEWS, its database, and environment() for its processes."""
    folder = tmp_path_factory.mktemp("logged")
    project = default_project.copy(folder)
    path = project.path
    with (path / path.name / "urls.py").open("a") as urls:
        urls.write(VIEWS)
    (path / path.name / "templates" / "slow.html").write_text("<p>\n{% for row in rows %}x{% endfor %}\n")

    with project.database() as url:

        def environment(**more):
            config = tmp_path_factory.mktemp("config")
            values = {"ALLOWED_HOSTS": [HOST], "DATABASE_URL": url, "WORKERS": 2, "TRUSTED_PROXIES": ["127.0.0.1"]}
            return clean_environment(**project.configure(config, **values | more))

        project.environment = environment
        project.manage("migrate", **environment())
        project.manage("collectstatic", "--no-input", **environment())
        yield project


@pytest.fixture(scope="module")
def site(served):
    site = Site(served, served.environment())
    yield site
    site.stop()


def test_success(site):
    before = time.time()
    line, others = site.line(site.get("/plain/5/"))

    assert others == []
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("time"))
    assert 0 <= line.pop("ms") < (time.time() - before) * 1000
    assert re.fullmatch("[0-9a-f]{32}", line.pop("request_id"))
    assert re.fullmatch(r"GET /plain/<int:pk>/ 200 in \d+ ms, 0 SQL in 0 ms", line.pop("message"))
    assert os.path.exists(f"/proc/{line.pop('process')}") or not os.path.exists("/proc")
    assert line == {
        "level": "info",
        "logger": "my_project.scaling.logs.request_log",
        "method": "GET",
        "route": "/plain/<int:pk>/",
        "status": 200,
        "queries": 0,
        "cache_queries": 0,
        "database_ms": 0.0,
        "cache_hits": 0,
        "cache_misses": 0,
    }


def test_not_found(site):
    line, others = site.line(site.get("/nowhere/?page=2"))

    assert (line["status"], line["route"], line["path"], line["level"]) == (404, None, "/nowhere/", "info")
    assert others == []


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/plain/", {"X_Forwarded_Proto": "http"}, 301), ("/plain/", {"Host": "other.example"}, 400)],
    ids=["redirect", "bad host"],
)
def test_answers_of_other_middlewares(site, path, headers, status):
    line, _ = site.line(site.get(path, **headers))

    assert (line["status"], line["route"], line["path"]) == (status, None, path)


def test_exception(site):
    line, (error,) = site.line(site.get(f"/broken/?word={WORD}"))

    assert (line["status"], line["route"], line["path"]) == (500, "/broken/", "/broken/")
    assert (error["level"], error["logger"]) == ("error", "django.request")
    assert error["message"] == "Internal Server Error: /broken/"
    assert error["exception"].startswith("Traceback (most recent call last):\n")
    assert error["exception"].endswith(f"\nValueError: {WORD}\nsecond line")


def test_slow_query(site, served):
    lines = (served.package / "urls.py").read_text().splitlines()
    (number,) = (number for number, text in enumerate(lines, 1) if "sent here" in text)

    line, (slow,) = site.line(site.get(f"/slow/?password={SECRET}"))

    assert slow["level"] == "warning"
    assert slow["code"] == f"my_project/urls.py:{number} query"
    assert slow["sql"] == "SELECT pg_sleep(%s), %s"
    assert slow["message"] == f"Slow query: {slow['ms']:.0f} ms, {slow['code']}"
    assert 60 <= slow["ms"] <= line["database_ms"] + 0.1 <= line["ms"] + 0.2
    assert line["queries"] == 1


def test_slow_query_of_a_template(site):
    _, (slow,) = site.line(site.get("/slow-template/"))

    assert slow["code"] == "slow.html:2"


def test_stream(site):
    line, _ = site.line(site.get("/stream/"))

    assert line["queries"] == 3
    assert line["database_ms"] >= 60
    assert line["ms"] >= line["database_ms"]


@pytest.mark.parametrize("given", ["a1b2c3d4", "0f8fad5b-d9cb-469f-a165-70867728950e", "x" * 64])
def test_request_id(site, given):
    response = site.get("/plain/", X_Request_ID=given)

    assert response.headers["X-Request-ID"] == given
    assert site.line(response)[0]["status"] == 200


@pytest.mark.parametrize("given", ["", "short", "x" * 65, 'a1b2c3d4", "forged": "', "a1b2c3d4 e5", "a1b2c3d\u00e4"])
def test_malformed_request_id(site, given):
    response = site.get("/plain/", X_Request_ID=given)

    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


def test_secrets(site):
    secret = {"Cookie": f"sessionid={SECRET}", "Authorization": f"Bearer {SECRET}"}
    for path in ("/plain/", "/nowhere/", "/broken/", "/admin/", "/plain"):
        site.get(f"{path}?password={SECRET}&word=x", **secret)
    site.get(f"/plain/?password={SECRET}", Host="other.example", **secret)
    form = {"Content_Type": "application/x-www-form-urlencoded", "body": f"password={SECRET}", "method": "POST"}
    site.get("/plain/", **form, **secret)
    site.get("/broken/", **form, **secret)
    site.get("/posted/", **form, **secret, Referer=f"https://other.example/?password={SECRET}")
    for request in (
        f"GET /?password=my {SECRET} HTTP/1.1\r\n\r\n",
        f"GET / HTTP/1.1\r\nCookie: {SECRET}\x01\r\n\r\n",
        f"GET / HTTP/1.1\r\nCookie : {SECRET}\r\n\r\n",
        f"GET / HTTP/1.1\r\nA: b\r\n Cookie: {SECRET}\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", site.port)) as client:
            client.sendall(request.encode())
            assert b"400" in client.recv(1000)
    site.line(site.get("/plain/"))

    site.until(lambda: sum(line["message"].startswith("Invalid request from ip") for line in site.lines()) >= 4)
    assert any("Referer checking failed" in line["message"] for line in site.lines())
    assert SECRET.encode() not in site.output


@pytest.mark.parametrize("letter", ["x", "\u2603"])
def test_message_of_a_megabyte(site, letter):
    _, (line,) = site.line(site.get(f"/logged/{1 << 20}/?letter={letter}"))

    assert line["message"].startswith(f"<{letter}{letter}")
    assert line["message"].endswith(f"{letter}>")
    assert f" {(1 << 20) + 2 - 4000} characters " in line["message"]
    assert line["order"] == 1 << 20


def test_text_that_is_not_utf8(site):
    _, (line,) = site.line(site.get("/half/"))

    assert line["message"] == "half \udce4"
    assert line["odd"].startswith("<object object")


def test_concurrent_requests(site):
    """Neither figures nor lines mix; the reader of the pipe is slow, so that writers wait in the midst of a line."""
    site.get("/present/")
    site.pause = 0.002
    with ThreadPoolExecutor(12) as clients:
        numbers = [1 + index % 9 for index in range(300)]
        answers = list(clients.map(lambda number: site.get(f"/mixed/{number}/", Connection="close"), numbers))
    site.pause = 0

    for number, answer in zip(numbers, answers, strict=True):
        line, others = site.line(answer)
        # Each look into the cache is a statement of its own.
        figures = (line["queries"], line["cache_queries"], line["cache_hits"], line["cache_misses"])
        assert figures == (number, number, number, number)
        texts = [other["message"] for other in others if other["logger"] == "shop"]
        assert len(texts) == number
        assert {part for text in texts for part in text.split()} == {str(number)}
    assert len({line["process"] for line in site.lines() if line.get("route") == "/mixed/<int:number>/"}) == 2


def test_probes_are_not_logged(site):
    site.probe()
    site.line(site.get("/plain/"))

    assert b"livez" not in site.output


def test_gunicorn_logs_in_the_same_format(site):
    messages = [line["message"] for line in site.lines() if line["logger"] == "gunicorn.error"]

    assert any(message.startswith("Listening at: ") for message in messages)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux, whose limits a test can change from outside")
def test_full_disk(served, tmp_path):
    """The worker may write no more bytes to its file for a while, which cuts off a line; then it may again.

    Lines wait meanwhile, as many as MAX_LINES; how many more there were is logged.
    """
    log = tmp_path / "log"
    site = server.Site(served, served.environment(WORKERS=1), log).wait()
    try:
        (worker,) = servers.workers(site)
        site.get("/plain/")
        before = log.stat().st_size
        unlimited = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (before + 5000, unlimited[1]))
        answers = [site.get("/plain/") for _ in range(100)]
        wait_until(lambda: log.stat().st_size == before + 5000)
        site.get("/logged/5/?letter=x")  # one that would not wait
        site.get("/info/1500/")
        kept = log.stat().st_size
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, unlimited)
        wait_until(lambda: "were dropped" in log.read_text())
        later = site.get("/plain/")
        wait_until(lambda: later.headers["X-Request-ID"] in log.read_text())
    finally:
        site.stop()

    assert kept == before + 5000
    lines = []
    for line in log.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # the one that was cut off, which comes again
            lines.append(json.loads(line))
    ids = Counter(line.get("request_id") for line in lines if line.get("route") == "/plain/")
    assert [ids[answer.headers["X-Request-ID"]] for answer in answers] == [1] * 100
    assert sum(line["message"] == "<xxxxx>" for line in lines) == 1
    (report,) = [line for line in lines if "were dropped" in line["message"]]
    dropped = int(re.match("[0-9]+", report["message"])[0])
    assert report["level"] == "error"
    assert "File too large" in report["message"]
    assert sum(line["message"].startswith("line ") for line in lines) + dropped == 1500 + 1  # and the request's own
    assert 500 < dropped < 1000


def test_pipe_that_nobody_reads(served, tmp_path):
    """A program that collects the log and hangs takes nothing else along; when it goes on, it gets each line, whole."""
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    text = b""
    site = server.Site(served, served.environment(WORKERS=1), pipe).wait()
    try:
        slowest, answers = 0, []
        for path in ["/plain/"] * 500 + ["/logged/5/?letter=x", "/livez"]:  # the last but one waits for no others
            start = time.monotonic()
            answers.append(site.get(path))
            slowest = max(slowest, time.monotonic() - start)
        *answers, _, live = answers
        ids = [answer.headers["X-Request-ID"].encode() for answer in answers]
        os.set_blocking(reader, False)
        deadline = time.monotonic() + 10
        while not all(id in text for id in ids) and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                text += os.read(reader, 1_000_000)
    finally:
        site.stop()
        os.close(reader)

    assert {answer.status for answer in [*answers, live]} == {200}
    assert slowest < 1
    assert len(text) > 65_536  # what a pipe holds
    lines = [json.loads(line) for line in text.splitlines() if line.endswith(b"}") and line.startswith(b"{")]
    found = Counter(line.get("request_id") for line in lines if line.get("route") == "/plain/")
    assert [found[id.decode()] for id in ids] == [1] * 500


def test_end_of_a_process(served):
    """The line of a request is not written at once, but a process that ends right afterwards has written it."""
    ask = f"from django.test import Client; Client(headers={{'Host': '{HOST}'}}).get('/plain/', secure=True)"
    output = served.manage("shell", "--no-imports", "-c", ask, **served.environment()).stdout

    (line,) = map(json.loads, output.splitlines())
    assert (line["route"], line["status"]) == ("/plain/", 200)


def test_metrics(served, statsd):
    address = "{}:{}".format(*statsd.getsockname())
    site = Site(served, served.environment(STATSD_URL=f"udp://{address}"))
    try:
        line, _ = site.line(site.get("/mixed/3/"))
        site.get("/nowhere/")
        datagrams = iter(lambda: statsd.recv(10_000).decode(), "")
        datagram, other = itertools.islice((text for text in datagrams if text.startswith("request.")), 2)
    finally:
        site.stop()

    labels = "#route:/mixed/<int:number>/,status:2xx"
    assert datagram.splitlines() == [
        f"request.ms:{line['ms']}|ms|{labels}",
        f"request.database_ms:{line['database_ms']}|ms|{labels}",
        f"request.queries:3|c|{labels}",
        f"request.cache_queries:3|c|{labels}",
        f"request.cache_hits:{line['cache_hits']}|c|{labels}",
        f"request.cache_misses:{line['cache_misses']}|c|{labels}",
    ]
    assert other.splitlines()[0].endswith("|#route:none,status:4xx")


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_metrics_that_nobody_takes(served, host):
    site = Site(served, served.environment(STATSD_URL=f"udp://{host}:{free_port()}"))
    try:
        assert [site.get("/plain/").status for _ in range(20)] == [200] * 20
    finally:
        site.stop()

    assert sum("No metrics" in line["message"] for line in site.lines()) <= 2


def test_development(project, serve):
    with (project.package / "urls.py").open("a") as urls:
        urls.write("\nfrom django.http import JsonResponse\n")
        urls.write('urlpatterns.append(path("json", lambda request: JsonResponse({})))\n')
    server = serve(project)

    timing = server.get("/json?q=1").headers["Server-Timing"]

    assert "SQL" in timing
    expected = re.compile(r"^\d\d:\d\d:\d\d GET /json 200 in \d+ ms, 0 SQL in 0 ms$", re.MULTILINE)
    deadline = time.monotonic() + 10
    while not expected.search(server.log.read_text()) and time.monotonic() < deadline:  # it follows the response
        time.sleep(0.05)
    assert expected.search(server.log.read_text())
    assert '"GET /json' not in server.log.read_text()


def test_development_without_the_toolbar(project, serve):
    local = project.package / "settings" / "local.py"
    local.write_text(local.read_text() + "\nMIDDLEWARE = MIDDLEWARE[1:]\n")

    timing = serve(project).get("/").headers["Server-Timing"]

    assert re.fullmatch(
        r'total;dur=[\d.]+, db;dur=0.0;desc="0 queries", cache;desc="0 hits, 0 misses, 0 queries"', timing
    )
