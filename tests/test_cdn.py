"""With `use_cdn`, browsers have static files from another host, and a shared cache keeps what is everybody's, only."""

import contextlib
import getpass
import json
import os
import re
import select
import signal
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
import servers
import urllib3
from conftest import clean_environment, free_port, needs
from test_public import CHANGES
from test_server import HOST, Nginx, Site, certify, wait_until

IMMUTABLE = "max-age=315360000, public, immutable"
HASHED = re.compile(r"\.[0-9a-f]{12}\.\w+$")
PUBLIC = "public, max-age=0, s-maxage=600, stale-while-revalidate=60"

# A page with all that a CSP and CORS have a say in: its script imports a module, its style has a font and an image.
FILES = {
    "templates/assets.html": """{% load static %}<!doctype html>
<link rel="icon" href="{% static 'favicon.svg' %}">
<link rel="stylesheet" href="{% static 'assets/site.css' %}">
<body data-later="{% static 'assets/later.js' %}"><p>text</p>
<script type="module" src="{% static 'assets/site.js' %}"></script>
""",
    "static/assets/site.css": """@font-face { font-family: Ours; src: url("ours.woff2"); }
p { font-family: Ours; background: url("dot.svg"); color: rgb(1, 2, 3); }
""",
    "static/assets/ours.woff2": "no font, but a file that is asked for as one",
    "static/assets/dot.svg": '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>',
    "static/assets/site.js": """import { greeting } from "./greeting.js";
document.title = greeting;
""",
    "static/assets/greeting.js": 'export const greeting = "release 1";\n',
    "static/assets/later.js": 'import { greeting } from "./greeting.js";\nexport default `later, ${greeting}`;\n',
}

VIEWS = """

import itertools

from django.contrib import messages
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.template import engines
from django.views.decorators.cache import cache_control
from django.views.decorators.vary import vary_on_headers
from django.core.cache import cache

from .scaling.http.public import public

numbers = itertools.count()


def page(text):
    def view(request):
        return HttpResponse(engines["django"].from_string(f"{text} {next(numbers)}").render({}, request))

    return view


def session(request):
    request.session["name"] = "ada"
    return HttpResponse(f"session {next(numbers)}")


def message(request):
    messages.info(request, "a message")
    return page("message")(request)


def cookie(request):
    response = page("cookie")(request)
    response.set_cookie("name", "ada")
    return response


def missing(request):
    raise Http404


def broken(request):
    raise RuntimeError


public_views = {
    "public": page("public"),
    "constant": lambda request: HttpResponse("the same"),
    "language": vary_on_headers("Accept-Language")(page("language")),
    "translated": page("{% load i18n %}{% translate 'January' %}"),
    "session": session,
    "user": page("{{ user.is_staff }}"),
    "form": page("{% csrf_token %}"),
    "nonce": page("{{ csp_nonce }}"),
    "message": message,
    "messages": page("{% for message in messages %}{{ message }}{% endfor %}"),
    "cookie": cookie,
    "missing": missing,
    "not-found": lambda request: HttpResponse("not found", status=404),
    "broken": broken,
    "redirect": lambda request: redirect("/"),
    "streamed": lambda request: StreamingHttpResponse(["streamed"]),
}
for view in public_views.values():
    view.csrf_exempt = True
urlpatterns += [path(name, public(settings.SHORT_TTL)(view)) for name, view in public_views.items()]
urlpatterns += [
    path("brief", public(1)(page("brief"))),
    path("assets", TemplateView.as_view(template_name="assets.html")),
    path("silent", page("silent")),
    path("for-browsers", cache_control(max_age=60)(page("for browsers"))),
    path("by-hand", cache_control(public=True, max_age=60)(session)),
    path("secret", cache_control(no_store=True)(page("secret"))),
    path("add-message", lambda request: messages.info(request, "for you") or redirect("/")),
]
"""

# The deploy settings of a project in two languages.
LANGUAGES = """
from my_project.settings.deploy import *

LANGUAGES = [("en", "English"), ("de", "Deutsch")]
"""

# What a shared cache is told about a page: its status, its Cache-Control and its Vary.
HEADERS = {
    "/public": (200, PUBLIC, None),
    "/language": (200, PUBLIC, "Accept-Language"),
    "/translated": (200, PUBLIC, None),
    "/messages": (200, PUBLIC, None),
    "/session": (200, "private", "Cookie"),
    "/user": (200, "private", "Cookie"),
    "/form": (200, "private", "Cookie"),
    "/nonce": (200, "private", None),
    "/message": (200, "private", None),
    "/cookie": (200, "private", None),
    "/missing": (404, "private", None),
    "/not-found": (404, "private", None),
    "/broken": (500, "private", None),
    "/redirect": (302, "private", None),
    "/streamed": (200, "private", None),
    "/": (200, "private", None),
    "/silent": (200, "private", None),
    "/for-browsers": (200, "max-age=60, private", None),
    "/by-hand": (200, "private", "Cookie"),
    "/secret": (200, "no-store", None),
    "/no/such/page": (404, "private", None),
    "/static/no/such.css": (404, "private", None),
    "/admin": (301, "private", None),
    "/admin/": (302, "max-age=0, no-cache, no-store, must-revalidate, private", "Cookie"),
    "/admin/login/": (200, "max-age=0, no-cache, no-store, must-revalidate, private", "Cookie"),
}

NGINX = """
daemon off;
user {user};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    {temporary}
    access_log {folder}/access.log;
    proxy_cache_path {folder}/cache keys_zone=cdn:1m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{origin};
            proxy_set_header Host 127.0.0.1:{origin};
            proxy_cache cdn;
            proxy_cache_background_update on;
            proxy_cache_use_stale updating error http_500;
            add_header X-Cache $upstream_cache_status always;
        }}
    }}
}}
"""


class CDN:
    """nginx as a cache between browsers and the site: what it keeps is what the headers allow."""

    def __init__(self, folder, port, origin):
        folder.mkdir()
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
        conf = folder / "nginx.conf"
        conf.write_text(
            NGINX.format(user=getpass.getuser(), folder=folder, temporary=temporary, port=port, origin=origin)
        )
        self.url = f"http://localhost:{port}"
        self.process = subprocess.Popen([needs("nginx", "nginx-light"), "-c", conf, "-e", folder / "error.log"])
        servers.wait_until(lambda: servers.listens(port))

    def get(self, path, **options):
        return requests.get(self.url + path, timeout=30, allow_redirects=False, **options)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Browser:
    """Chromium, remote-controlled: one page, what its console said, and which responses it got."""

    def __init__(self, profile):
        inside, self.write = os.pipe()
        read, outside = os.pipe()
        options = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        )
        self.process = subprocess.Popen(
            [
                *("bash", "-c", f'exec "$@" 3<&{inside} 4>&{outside}', "bash", needs("chromium", "chromium")),
                *options,
                *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=(inside, outside),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(inside)
        os.close(outside)
        self.read = os.fdopen(read, "rb")
        self.events, self.buffer, self.number, self.session = [], b"", 0, {}
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def receive(self):
        while b"\0" not in self.buffer:
            part = self.read.read1(65536)
            assert part, "Chromium has ended"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(message)
        if "method" in message:
            self.events.append((message["method"], message["params"]))
        return message

    def send(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def evaluate(self, expression):
        """Return what a JavaScript expression, or its promise, comes to."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, url):
        """Load a page with all that it asks for."""
        self.events.clear()
        self.loader = self.send("Page.navigate", url=url)["loaderId"]
        while "Page.loadEventFired" not in dict(self.events):
            self.receive()
        self.evaluate("document.fonts.ready.then(() => true)")

    def wait_for(self, happened, seconds=20):
        """Read what the page reports until `happened()`; a page that is being replaced answers no question."""
        deadline = time.monotonic() + seconds
        while not happened():
            if b"\0" not in self.buffer:
                events = select.poll()
                events.register(self.read, select.POLLIN)
                assert events.poll(max(0, deadline - time.monotonic()) * 1000), (
                    f"it did not happen in {seconds} s; the page reported {self.events}"
                )
            self.receive()

    def address(self):
        """Return where the page has gone to since its events were last cleared, or None."""
        frames = [params["frame"] for method, params in self.events if method == "Page.frameNavigated"]
        return next((frame["url"] for frame in reversed(frames) if "parentId" not in frame), None)

    def console(self):
        """Return what the console said, but for the font that is none."""
        said = [params["entry"]["text"] for method, params in self.events if method == "Log.entryAdded"]
        said = [text for text in said if not text.startswith(("Failed to decode downloaded font", "OTS parsing error"))]
        return said + [str(params) for method, params in self.events if method == "Runtime.exceptionThrown"]

    def responses(self):
        """Return the headers of all that the page asked for, by URL."""
        received = [params for method, params in self.events if method == "Network.responseReceived"]
        return {
            params["response"]["url"]: {name.lower(): value for name, value in params["response"]["headers"].items()}
            for params in received
            if params["loaderId"] == self.loader and params["type"] != "Document"
        }

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(10)
        os.close(self.write)
        self.read.close()


@pytest.fixture(scope="module")
def with_cdn(set_up):
    return set_up(use_cdn=True)


@pytest.fixture(scope="module")
def served(with_cdn, tmp_path_factory):
    """A copy of the project with VIEWS, FILES and its database; environment() configures a process of it."""
    project = with_cdn.copy(tmp_path_factory.mktemp("served"))
    for name, text in FILES.items():
        file = project.package / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    with (project.package / "urls.py").open("a") as urls:
        urls.write(VIEWS)
    with with_cdn.database() as url:

        def environment(**values):
            values = {"ALLOWED_HOSTS": [HOST, "127.0.0.1"], "DATABASE_URL": url, "HTTPS": False, "WORKERS": 1} | values
            return project.configure(tmp_path_factory.mktemp("config"), **values)

        project.environment = environment
        project.manage("migrate", **environment())
        project.manage("collectstatic", "--no-input", **environment())
        project.static = project.path / "staticfiles"
        yield project


@pytest.fixture(scope="module")
def start(served, tmp_path_factory):
    """Return a function that starts gunicorn and a cache before it; with `names_cdn`, CDN_URL names the cache."""
    with contextlib.ExitStack() as stack:

        def start(names_cdn, **variables):
            folder = tmp_path_factory.mktemp("site")
            port = free_port()
            values = {"CDN_URL": f"http://localhost:{port}"} if names_cdn else {}
            environment = served.environment(**values) | variables
            site = Site(served, clean_environment(**environment), folder / "log")
            stack.callback(site.stop)
            site.wait()
            site.url = f"http://127.0.0.1:{site.port}"
            site.cdn = CDN(folder / "cdn", port, site.port)
            stack.callback(site.cdn.stop)
            return site

        yield start


@pytest.fixture(scope="module")
def site(start):
    return start(names_cdn=True)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.stop()


@pytest.mark.parametrize("names_cdn", [True, False], ids=["CDN_URL", "no CDN_URL"])
def test_page_in_a_browser(start, site, browser, names_cdn):
    site = site if names_cdn else start(names_cdn=False)

    browser.open(f"{site.url}/assets")

    assert browser.console() == []
    assert browser.evaluate("document.title") == "release 1"
    assert browser.evaluate("getComputedStyle(document.querySelector('p')).color") == "rgb(1, 2, 3)"
    responses = browser.responses()
    names = {re.sub(r"\.[0-9a-f]{12}\.", ".", url.rpartition("/")[2]) for url in responses}
    assert names >= {"site.css", "site.js", "greeting.js", "ours.woff2", "dot.svg"}
    for url, headers in responses.items():
        assert HASHED.search(url)
        assert url.startswith(f"{site.cdn.url if names_cdn else site.url}/static/")
        assert headers["cache-control"] == IMMUTABLE
        assert headers["access-control-allow-origin"] == "*"
        assert headers["x-content-type-options"] == "nosniff"


def test_admin_in_a_browser(site, browser):
    browser.open(f"{site.url}/admin/login/")

    assert browser.console() == []
    assert len(browser.responses()) > 3
    assert all(url.startswith(site.cdn.url) for url in browser.responses())


def test_policy_names_the_cdn_where_needed(site):
    policy = dict(part.split(maxsplit=1) for part in site.get("/").headers["Content-Security-Policy"].split("; "))

    named = {name for name, sources in policy.items() if f"{site.cdn.url}/static/" in sources.split()}
    assert site.cdn.url not in site.get("/").headers["Content-Security-Policy"].split()
    assert named == {"script-src", "style-src", "img-src", "font-src"}


def test_violation_is_noticed(site, browser):
    """What the tests above would see if the policy or the CORS header were wrong."""
    browser.open(f"{site.url}/assets")

    browser.evaluate("void document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/a.png'}))")
    browser.evaluate("new Promise(resolve => setTimeout(resolve, 200))")
    assert "Content Security Policy" in "".join(browser.console())


def test_compressed(site, served):
    (name,) = (file.name for file in served.static.glob("admin/css/base.*.css"))

    response = site.cdn.get(f"/static/admin/css/{name}", headers={"Accept-Encoding": "br"})

    assert (response.headers["Content-Encoding"], response.headers["Vary"]) == ("br", "Accept-Encoding")


@pytest.mark.parametrize("path", HEADERS)
def test_headers(site, record_property, path):
    response = site.get(path)
    told = f"{response.headers.get('Cache-Control')}, Vary: {response.headers.get('Vary', '-')}"
    record_property("What caches are told", f"{path:22}{response.status}  {told}")

    assert (response.status, response.headers.get("Cache-Control"), response.headers.get("Vary")) == HEADERS[path]


def test_headers_of_other_requests(site):
    assert site.request("POST", "/public").headers["Cache-Control"] == "private"
    assert site.get("/public", Authorization="Bearer 1").headers["Cache-Control"] == "private"


def test_page_that_has_not_changed(site):
    tag = site.get("/constant").headers["ETag"]

    response = site.get("/constant", If_None_Match=tag)

    assert (response.status, response.data, response.headers["Cache-Control"]) == (304, b"", PUBLIC)


@pytest.mark.parametrize("path", HEADERS)
def test_shared_cache(site, path):
    """Whoever has it first: the second visitor gets the cache's copy of a public page, and one made anew of others."""
    before = site.cdn.get(path, headers={"Accept-Language": "de"})
    after = site.cdn.get(path, headers={"Accept-Language": "de"})

    if HEADERS[path][1] == PUBLIC:
        assert (before.headers["X-Cache"], after.headers["X-Cache"]) == ("MISS", "HIT")
        assert after.text == before.text
    else:
        assert (before.headers["X-Cache"], after.headers["X-Cache"]) == ("MISS", "MISS")


def test_shared_cache_keeps_languages_apart(site):
    pages = {site.cdn.get("/language", headers={"Accept-Language": language}).text for language in ("fr", "it")}

    assert len(pages) == 2


def test_language_of_a_visitor_is_not_shared(start, tmp_path):
    """LocaleMiddleware takes it from a cookie first, and names only Accept-Language in Vary."""
    (tmp_path / "languages.py").write_text(LANGUAGES)
    site = start(names_cdn=False, DJANGO_SETTINGS_MODULE="languages", PYTHONPATH=str(tmp_path))
    mine, others = {"Accept-Language": "en", "Cookie": "django_language=de"}, {"Accept-Language": "en"}

    pages = [site.cdn.get("/translated", headers=headers).text for headers in (mine, others, mine)]

    assert [page.split()[0] for page in pages] == ["Januar", "January", "Januar"]


def test_message_of_a_visitor_is_not_shared(site):
    address = "/messages?first"
    cookie = site.get("/add-message").headers["Set-Cookie"].partition(";")[0]

    mine = site.cdn.get(address, headers={"Cookie": cookie})
    others = site.cdn.get(address)

    assert "for you" in mine.text
    assert "for you" not in others.text


def test_stale_page_while_the_next_is_fetched(site):
    first = site.cdn.get("/brief")
    time.sleep(2.1)  # nginx counts in seconds
    stale = site.cdn.get("/brief")
    time.sleep(0.3)
    fresh = site.cdn.get("/brief")

    assert stale.headers["X-Cache"] == "STALE"
    assert stale.text == first.text
    assert fresh.text != first.text


@pytest.fixture(scope="module")
def nginx(served, site, tmp_path_factory):
    """The shipped nginx before the site; 127.0.0.2 is the CDN's."""
    folder = tmp_path_factory.mktemp("nginx")
    certify(folder)
    networks = '$is_cdn {\n        default "";\n        # 10.0.0.0/8 1;'
    nginx = Nginx(served, folder, CHANGES | {networks: networks.replace("# 10.0.0.0/8", "127.0.0.2")}, site.port)
    yield nginx
    nginx.stop()


def test_pages_come_to_the_cdn_from_the_application(nginx):
    """As they would be older by what nginx has kept them for; who visits directly has those that nginx keeps."""
    context = ssl.create_default_context(cafile=nginx.folder / "fullchain.pem")
    cdn = urllib3.HTTPSConnectionPool(
        "127.0.0.1", nginx.https, ssl_context=context, server_hostname=HOST, source_address=("127.0.0.2", 0)
    )
    direct = [nginx.ask("/public?cdn") for _ in range(2)]
    pages = [cdn.request("GET", "/public?cdn", headers={"Host": HOST}, assert_same_host=False) for _ in range(2)]

    assert len({page.data for page in pages}) == 2
    assert direct[0].data == direct[1].data == nginx.ask("/public?cdn").data
    for page in (*pages, *direct):
        assert page.headers["Cache-Control"] == f"{PUBLIC}, stale-if-error=3600"
    assert nginx.ask("/silent").headers["Cache-Control"] == "private"


class API(BaseHTTPRequestHandler):
    """In place of a CDN's."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((self.path, self.headers["Authorization"], body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def api():
    with ThreadingHTTPServer(("127.0.0.1", 0), API) as server:
        server.received = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_purge_as_documented(served, nginx, api, tmp_path):
    """The function in docs/scaling.md works, and nginx is told, too."""
    (function,) = re.findall(r"```python\n(def purge.*?)```", (served.path / "docs/scaling.md").read_text(), re.DOTALL)
    function = function.replace("https://api.cdn.example", f"http://127.0.0.1:{api.server_port}")
    function = function.replace("/run/secrets/cdn_token", f"{tmp_path}/token")
    (tmp_path / "token").write_text("secret\n")
    imports = "import json\nfrom pathlib import Path\nfrom urllib.request import Request, urlopen\n"
    imports += "from my_project.settings.deploy import *\nfrom my_project.scaling import timeouts\n"
    (tmp_path / "purging.py").write_text(f'{imports}CDN_PURGE = "purging.purge"\n{function}')
    environment = served.environment(PURGE_ADDRESSES=[f"127.0.0.1:{nginx.purging}"])
    environment |= {"DJANGO_SETTINGS_MODULE": "purging", "PYTHONPATH": str(tmp_path)}
    urls = ["https://example.com/a/", "https://example.com/public?purge"]
    page = nginx.ask("/public?purge").data

    served.manage("purge", *urls, **environment)

    assert nginx.ask("/public?purge").data != page
    assert api.received == [("/purge", "Bearer secret", {"urls": urls})]


def age(folder, days=31):
    """Have all files of a folder been written so long ago."""
    for file in folder.rglob("*"):
        os.utime(file, (time.time() - days * 86400,) * 2)


def test_release_while_a_browser_holds_a_page(served, start, browser):
    """What a page of the former release asks for later comes from the new one, which has never served it before."""
    site = start(names_cdn=True)
    age(served.static)
    browser.open(f"{site.url}/assets")
    former = browser.evaluate("document.body.dataset.later")
    (served.package / "static/assets/greeting.js").write_text('export const greeting = "release 2";\n')
    served.manage("collectstatic", "--no-input", **served.environment())
    workers = servers.workers(site)
    site.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not any(worker.is_running() for worker in workers), site, 20)

    assert browser.evaluate("import(document.body.dataset.later).then(later => later.default)") == "later, release 1"
    assert browser.responses()[former]["cache-control"] == IMMUTABLE
    assert browser.console() == []
    browser.open(f"{site.url}/assets")
    assert browser.evaluate("document.title") == "release 2"
    assert browser.evaluate("import(document.body.dataset.later).then(later => later.default)") == "later, release 2"
    assert browser.evaluate("document.body.dataset.later") != former


def test_files_of_former_releases_go_when_they_are_old(served):
    age(served.static)

    served.manage("collectstatic", "--no-input", **served.environment())

    (left,) = served.static.glob("assets/greeting.*.js")
    assert "release 2" in left.read_text()
    assert len(list(served.static.glob("admin/css/base.????????????.css.br"))) == 1
