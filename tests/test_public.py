"""The shipped nginx keeps the pages that are @public, for everybody, and nothing of anybody."""

import contextlib
import http.client
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3
from conftest import clean_environment, free_port
from test_server import HOST, Proxied, Site, certify

VIEWS = """

import itertools
import time

from django.contrib import messages
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.template import engines
from django.views.decorators.cache import cache_control
from django.views.decorators.gzip import gzip_page
from django.views.decorators.vary import vary_on_headers

from .scaling.http.public import public

numbers = itertools.count()
answers = {}


def page(text):
    def view(request, **kwargs):
        return HttpResponse(engines["django"].from_string(f"{text} {next(numbers)} {kwargs}").render({}, request))

    return view


def session(request):
    request.session["name"] = "ada"
    return page("session")(request)


def message(request):
    messages.info(request, "for you")
    return page("message")(request)


def cookie(request):
    response = page("cookie")(request)
    response.set_cookie("name", "ada")
    return response


def header(name, value):
    def view(request):
        response = page(name)(request)
        response[name] = value
        return response

    return view


def seen(request):
    return HttpResponse(f"{request.get_host()} {request.META.get('HTTP_X_FORWARDED_HOST')} {next(numbers)}")


def slow(request, name):
    time.sleep(0.3)
    return page("slow")(request)


def changing(request, name):
    '''As answer() has said.'''
    match answers.get(name, "page"):
        case "page":
            return page(name)(request)
        case "session":
            return session(request)
        case status:
            return HttpResponse(f"error {next(numbers)}", status=int(status))


def answer(request, name, text):
    answers[name] = text
    return HttpResponse("noted")


private = {
    "session": session,
    "user": page("{{ user.is_staff }}"),
    "form": page("{% csrf_token %}"),
    "nonce": page("{{ csp_nonce }}"),
    "message": message,
    "cookie": cookie,
    "language": vary_on_headers("Accept-Language")(page("language")),
    "varies": vary_on_headers("Accept-Encoding", "Cookie")(page("varies")),
    "not-found": lambda request: HttpResponse(f"not found {next(numbers)}", status=404),
    "redirect": lambda request: redirect(f"/{next(numbers)}"),
    "streamed": lambda request: StreamingHttpResponse([f"streamed {next(numbers)}"]),
}
urlpatterns += [path(f"private/{name}", public(600)(view)) for name, view in private.items()]
urlpatterns += [
    path("private/silent", page("silent")),
    path("private/for-browsers", cache_control(max_age=60)(page("for browsers"))),
    path("private/secret", cache_control(no_store=True)(page("secret"))),
    path("private/accelerated", header("X-Accel-Expires", "600")),
    path("private/expires", header("Expires", "Fri, 01 Jan 2100 00:00:00 GMT")),
    path("public", public(600)(page("public"))),
    path("long", public(600)(gzip_page(lambda request: HttpResponse(f"{next(numbers)} " + 2000 * "text ")))),
    path("text/<path:name>", public(600)(page("text"))),
    path("seen", public(600)(seen)),
    path("slow/<name>", public(600)(slow)),
    path("messages", public(600)(page("{% for message in messages %}{{ message }}{% endfor %}"))),
    path("by-hand", cache_control(public=True, max_age=600)(page("by hand"))),
    path("gzip", public(600)(vary_on_headers("Accept-Encoding")(page("gzip")))),
    path("brief/<name>", public(1)(changing)),
    path("briefer/<name>", cache_control(public=True, s_maxage=1, stale_while_revalidate=1)(changing)),
    path("changing/<name>", public(600)(changing)),
    path("answer/<name>/<text>", answer),
    path("add-message", lambda request: messages.info(request, "for you") or redirect("/")),
]
"""

SOMEBODY = {
    "session": {"Cookie": "sessionid=c3dd4acbf1e94a6c"},
    "session among others": {"Cookie": "a=b;\tsessionid=x; c=d"},
    "two sessions": {"Cookie": "sessionid=; sessionid=x"},
    "message": {"Cookie": "csrftoken=x; messages=y"},
    "user": {"Authorization": "Basic YWRhOmFkYQ=="},
    "token": {"Authorization": "Bearer x"},
}

# What strangers could try, to have the application asked or a page of their own kept.
ODD = {
    "no-cache": {"Cache-Control": "no-cache, no-store, max-age=0", "Pragma": "no-cache"},
    "headers of nginx": {"X-Accel-Expires": "0", "X-Accel-Redirect": "/admin/", "X-Purged": "1", "X-Cache": "off"},
    "another host": {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example", "X-Host": "evil.example"},
    "case of the host": {"Host": "EXAMPLE.com"},
    "trailing dot": {"Host": f"{HOST}."},
    "port": {"Host": f"{HOST}:443"},
    "other cookies": {"Cookie": f"csrftoken={32 * 'x'}; _ga=GA1.1; xsessionid=y; sessionid2=z"},
    "beyond ASCII": {"Cookie": "name=\xe4\xff; \xe4=b".encode("latin-1"), "X-Name": "\xe4".encode()},
    "method": {"X-HTTP-Method-Override": "POST"},
    "encoding": {"Accept-Encoding": "br;q=1, gzip;q=0, *"},
    "language": {"Accept-Language": "tlh"},
    "range": {"Range": "bytes=0-"},
    "scheme": {"X-Forwarded-Proto": "http", "X-Forwarded-For": "127.0.0.1"},
    "script": {"Script-Name": "/evil", "SCRIPT_NAME": "/evil", "X-Original-URL": "/admin/"},
}


class Kept(Proxied):
    """The site behind nginx, and what that keeps."""

    def open(self, path, **headers):
        """Return the text of a page, as a visitor without a cookie gets it unless headers say more."""
        return self.ask(path, headers=headers).data.decode()

    def ask(self, *arguments, **options):
        return self.nginx.ask(*arguments, **options)

    def purge(self, *urls, check=True, **values):
        """Run `manage.py purge`; return what it printed."""
        environment = self.project.environment(**{"PURGE_ADDRESSES": [f"127.0.0.1:{self.nginx.purging}"]} | values)
        return self.project.manage("purge", *urls, check=check, **environment)

    def answer(self, name, text):
        """Say how changing() is to answer."""
        assert self.open(f"/answer/{name}/{text}") == "noted"


@pytest.fixture(scope="module")
def project(default_project, database_url, tmp_path_factory):
    """A copy of the default project with VIEWS; environment() configures a process of it."""
    project = default_project.copy(tmp_path_factory.mktemp("public"))
    with (project.package / "urls.py").open("a") as urls:
        urls.write(VIEWS)

    def environment(**values):
        values = {"ALLOWED_HOSTS": [HOST], "DATABASE_URL": database_url, "WORKERS": 1, "THREADS": 8} | values
        return project.configure(tmp_path_factory.mktemp("config"), **values)

    project.environment = environment
    project.manage("migrate", **environment())
    project.manage("collectstatic", "--no-input", **environment())
    return project


# Limits for many visitors on one address; each answer tells whether it was kept.
CHANGES = {
    "rate=20r/s": "rate=10000r/s",
    "rate=1r/s": "rate=10000r/s",
    "limit_conn connections 100;": "limit_conn connections 1000;",
    "proxy_cache $pages;": "proxy_cache $pages; add_header X-Cache $upstream_cache_status always;",
}


def start(project, folder, changes=None):
    certify(folder)
    environment = project.environment()
    site = Kept(project, clean_environment(**environment), folder, (changes or {}) | CHANGES)
    site.project, site.environment = project, environment
    return site.wait()


@pytest.fixture(scope="module")
def site(project, tmp_path_factory):
    site = start(project, tmp_path_factory.mktemp("site"))
    yield site
    site.stop()


@pytest.mark.parametrize("path", ["/public", "/messages", "/by-hand", "/gzip", "/text/a%2Fb"])
def test_public_page_is_kept(site, path):
    first = site.ask(path)

    again = site.ask(path)
    assert again.data == first.data
    assert again.headers["X-Request-ID"] != first.headers["X-Request-ID"]
    assert "Set-Cookie" not in again.headers
    assert (site.ask(path, "HEAD").status, site.ask(path, "HEAD").data) == (200, b"")
    assert site.ask(path, headers={"Range": "bytes=2-4"}).data == first.data
    if tag := first.headers.get("ETag"):
        assert site.ask(path, headers={"If-None-Match": tag}).status == 304
    assert site.ask(f"{path}?page=2").data != first.data
    assert site.ask(path).data == first.data


def test_head_comes_first(site):
    assert site.ask("/text/head", "HEAD").status == 200

    assert site.open("/text/head") == site.open("/text/head")
    assert site.open("/text/head").startswith("text")


def test_range_comes_first(site):
    part = site.ask("/text/range", headers={"Range": "bytes=0-3"})

    assert part.status == 200
    assert site.open("/text/range") == part.data.decode()


def test_browser_that_asks_comes_first(site):
    response = site.ask("/text/conditional", headers={"If-None-Match": "*", "If-Modified-Since": "Fri, 01 Jan 2100"})

    assert response.status in (200, 304)
    assert site.open("/text/conditional").startswith("text")


def test_one_copy_for_all_encodings(site):
    compressed = site.ask("/long", headers={"Accept-Encoding": "br, gzip"})
    plain = site.ask("/long")

    assert (plain.headers.get("Content-Encoding"), compressed.headers["Content-Encoding"]) == (None, "gzip")
    assert "Accept-Encoding" in plain.headers["Vary"]
    assert compressed.data == plain.data


PRIVATE = re.findall('"([a-z-]+)": ', VIEWS.partition("private = {")[2].partition("}\n")[0])
PRIVATE += re.findall('"private/([a-z-]+)"', VIEWS)


@pytest.mark.parametrize("name", PRIVATE)
def test_private_page_is_not(site, name):
    answers = [site.ask(f"/private/{name}") for _ in range(2)]

    pages = [answer.data or answer.headers["Location"] for answer in answers]
    assert pages[0] != pages[1]
    assert {answer.status for answer in answers} < {200, 302, 404}
    assert f"https://{HOST}/private/{name}" not in site.nginx.kept()


@pytest.mark.parametrize("path", ["/public", "/messages", "/text/whose"])
@pytest.mark.parametrize("headers", SOMEBODY.values(), ids=SOMEBODY)
def test_somebody_gets_a_page_of_his_own(site, path, headers):
    """Nobody else gets it."""
    page = f"{path}?{headers}".replace(" ", "")
    mine = [site.open(page, **headers) for _ in range(2)]
    others = [site.open(page) for _ in range(2)]

    assert len({*mine, *others}) == 3
    assert others[0] == others[1]
    assert site.open(page, **headers) not in (*mine, *others)


@pytest.mark.parametrize("lines", ["Cookie: a=b\r\nCookie: sessionid=x", "cOOKIE: sessionid=x", "authorization: Basic"])
def test_somebody_in_other_words(site, lines):
    page = site.open("/public?words")
    request = f"GET /public?words HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\nConnection: close\r\n\r\n"

    answer = raw(site, request.encode())
    assert b"public" in answer
    assert not answer.endswith(page.encode())
    assert site.open("/public?words") == page


@pytest.mark.parametrize("length", [2500, 3000, 3300, 4000, 7300])
def test_long_address(site, length):
    """It is the key of what is kept, beside which there must be room for the response's headers."""
    for path in ("/public", "/private/form", "/private/silent"):
        assert site.ask(f"{path}?{length * 'x'}").status == 200


@pytest.mark.parametrize("word", ["x", "!", "%D0%9F"])
@pytest.mark.parametrize(("path", "status"), [("/accounts?", 301), ("/accounts/?", 302)])
def test_redirect_from_a_long_address(site, path, status, word):
    """It is in the response, too, and with the login longer: up to the 16 kB that Django redirects to."""
    assert {site.ask(path + length // len(word) * word).status for length in (3000, 4200, 5300)} == {status}
    if word != "!":
        assert site.ask(path + 7900 // len(word) * word).status == status


def test_message_is_seen_by_whom_it_is_for(site):
    cookie = site.ask("/add-message").headers["Set-Cookie"].partition(";")[0]
    before = site.open("/messages?for")

    assert "for you" in site.open("/messages?for", Cookie=cookie)
    assert site.open("/messages?for") == before
    assert "for you" not in before


def test_somebody_revalidates_at_the_application(site):
    headers = {"Cookie": "sessionid=x", "If-None-Match": '"none"'}

    assert site.ask("/public", headers=headers).status == 200
    assert site.ask("/by-hand", headers=headers | {"Range": "bytes=0-1"}).status == 200


@pytest.mark.parametrize("name", ODD)
def test_odd_request(site, name):
    """It neither has the application asked for what is kept, nor does its answer differ from everybody's."""
    first = site.open("/seen")
    assert first.startswith(f"{HOST} None ")

    odd = site.ask("/seen", headers=ODD[name])
    assert odd.status in (200, 206)
    assert odd.data.decode() == first
    fresh = site.ask(f"/seen?{name.replace(' ', '')}", headers=ODD[name])
    assert fresh.data.decode().startswith(f"{HOST} None ")
    assert site.open(f"/seen?{name.replace(' ', '')}") == fresh.data.decode()


def raw(site, request):
    """Send bytes over TLS; return all that comes back."""
    context = ssl.create_default_context(cafile=site.folder / "fullchain.pem")
    with (
        socket.create_connection(("127.0.0.1", site.https), 10) as connection,
        context.wrap_socket(connection, server_hostname=HOST) as connection,
    ):
        connection.sendall(request)
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while part := connection.recv(65536):
                received += part
    return received


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /seen HTTP/1.0\r\nHost: example.com\r\n\r\n",
        b"GET /seen HTTP/1.0\r\n\r\n",
        b"GET https://example.com/seen HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n",
        b"GET https://example.com/seen HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"GET /seen HTTP/1.1\r\nHost: example.com\r\nX-Forwarded-Host : evil\r\nConnection: close\r\n\r\n",
    ],
)
def test_odd_request_line(site, request_):
    first = site.open("/seen")

    answer = raw(site, request_)
    assert answer.endswith(first.encode()) or answer == b"" or b" 400 " in answer.splitlines()[0]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET https://evil.example/seen HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n",
        b"GET /seen HTTP/1.1\r\nHost: example.com\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"GET /seen HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    ],
)
def test_other_host(site, request_):
    answer = raw(site, request_)

    assert answer == b"" or b" 400 " in answer.splitlines()[0]


@pytest.mark.parametrize("path", ["/seen/", "//seen", "/%73een", "/x/../seen", "/seen?", "/seen#x", "/SEEN"])
def test_spellings_of_an_address(site, path):
    """Each is a page of its own, whatever the application makes of it."""
    first = site.open("/seen")
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: sessionid=x\r\nConnection: close\r\n\r\n".encode()

    raw(site, request)
    raw(site, request.replace(b"Cookie: sessionid=x\r\n", b""))
    assert site.open("/seen") == first


def later(site, path, seconds):
    """Return what a page is at first, after so many seconds, and right after that."""
    pages = [site.open(path)]
    time.sleep(seconds)
    pages.append(site.open(path))
    time.sleep(0.3)
    return [*pages, site.open(path)]


def test_how_long(site):
    """While the next one is fetched the last one is shown, but only as long after its time as the view said."""
    with ThreadPoolExecutor() as pool:
        brief, briefer, long = pool.map(later, [site] * 3, ["/brief/a", "/briefer/a", "/public?a"], [2.1, 4.1, 4.1])

    assert brief[0] == brief[1] != brief[2]
    assert briefer[0] != briefer[1] == briefer[2]
    assert len({*long}) == 1


def test_many_at_once_while_it_is_renewed(site):
    site.open("/brief/many")
    time.sleep(2.1)
    with ThreadPoolExecutor(20) as pool:
        pages = [*pool.map(site.open, ["/brief/many"] * 100)]

    assert len({*pages}) <= 2


def test_errors(site):
    """An error of the site's shows what was kept before; that a page is gone or somebody's own is no error."""
    pages = {name: site.open(f"/briefer/{name}") for name in ("500", "503", "404", "403", "410", "session")}
    for name in pages:
        site.answer(name, name)
    time.sleep(3.1)
    answers = {name: site.ask(f"/briefer/{name}") for name in pages}

    assert {name: answer.status for name, answer in answers.items() if answer.data.decode() == pages[name]} == {
        "500": 200,
        "503": 200,
    }
    assert [answers[name].status for name in ("404", "403", "410", "session")] == [404, 403, 410, 200]
    assert site.open("/briefer/session") != site.open("/briefer/session")
    for name in pages:
        site.answer(name, "page")
    assert site.open("/briefer/500") != pages["500"]


def test_purge(site):
    addresses = [
        "/changing/a",
        "/changing/a?page=2",
        "/text/stra%C3%9Fe",
        "/text//x",
        "/changing/gone",
        "/changing/session",
    ]
    before = [site.open(address) for address in addresses]
    other = site.open("/changing/other")
    for name in ("gone", "session"):
        site.answer(name, {"gone": "404"}.get(name, name))
    urls = [f"https://{HOST}{address}" for address in addresses]
    urls[1] = f"https://{HOST.upper()}:443{addresses[1]}#there"
    urls[2] = f"https://{HOST}/text/straße"

    site.purge(*urls)

    after = [site.ask(address) for address in addresses]
    assert [page.data.decode() == text for page, text in zip(after, before, strict=True)] == [False] * 6
    assert [page.status for page in after] == [200, 200, 200, 200, 404, 200]
    assert site.open(addresses[0]) == after[0].data.decode()
    assert site.open(addresses[5]) != after[5].data.decode()
    assert site.open("/changing/other") == other
    assert not any(b"Set-Cookie" in data for data in site.nginx.kept().values())


def test_purge_of_several(site):
    """Where one cannot be told, the others are, and the command says which."""
    page = site.open("/changing/several")
    dead, wrong = f"127.0.0.1:{free_port()}", f"127.0.0.1:{site.http}"

    ran = site.purge(
        f"https://{HOST}/changing/several",
        check=False,
        PURGE_ADDRESSES=[dead, wrong, f"127.0.0.1:{site.nginx.purging}"],
    )

    assert ran.returncode == 1
    assert f"nginx at {dead} has not purged https://{HOST}/changing/several, nor what follows it: [Err" in ran.stdout
    assert f"nginx at {wrong} has not purged" in ran.stdout
    assert "Traceback" not in ran.stdout
    assert site.open("/changing/several") != page


def body(site, address):
    """Return the body of what an address is answered with that is sent as it is; urllib3 would escape it."""
    request = f"GET {address} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    return raw(site, request.encode()).partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("address", ["/text/a|b", "/changing/query?a={b}|c^d", "/changing/empty?"])
def test_purge_of_an_address_as_browsers_write_it(site, address):
    page = body(site, address)
    assert body(site, address) == page

    site.purge(f"https://{HOST}{address}")

    assert body(site, address) != page


def test_purge_goes_on_after_a_page_that_is_refused(site):
    page, long = site.open("/changing/after"), f"https://{HOST}/{'x' * 9_000}"

    ran = site.purge(long, f"https://{HOST}/changing/after", check=False)

    assert ran.returncode == 1
    assert f"has not purged {long}: it answered 414" in ran.stdout
    assert site.open("/changing/after") != page


def test_purge_takes_an_iterator(site):
    """Each nginx is told of all pages, and not the first one alone."""
    page = site.open("/changing/iterator")
    addresses = [f"127.0.0.1:{site.http}", f"127.0.0.1:{site.nginx.purging}"]
    code = f"from my_project.scaling.http.public import purge; purge(iter(['https://{HOST}/changing/iterator']))"

    environment = site.project.environment(PURGE_ADDRESSES=addresses)
    site.project.manage("shell", "--no-imports", "-c", code, check=False, **environment)

    assert site.open("/changing/iterator") != page


@pytest.mark.parametrize("url", ["https://[::1", "example.com/page", "ftp://example.com/"])
def test_purge_of_what_is_no_url(site, url):
    ran = site.purge(url, check=False)

    assert ran.returncode == 1
    assert f"{url} is no URL; expected one such as https://{HOST}/articles/" in ran.stdout
    assert "Traceback" not in ran.stdout


def test_strangers_cannot_purge(site):
    page = site.open("/text/stranger")
    connection = http.client.HTTPConnection("127.0.0.1", site.nginx.purging, 10, source_address=("127.0.0.2", 0))
    with contextlib.closing(connection):
        connection.request("GET", "/text/stranger", headers={"Host": HOST, "X-Forwarded-Proto": "https"})
        assert connection.getresponse().status == 403
    for host in ("purged", HOST):
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            site.ask("/text/stranger", headers={"Host": host, "X-Purged": "1"})

    assert site.open("/text/stranger") == page


@pytest.fixture(scope="module")
def locked(project, tmp_path_factory):
    """The site with the location that nginx.conf has in a comment."""
    text = (project.path / "deploy" / "nginx.conf").read_text()
    comment = re.search(r"( +# location /articles/ \{\n.*?# \}\n)", text, re.DOTALL)[1]
    location = comment.replace("# ", "").replace("/articles/", "/slow/")
    site = start(project, tmp_path_factory.mktemp("locked"), {comment: location})
    yield site
    site.stop()


def test_many_at_once_for_a_cold_page(locked):
    before = int(locked.open("/slow/before").split()[1])
    with ThreadPoolExecutor(100) as pool:
        pages = [*pool.map(locked.open, ["/slow/lock"] * 100)]

    assert {*pages} == {locked.open("/slow/lock")}
    assert int(locked.open("/slow/after").split()[1]) == before + 2


def test_application_is_stopped(locked):
    """What was kept is shown, of whatever age; who would get a page of his own, and what is not kept, has an error."""
    kept, expired, _ = (locked.open(path) for path in ("/public", "/briefer/a", "/changing/purged"))
    time.sleep(3.1)
    locked.purge(f"https://{HOST}/changing/purged")
    Site.stop(locked)

    assert locked.open("/public") == kept
    for _ in range(3):
        assert locked.open("/briefer/a") == expired
    missing, mine, gone = (
        locked.ask(path, headers=headers)
        for path, headers in (("/private/silent", {}), ("/public", SOMEBODY["session"]), ("/changing/purged", {}))
    )
    assert [answer.status for answer in (missing, mine, gone)] == [502, 502, 503]
    assert all(b"<h1>The site cannot be reached</h1>" in answer.data for answer in (missing, mine, gone))
    assert "Cache-Control" not in gone.headers


def nobody_gets_what_is_somebodys(nginx, addresses, people, secret):
    """Ask for each address as several people, by their headers, and as nobody in between; return those that were kept.

    What is a page of one of them has the secret in it.
    """
    kept = set()
    for number, path in enumerate(addresses):
        first = number % len(people)
        order = [{}, *people[first:], *people[:first], {}] if number % 2 else [*people[first:], {}, *people[:first], {}]
        for who in order:
            answer = nginx.ask(path, headers=who)
            if who:
                assert "X-Cache" not in answer.headers, path
            else:
                assert not re.search(secret, answer.data.decode(errors="replace")), path
                assert answer.headers.get("X-Cache") != "HIT" or "Set-Cookie" not in answer.headers, path
        if answer.headers.get("X-Cache") == "HIT":
            kept.add(path)
    for data in nginx.kept().values():
        assert not re.search(f"{secret}|Set-Cookie|csrfmiddlewaretoken".encode(), data)
    return kept


# Prints every address of the site that has pages, with the first row for whatever it takes.
ADDRESSES = """
import re
from django.urls import URLPattern, get_resolver

def walk(patterns, prefix=""):
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            print("/" + re.sub("<[^>]+>", "1", route))
        else:
            walk(pattern.url_patterns, route)

walk(get_resolver().url_patterns)
"""

SESSION = """
from django.contrib.auth import get_user_model
from django.test import Client

user = get_user_model().objects.create_superuser("somebody", "somebody@example.com", "secret")
client = Client()
client.force_login(user)
print(client.cookies["sessionid"].value)
"""


def test_every_view(site):
    def shell(code):
        return site.project.manage("shell", "--no-imports", "-c", code, **site.environment).stdout.split()

    (session,) = shell(SESSION)
    message = site.ask("/add-message").headers["Set-Cookie"].partition(";")[0]
    people = [{"Cookie": f"sessionid={session}"}, {"Cookie": message}, {"Authorization": "Token x"}]
    people.append({"Cookie": f"{message}; sessionid={session}", "Authorization": "Token x"})
    addresses = shell(ADDRESSES)
    assert len(addresses) > 50
    assert b"somebody" in site.ask("/accounts/", headers=people[0]).data

    kept = nobody_gets_what_is_somebodys(site.nginx, addresses, people, "somebody|for you")

    names = {path.strip("/").partition("/")[0] for path in kept}
    assert names == {
        "public",
        "long",
        "text",
        "seen",
        "slow",
        "messages",
        "by-hand",
        "gzip",
        "brief",
        "briefer",
        "changing",
    }
