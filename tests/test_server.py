"""The rendered project as servers run it: gunicorn, its configuration and the deploy settings, also behind nginx."""

import contextlib
import functools
import getpass
import http.client
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import application_servers
import psutil
import pytest
import servers
import urllib3
from conftest import Server, clean_environment, free_port, needs
from servers import Relay

HOST = "example.com"
HASHED = "admin/css/base.css"

# What the tests need to see from outside, added to the copy of the project.
VIEWS = """

import ctypes
import os
import time

from django.http import HttpResponse, JsonResponse, StreamingHttpResponse

from . import config


def seen(request):
    return JsonResponse({"address": request.META["REMOTE_ADDR"], "secure": request.is_secure()})


def slow(request):
    time.sleep(float(request.GET["seconds"]))
    return HttpResponse("done")


def large(request):
    return HttpResponse(b"x" * 20_000_000)


def hang(request):
    ctypes.PyDLL(None).sleep(30)  # and lets no other thread of the process run


def posted(request):
    return HttpResponse(str(len(request.body)))


def streamed(request):
    return StreamingHttpResponse([b"x" * 1000] * 50)


posted.csrf_exempt = streamed.csrf_exempt = True
urlpatterns += [
    path("seen", seen),
    path("slow", slow),
    path("large", large),
    path("ok", lambda request: HttpResponse("ok")),
    path("posted", posted),
    path("streamed", streamed),
    path("hang", hang),
    path("release", lambda request: HttpResponse(getattr(config, "RELEASE", "1"))),
]
time.sleep(float(os.environ.get("SLOW_START", 0)))
"""


class Site:
    """gunicorn with the project's configuration, and what a client or a load balancer asks of it."""

    def __init__(self, project, environment, log, *options, bind=None):
        self.port = free_port()
        self.log = log
        self.command = [
            *(project.python, "deploy/web.py", "--bind", bind or f"127.0.0.1:{self.port}"),
            *options,
        ]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                self.command, cwd=project.path, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self.pool = urllib3.HTTPConnectionPool("127.0.0.1", self.port, maxsize=16, retries=False, timeout=30)

    def request(self, method, path, host=HOST, body=None, **headers):
        headers = {"Host": host, "X-Forwarded-Proto": "https"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.pool.request(method, path, body=body, headers=headers, redirect=False)

    def get(self, path, **headers):
        return self.request("GET", path, **headers)

    def probe(self, path):
        return self.pool.request("GET", path, headers={"Host": "10.0.0.1"}, redirect=False)

    def wait(self, seconds=20):
        wait_until(lambda: self.probe("/livez").status == 200, self, seconds)
        return self

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.process.wait(40)


class Nginx:
    """nginx with a project's nginx.conf before gunicorn's socket in a folder, or before a port.

    The file is changed for this machine: other ports, other folders, what `changes` says, all else as it is.
    """

    def __init__(self, project, folder, changes, port=None):
        nginx = needs("nginx", "nginx-light")
        self.folder, self.http, self.https, self.purging = folder, free_port(), free_port(), free_port()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
        changes = {
            "user nginx;": f"user {getpass.getuser()};",
            "http {": f"http {{ {temporary}",
            "/run/nginx.pid": f"{folder}/nginx.pid",
            "/var/log/nginx/": f"{folder}/",
            "/var/cache/nginx-my_project": f"{folder}/pages",
            "unix:/run/my_project/web1.sock": f"127.0.0.1:{port}" if port else f"unix:{folder}/run/gunicorn.sock",
            "unix:/run/my_project/web2.sock": f"127.0.0.1:{port}" if port else f"unix:{folder}/run/gunicorn.sock",
            "/etc/letsencrypt/live/example.com/": f"{folder}/",
            "/srv/my_project/staticfiles": f"{project.path}/staticfiles",
            "listen 8090": f"listen 127.0.0.1:{self.purging}",
            "listen 80": f"listen 127.0.0.1:{self.http}",
            "listen 443": f"listen 127.0.0.1:{self.https}",
            "listen [::]:80": f"listen [::1]:{self.http}",
            "listen [::]:443": f"listen [::1]:{self.https}",
            "127.0.0.1:8090": f"127.0.0.1:{self.purging}",
        } | changes
        text = (project.path / "deploy" / "nginx.conf").read_text()
        for original, replacement in changes.items():
            assert original in text, original
            text = text.replace(original, replacement)
        if not has_ipv6():
            text = "\n".join(line for line in text.splitlines() if "[::1]" not in line)
        conf = folder / "nginx.conf"
        conf.write_text(text)
        checked = subprocess.run([nginx, "-t", "-c", conf], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        assert "[emerg]" not in checked.stderr
        self.process = subprocess.Popen([nginx, "-c", conf, "-g", "daemon off;"])
        servers.wait_until(lambda: servers.listens(self.https))
        self.plain = urllib3.HTTPConnectionPool("127.0.0.1", self.http, retries=False, timeout=30)
        self.pool = over_tls("127.0.0.1", self.https, folder)

    def ask(self, path, method="GET", headers=None):
        return self.pool.request(method, path, headers={"Host": HOST} | (headers or {}), redirect=False)

    def kept(self):
        """Return all pages that are kept, with their headers, by their keys."""
        files = [file.read_bytes() for file in (self.folder / "pages").rglob("*") if file.is_file()]
        return {re.search(rb"\nKEY: (.*)\n", data)[1].decode(): data for data in files}

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Proxied(Site):
    """The same behind nginx with the project's nginx.conf: on a Unix socket, over TLS."""

    def __init__(self, project, environment, folder, changes=None):
        self.folder = folder
        super().__init__(project, environment, folder / "gunicorn.log", bind=f"unix:{folder / 'run/gunicorn.sock'}")
        self.nginx = Nginx(project, folder, changes or {})
        self.plain, self.pool, self.http, self.https = (
            getattr(self.nginx, name) for name in ("plain", "pool", "http", "https")
        )

    def probe(self, path):
        return self.plain.request("GET", path, headers={"Host": "10.0.0.1"})

    def stop(self, number=signal.SIGINT):
        status = super().stop(number)
        self.nginx.stop()
        return status


# What nginx.conf has in comments, for a load balancer on this machine that ends TLS.
BALANCER = {
    "# set_real_ip_from 10.0.0.0/8;": "set_real_ip_from 127.0.0.1;",
    "# 10.0.0.0/8 1;": "127.0.0.1 1;",
}


def certify(folder):
    """Make a certificate for the site in a folder, and the folder of gunicorn's socket."""
    (folder / "run").mkdir()
    names = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    files = ["-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *files]
    subprocess.run(command, check=True, capture_output=True)


def over_tls(address, port, folder):
    """Return connections to a server that has the certificate in a folder."""
    names = {"server_hostname": HOST, "assert_hostname": HOST, "ca_certs": str(folder / "fullchain.pem")}
    return urllib3.HTTPSConnectionPool(address, port, maxsize=16, retries=False, timeout=30, **names)


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def wait_until(condition, site, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            if condition():
                return
        if site.process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"no success in {seconds} s:\n{site.log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def database(database_url):
    """A relay to the PostgreSQL of the default project."""
    relay = Relay(f"{unquote(urlsplit(database_url).hostname)}/.s.PGSQL.5432")
    yield relay
    relay.refuse()


@pytest.fixture(scope="module")
def served(default_project, database, tmp_path_factory):
    """A copy of the project with VIEWS and static files; environment() configures a process of it."""
    folder = tmp_path_factory.mktemp("served")
    project = default_project.copy(folder)
    path = project.path
    with (path / path.name / "urls.py").open("a") as urls:
        urls.write(VIEWS)
    url = f"postgresql://postgres@127.0.0.1:{database.port}/{path.name}"

    def environment(**values):
        config = tmp_path_factory.mktemp("config")
        return clean_environment(
            **project.configure(config, **{"ALLOWED_HOSTS": [HOST], "DATABASE_URL": url, "WORKERS": 2} | values)
        )

    project.environment = environment
    project.manage("migrate", **environment())
    project.manage("collectstatic", "--no-input", **environment())
    project.manifest = json.loads((path / "staticfiles" / "staticfiles.json").read_text())["paths"]
    return project


@pytest.fixture(scope="module")
def direct(served, tmp_path_factory):
    """The site without nginx: the tests are its load balancer."""
    log = tmp_path_factory.mktemp("direct") / "log"
    site = Site(served, served.environment(TRUSTED_PROXIES=["127.0.0.1"]), log).wait()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def proxied(served, tmp_path_factory):
    """The site behind nginx."""
    folder = tmp_path_factory.mktemp("proxied")
    certify(folder)
    site = Proxied(served, served.environment(), folder).wait()
    yield site
    site.stop()


@pytest.fixture(params=["direct", "proxied"])
def site(request):
    return request.getfixturevalue(request.param)


def test_check_deploy_is_silent(served):
    ran = served.manage("check", "--deploy", "--fail-level", "WARNING", **served.environment())

    assert "no issues" in ran.stdout


def test_headers(site):
    response = site.get("/")

    assert response.status == 200
    sent = {name.lower(): value for name, value in response.headers.items()}
    for name in ("date", "connection", "content-length", "content-encoding", "transfer-encoding", "vary"):
        sent.pop(name, None)
    assert re.fullmatch("[0-9a-f]{32}", sent.pop("x-request-id"))
    assert sent.pop("server") in ("gunicorn", "nginx")
    assert sent == {
        "cache-control": "private",
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        "cross-origin-opener-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "referrer-policy": "same-origin",
        "strict-transport-security": "max-age=3600",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }


def test_cookies(site):
    cookie = site.get("/admin/login/").headers["Set-Cookie"]

    assert cookie.startswith("csrftoken=")
    assert "; Secure" in cookie
    assert "; SameSite=Lax" in cookie


def test_plain_http_is_redirected(direct):
    response = direct.get("/admin/?next=1", X_Forwarded_Proto="http")

    assert (response.status, response.headers["Location"]) == (301, f"https://{HOST}/admin/?next=1")


def test_plain_http_is_redirected_by_nginx(proxied):
    response = proxied.plain.request("GET", "/admin/?next=1", headers={"Host": HOST}, redirect=False)

    assert (response.status, response.headers["Location"]) == (301, f"https://{HOST}/admin/?next=1")


@pytest.fixture(scope="module")
def balanced(served, tmp_path_factory):
    """The site behind nginx behind a load balancer at 127.0.0.1 that ends TLS, as nginx.conf says to configure it."""
    folder = tmp_path_factory.mktemp("balanced")
    certify(folder)
    site = Proxied(served, served.environment(), folder, BALANCER).wait()
    yield site
    site.stop()


def test_load_balancer_that_ends_tls(balanced):
    forwarded = {"Host": HOST, "X-Forwarded-For": "203.0.113.9"}

    seen = balanced.plain.request("GET", "/seen", headers=forwarded | {"X-Forwarded-Proto": "https"}, redirect=False)
    plain = balanced.plain.request("GET", "/seen", headers=forwarded | {"X-Forwarded-Proto": "http"}, redirect=False)

    assert (seen.status, seen.json()) == (200, {"address": "203.0.113.9", "secure": True})
    assert (plain.status, plain.headers["Location"]) == (301, f"https://{HOST}/seen")
    assert balanced.get("/seen").json() == {"address": "127.0.0.1", "secure": True}


def test_static_file_behind_a_load_balancer_that_ends_tls(balanced, served):
    headers = {"Host": HOST, "X-Forwarded-Proto": "https"}

    response = balanced.plain.request("GET", f"/static/{served.manifest[HASHED]}", headers=headers, redirect=False)

    assert response.status == 200


@pytest.mark.parametrize("name", ["proxied", "balanced"])
def test_forged_scheme(request, name):
    """Nobody but the load balancer is believed, where there is one, and nobody at all where there is none."""
    site = request.getfixturevalue(name)
    stranger = ("127.0.0.2", 0) if name == "balanced" else None
    connection = http.client.HTTPConnection("127.0.0.1", site.http, timeout=30, source_address=stranger)
    with contextlib.closing(connection):
        connection.request("GET", "/seen", headers={"Host": HOST, "X-Forwarded-Proto": "https"})
        response = connection.getresponse()

    assert (response.status, response.headers["Location"]) == (301, f"https://{HOST}/seen")


def test_challenge_of_a_certificate(proxied):
    """It comes over plain HTTP, before there is a certificate."""
    response = proxied.plain.request("GET", "/.well-known/acme-challenge/x", headers={"Host": HOST}, redirect=False)

    assert response.status == 404  # and no redirect


def test_static_file(site, served):
    response = site.get(f"/static/{served.manifest[HASHED]}", Accept_Encoding="gzip")

    assert response.status == 200
    assert response.headers["Cache-Control"] == "max-age=315360000, public, immutable"
    assert response.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in response.headers["Vary"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Set-Cookie" not in response.headers
    assert b"--primary" in response.data


def test_static_file_that_may_change(site):
    assert site.get(f"/static/{HASHED}").headers["Cache-Control"] == "max-age=60, public"


def test_static_file_with_brotli(direct, served):
    assert direct.get(f"/static/{served.manifest[HASHED]}", Accept_Encoding="br").headers["Content-Encoding"] == "br"


def test_live(site):
    response = site.probe("/livez")

    assert (response.status, response.json()) == (200, {"status": "ok", "degraded": []})
    assert response.headers["Cache-Control"] == "no-store"


def test_ready(site):
    assert (site.probe("/readyz").status, site.probe("/readyz").json()) == (200, {"status": "ok", "degraded": []})


def test_health_is_not_public(proxied):
    assert proxied.get("/readyz").status == 404


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_readiness_follows_the_database(site, database, silent):
    database.flowing.clear() if silent else database.refuse()
    try:
        time.sleep(1.1)  # an answer serves for a second
        started = time.monotonic()
        threads = [Answer(site.probe, "/readyz") for _ in range(4)]
        answers = [thread.answer() for thread in threads]
        took = time.monotonic() - started

        assert [answer.status for answer in answers] == [503] * 4
        assert answers[0].json() == {"status": "unavailable", "degraded": ["database"]}
        assert took < 4
        assert site.probe("/livez").status == 200
        assert site.get("/").status == 200
    finally:
        database.flowing.set() if silent else database.open()
    wait_until(lambda: site.probe("/readyz").status == 200, site, 5)


class Answer(threading.Thread):
    """A call on a thread of its own."""

    def __init__(self, function, *arguments, **options):
        super().__init__(daemon=True)
        self.call = lambda: function(*arguments, **options)
        self.start()

    def run(self):
        self.value = self.call()

    def answer(self, seconds=30):
        self.join(seconds)
        return self.value


def test_client_address(site):
    forwarded = {"X_Forwarded_For": "203.0.113.9"} if type(site) is Site else {}

    seen = site.get("/seen", **forwarded).json()

    assert seen == {"address": "203.0.113.9" if forwarded else "127.0.0.1", "secure": True}


def test_forged_client_address(site):
    """The proxy appends who it heard from; a test that is the proxy itself does so, too."""
    forged, address = "192.0.2.66", "127.0.0.1"
    if type(site) is Site:
        forged, address = "192.0.2.66, 203.0.113.9", "203.0.113.9"

    assert site.get("/seen", X_Forwarded_For=forged).json()["address"] == address


def test_headers_of_a_client_that_is_no_proxy(served, tmp_path):
    site = Site(served, served.environment(TRUSTED_PROXIES=["192.0.2.0/24"], HTTPS=False), tmp_path / "log").wait()
    try:
        seen = site.get("/seen", X_Forwarded_For="192.0.2.66", X_Forwarded_Proto="https").json()
    finally:
        site.stop()

    assert seen == {"address": "127.0.0.1", "secure": False}


def test_unknown_host(direct):
    assert direct.get("/", host="other.example").status == 400
    assert direct.probe("/readyz").status == 200


def test_unknown_host_at_nginx(proxied):
    with pytest.raises(urllib3.exceptions.ProtocolError):
        proxied.get("/", host="other.example")
    with pytest.raises(urllib3.exceptions.ProtocolError):
        proxied.plain.request("GET", "/", headers={"Host": "other.example"})
    with socket.create_connection(("127.0.0.1", proxied.https)) as connection, pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(connection, server_hostname="other.example")


def test_oversized_body(site):
    response = site.request("POST", "/posted", body=b"x" * (11 << 20))

    assert response.status == 413
    assert b"<h1>Too large</h1>" in response.data


def test_oversized_form(site):
    assert site.request("POST", "/posted", body=b"x" * (2 << 20)).status == 400


@pytest.mark.parametrize(("path", "status"), [("/ok", 403), ("/streamed", 200)])
def test_body_that_no_view_reads(site, path, status):
    """Such as one refused before the form was read: gunicorn must not close what nginx still writes to."""
    answers = {site.request("POST", path, body=b"x" * (9 << 20)).status for _ in range(20)}

    assert answers == {status}


def test_body(site):
    assert site.request("POST", "/posted", body=b"x" * (1 << 19)).data == b"524288"


def test_oversized_header(site):
    assert site.get("/", X_Large="x" * 40_000).status in (400, 431)


def test_slow_clients_behind_nginx(proxied):
    context = ssl.create_default_context(cafile=proxied.folder / "fullchain.pem")
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", proxied.https)))
            client = stack.enter_context(context.wrap_socket(client, server_hostname=HOST))
            client.sendall(b"GET / HTTP/1.1\r\n")
        started = time.monotonic()
        assert [proxied.get("/").status for _ in range(10)] == [200] * 10
        assert time.monotonic() - started < 5  # in gunicorn, they would hold all threads for nginx's 10 s


class Load:
    """Clients that ask without a pause until they are told to stop."""

    def __init__(self, site, path="/", clients=4):
        self.answers = []
        self.worst = 0
        self.stopped = threading.Event()
        self.threads = [Answer(self.ask, site, path) for _ in range(clients)]

    def ask(self, site, path):
        while not self.stopped.is_set():
            started = time.monotonic()
            try:
                response = site.get(path)
                self.worst = max(self.worst, time.monotonic() - started)
                self.answers.append((response.status, response.data))
            except Exception as error:
                self.answers.append((0, repr(error)))

    def failures(self):
        self.stopped.set()
        for thread in self.threads:
            thread.answer()
        return [answer for answer in self.answers if answer[0] != 200]


def test_sigterm_under_load(served, tmp_path):
    site = Site(served, served.environment(TRUSTED_PROXIES=["127.0.0.1"]), tmp_path / "log").wait()
    load = Load(site)
    time.sleep(0.5)

    site.process.terminate()
    wait_until(lambda: site.probe("/readyz").status == 503, site, 1)
    assert site.probe("/readyz").json()["degraded"] == ["draining"]
    turned = len(load.answers)
    time.sleep(3)
    assert len(load.answers) > turned
    last = Answer(site.get, "/slow?seconds=4")
    time.sleep(0.5)

    assert load.failures() == []
    assert last.answer().data == b"done"
    assert site.process.wait(20) == 0


def test_ctrl_c_is_left_to_the_parent(served, tmp_path):
    """A terminal sends SIGINT to all processes: gthread, told twice at once, waits for itself until it is killed."""
    site = Site(served, served.environment(), tmp_path / "log").wait()
    try:
        wait_until(lambda: len(servers.workers(site)) == 2, site, 10)
        time.sleep(2)  # gunicorn says of no worker when it has started
        running = servers.workers(site)
        for worker in running:
            worker.send_signal(signal.SIGINT)
        time.sleep(0.5)

        assert servers.workers(site) == running
    finally:
        site.stop()


def test_sighup_under_load(served, tmp_path, record_property, matrix):
    """Another gunicorn takes over with new code, and nobody waits; one that does not start changes nothing."""
    site = Site(served, served.environment(TRUSTED_PROXIES=["127.0.0.1"]), tmp_path / "log").wait()
    load = Load(site, "/release")
    time.sleep(0.5)
    config = served.package / "config.py"
    original = config.read_text()
    try:
        config.write_text(original + '\nraise RuntimeError("broken")\n')
        site.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the one before goes on serving" in site.log.read_text(), site, 20)

        config.write_text(original + '\nRELEASE = "2"\n')
        site.process.send_signal(signal.SIGHUP)
        wait_until(lambda: site.get("/release").data == b"2", site, 20)
        time.sleep(3)
        assert load.failures() == []
        assert load.answers[0] == (200, b"1")
        assert load.answers[-1] == (200, b"2")
        record_property("Reload under load", f"{len(load.answers)}×200, the slowest {load.worst:.2f} s")
        matrix("gunicorn: replaced", Counter(status for status, _ in load.answers), load.worst)
        assert [worker.parent().ppid() for worker in servers.workers(site)] == [site.process.pid] * 2

        site.process.terminate()
        wait_until(lambda: site.probe("/readyz").status == 503, site, 1)
    finally:
        config.write_text(original)
        site.stop()


def test_reload_of_broken_views(served, tmp_path):
    """Views are loaded before a worker counts as ready, and only once: what is on the disk may be another release."""
    site = Site(served, served.environment(TRUSTED_PROXIES=["127.0.0.1"]), tmp_path / "log").wait()
    views = served.package / "accounts" / "views.py"
    original = views.read_text()
    try:
        views.write_text(original + "\nraise RuntimeError('broken')\n")
        wait_until(lambda: len(servers.workers(site)) == 2, site, 10)
        before = servers.workers(site)
        assert site.get("/").status == 200
        site.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the one before goes on serving" in site.log.read_text(), site, 20)
        assert [site.get("/").status for _ in range(8)] == [200] * 8
        for _ in range(5):  # the last one counts
            site.process.send_signal(signal.SIGHUP)
            time.sleep(0.1)
        views.write_text(original)
        site.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(now := servers.workers(site)) == 2 and not {*now} & {*before}, site, 20)
        assert site.get("/").status == 200
    finally:
        views.write_text(original)
        assert site.stop(signal.SIGQUIT) == 0


@pytest.mark.parametrize("output", ["nobody reads", "is full"])
def test_output_that_nobody_takes(served, tmp_path, output):
    """It drains, and a reload that fails changes nothing, as ever."""
    readable, writable = os.pipe()
    if output == "is full":
        os.set_blocking(writable, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writable, bytes(4096))
        os.set_blocking(writable, True)
    port = free_port()
    environment = served.environment(TRUSTED_PROXIES=["127.0.0.1"])
    command = [served.python, "deploy/web.py", "--bind", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, cwd=served.path, env=environment, stdout=writable, stderr=subprocess.DEVNULL)
    if output == "nobody reads":
        os.close(readable)
    os.close(writable)
    pool = urllib3.HTTPConnectionPool("127.0.0.1", port, retries=urllib3.Retry(8, backoff_factor=0.1), timeout=30)
    try:
        assert pool.request("GET", "/livez").status == 200
        config = Path(environment["DJANGO_CONFIG"])
        config.write_text("{}")
        process.send_signal(signal.SIGHUP)
        time.sleep(4)
        assert pool.request("GET", "/livez").status == 200
        process.terminate()
        time.sleep(1)
        assert pool.request("GET", "/readyz", retries=False).json()["degraded"] == ["draining"]
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_address_of_another_server(served, tmp_path, folder):
    """It is not taken from it, and the reason is a sentence."""
    address = f"unix:{folder / 'socket'}"
    site = Site(served, served.environment(), tmp_path / "log", bind=address)
    command = [served.python, "deploy/web.py", "--bind"]
    try:
        wait_until(lambda: "Booting worker" in site.log.read_text(), site, 20)
        for bind, reason in {
            address: "another process listens there",
            "127.0.0.1": "expected HOST:PORT",
            "unix:/no/such/folder/socket": "No such file or directory",
        }.items():
            ran = subprocess.run([*command, bind], cwd=served.path, capture_output=True, text=True, check=False)
            assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
            assert f"--bind {bind}: " in ran.stderr
            assert reason in ran.stderr
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "socket"))
    finally:
        site.stop()


def test_reload_of_a_config_that_is_refused(served, tmp_path):
    environment = served.environment(TRUSTED_PROXIES=["127.0.0.1"])
    site = Site(served, environment, tmp_path / "log").wait()
    try:
        config = Path(environment["DJANGO_CONFIG"])
        config.write_text(config.read_text().replace('"WORKERS": 2', '"WORKERS": "two"'))
        site.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the one before goes on serving" in site.log.read_text(), site, 20)
        assert "WORKERS" in site.log.read_text()
        assert site.get("/").status == 200
    finally:
        assert site.stop(signal.SIGQUIT) == 0


def test_reload_while_the_first_one_starts(served, tmp_path):
    """Until another is ready it is the only one that there is, and goes on."""
    environment = served.environment() | {"SLOW_START": "4"}
    site = Site(served, environment, tmp_path / "log")
    try:
        wait_until(lambda: "Starting gunicorn" in site.log.read_text(), site, 20)
        Path(environment["DJANGO_CONFIG"]).write_text("{}")
        site.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the one before goes on serving" in site.log.read_text(), site, 20)

        site.wait()
        time.sleep(1)
        assert site.probe("/livez").status == 200
        assert "Handling signal: term" not in site.log.read_text()
    finally:
        assert site.stop(signal.SIGQUIT) == 0


def test_start_that_takes_too_long(served, tmp_path):
    """It is given up, and whoever has started it learns that from the status."""
    web = served.path / "deploy" / "web.py"
    original = web.read_text()
    assert "START = 60" in original
    try:
        web.write_text(original.replace("START = 60", "START = 1"))
        site = Site(served, served.environment() | {"SLOW_START": "5"}, tmp_path / "log")
        assert site.process.wait(30) != 0
    finally:
        web.write_text(original)
    assert "gunicorn was not ready within 1 s, and is given up." in site.log.read_text()


def test_site_that_does_not_start(served, tmp_path):
    environment = served.environment()
    Path(environment["DJANGO_CONFIG"]).write_text("{}")
    site = Site(served, environment, tmp_path / "log")

    assert site.process.wait(20) == 1
    assert "SECRET_KEY" in site.log.read_text()


def test_workers_that_die_under_load(served, tmp_path):
    """One that is killed, and one whose interpreter hangs, which leaves the stacks of its threads in the log."""
    environment = served.environment(TRUSTED_PROXIES=["127.0.0.1"])
    site = Site(served, environment, tmp_path / "log", "--timeout=3").wait()
    try:
        wait_until(lambda: len(servers.workers(site)) == 2, site, 10)
        killed = servers.workers(site)[0]
        killed.kill()
        wait_until(lambda: killed not in servers.workers(site) and len(servers.workers(site)) == 2, site, 10)
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            site.get("/hang")
        wait_until(lambda: "in hang" in site.log.read_text(), site, 20)
        assert "WORKER TIMEOUT" in site.log.read_text()
        wait_until(lambda: len(servers.workers(site)) == 2 and site.get("/").status == 200, site, 10)
    finally:
        site.stop()


def test_killed_parent(served, tmp_path):
    """What it has started stops, too: the address is free for the next one."""
    environment = served.environment()
    site = Site(served, environment, tmp_path / "log").wait()
    processes = psutil.Process(site.process.pid).children(recursive=True)
    site.process.kill()
    site.process.wait()

    psutil.wait_procs(processes, 20)
    assert [process for process in processes if process.is_running()] == []


def test_recycled_workers_under_load(served, tmp_path):
    options = ("--max-requests", "100", "--max-requests-jitter", "50")
    site = Site(served, served.environment(TRUSTED_PROXIES=["127.0.0.1"]), tmp_path / "log", *options).wait()
    load = Load(site)
    try:
        wait_until(lambda: site.log.read_text().count("Autorestarting") >= 3, site, 20)
        assert load.failures() == []
    finally:
        site.stop()


class Visited(application_servers.Server):
    """The site behind nginx, for the probes of application_servers.py."""

    def __init__(self, site):
        self.site = site
        self.tls = ssl.create_default_context(cafile=site.folder / "fullchain.pem")

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.site.https))
        return self.tls.wrap_socket(plain, server_hostname=HOST)


@pytest.mark.parametrize("probe", application_servers.BEHIND_PROXY, ids=lambda probe: probe.__name__)
def test_slow_visitors(proxied, probe):
    """What could hold up gunicorn for long does not reach it."""
    passed, seen = probe(Visited(proxied))

    assert passed, seen


def frame(kind, flags, stream, payload):
    """Return a frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def test_requests_of_one_browser_at_once(proxied):
    """As many as nginx lets it send on a connection of HTTP/2, none of which ends: of each body it takes a byte."""
    context = ssl.create_default_context(cafile=proxied.folder / "fullchain.pem")
    context.set_alpn_protocols(["h2"])
    host, path = HOST.encode(), b"/static/css/site.css"
    request = b"\x82\x87" + bytes([1, len(host)]) + host + bytes([4, len(path)]) + path  # GET, https, and literals
    plain = socket.create_connection(("127.0.0.1", proxied.https), timeout=10)
    with context.wrap_socket(plain, server_hostname=HOST) as client, client.makefile("rb") as received:

        def receive():
            length, kind, *_ = struct.unpack(">IBBI", b"\0" + received.read(9))
            return kind, received.read(length)

        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, struct.pack(">HI", 4, 1)))
        kind, settings = receive()
        assert kind == 4
        most = dict(struct.iter_unpack(">HI", settings))[3]
        client.sendall(b"".join(frame(1, 5, 2 * number + 1, request) for number in range(most)))
        answers = []
        while len(answers) < most:
            kind, payload = receive()
            if kind == 1:
                answers.append(payload.lstrip(b"\x20")[0])

    assert Counter(answers) == {0x88: most}  # 200


def test_rate_limit(proxied):
    answers = [proxied.get("/") for _ in range(200)]

    assert answers[0].status == 200
    refused = [answer.data for answer in answers if answer.status == 429]
    assert b"<h1>Too many requests</h1>" in refused[0]
    assert [proxied.probe("/livez").status for _ in range(200)] == [200] * 200


def test_limit_of_logins(proxied):
    """They share one limit, the admin's and the site's: after the first no other has any left."""
    pages = ("/admin/login/", "/accounts/login/", "/accounts/signup/", "/accounts/password_reset/")
    answers = {page: {proxied.get(page).status for _ in range(15)} for page in pages}

    assert all(429 in statuses for statuses in answers.values()), answers


def test_application_that_is_gone(served, tmp_path_factory):
    """nginx says so in a page in the style of the site, which no cache keeps."""
    folder = tmp_path_factory.mktemp("gone")
    certify(folder)
    site = Proxied(served, served.environment(), folder).wait()
    try:
        Site.stop(site)
        response = site.get("/")
        style = site.get("/static/css/site.css")
    finally:
        site.nginx.stop()

    assert response.status == 502
    assert b"<h1>The site cannot be reached</h1>" in response.data
    assert b'href="/static/css/site.css"' in response.data
    assert "Cache-Control" not in response.headers
    assert style.status == 200


def test_memory_of_logins(served, tmp_path, record_property):
    """Eight at once on eight threads; a password that nobody has is hashed like any other."""
    values = {"TRUSTED_PROXIES": ["127.0.0.1"], "WORKERS": 1, "THREADS": 8}
    site = Site(served, served.environment(**values), tmp_path / "log").wait()
    page = site.get("/admin/login/")
    token = re.search(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.data)[1].decode()
    headers = {
        "Cookie": page.headers["Set-Cookie"].partition(";")[0],
        "Referer": f"https://{HOST}/admin/login/",
        "Content_Type": "application/x-www-form-urlencoded",
    }
    form = f"username=nobody&password=wrong&csrfmiddlewaretoken={token}"
    log_in = functools.partial(site.request, "POST", "/admin/login/", body=form, **headers)
    try:
        assert b"Please enter the correct" in log_in().data
        started = time.monotonic()
        log_in()
        took = time.monotonic() - started
        (worker,) = servers.workers(site)
        before = peak = worker.memory_info().rss
        logins = [Answer(log_in) for _ in range(8)]
        while any(login.is_alive() for login in logins):
            peak = max(peak, worker.memory_info().rss)
        assert [login.answer().status for login in logins] == [200] * 8
    finally:
        site.stop()

    more = (peak - before) / 2**20
    record_property("Logins", f"{took * 1000:.0f} ms for one, {more:.0f} MB more for eight at once")
    assert more < 8 * 25


SERVED = """
from django.conf import settings
from django.core.cache import cache
from django.http import HttpResponse

urlpatterns += [
    path("cached", lambda request: HttpResponse(cache.get_or_set("page", "cached"))),
    path("mailers", lambda request: HttpResponse(str(settings.MAILERS))),
]
"""


@pytest.fixture
def make_serve(project, tmp_path):
    """Return a function that serves a project with `make serve`."""
    started = []

    def make_serve():
        address = f"127.0.0.1:{free_port()}"
        command = ["make", "serve", f"ADDRESS={address}"]
        log = tmp_path / f"make-serve-{len(started)}.log"
        started.append(Server(command, address, log, cwd=project.path, env=clean_environment()))
        return started[-1].wait_until_up()

    yield make_serve
    for server in started:
        server.stop()
        assert "Traceback" not in server.log.read_text()


def test_make_serve(project, make_serve):
    with (project.package / "urls.py").open("a") as urls:
        urls.write(SERVED)
    media = project.path / ".local" / "media"
    media.mkdir(parents=True)
    (media / "a.png").write_bytes(b"picture")
    server = make_serve()

    page = server.get("/admin/login/")
    style = re.search(r"/static/admin/css/base\.[0-9a-f]{12}\.css", page.text)
    assert page.status_code == 200
    assert "Secure" not in page.headers["Set-Cookie"]
    assert server.get(style[0]).headers["Cache-Control"] == "max-age=315360000, public, immutable"
    assert server.get("/cached").text == "cached"
    uploaded = server.get("/media/a.png")
    assert (uploaded.content, uploaded.headers["Content-Type"]) == (b"picture", "image/png")
    assert server.get("/media/../../manage.py").status_code == 404


def test_config_of_make_serve_is_kept(project, make_serve):
    """It has what differs from the example, as the first start wrote it or as somebody changed it."""
    with (project.package / "urls.py").open("a") as urls:
        urls.write(SERVED)
    config = project.path / ".local" / "config.json"
    first = make_serve()
    assert ".local/config.json" in first.log.read_text()
    assert first.get("/mailers").text == "{}"
    first.stop()
    changed = json.loads(config.read_text()) | {"EMAIL_URL": "smtp://127.0.0.1:1025"}
    config.write_text(json.dumps(changed))

    assert "1025" in make_serve().get("/mailers").text
    assert json.loads(config.read_text()) == changed
    assert config.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "found a list of 0, expected an object"),
        ('{"THREADS": 1, "THREADS": 2}', "THREADS: found more than once"),
        ('{"THREADS": 0, "EMAIL_URL": "localhost"}', "THREADS: found 0"),
    ],
)
def test_wrong_config_of_make_serve(project, text, problem):
    (project.path / ".local").mkdir()
    (project.path / ".local" / "config.json").write_text(text)

    ran = project.run("make", "serve", f"ADDRESS=127.0.0.1:{free_port()}", check=False)

    assert ran.returncode != 0
    assert ".local/config.json" in ran.stdout
    assert problem in ran.stdout
    assert "Traceback" not in ran.stdout


def test_make_serve_on_an_address_in_use(project):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ran = project.run("make", "serve", f"ADDRESS={address}", check=False)

    assert ran.returncode != 0
    assert f"{address} cannot be served" in ran.stdout


def test_log_is_json(direct):
    lines = [json.loads(line) for line in direct.log.read_text().splitlines()]

    assert {"time", "level", "logger", "process", "message"} <= lines[0].keys()
