import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.contrib import messages
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.template import engines
from django.urls import path
from django.utils import translation

from {{ cookiecutter.project_slug }}.scaling.checks import pages_are_private
from {{ cookiecutter.project_slug }}.scaling.http.public import NotPurgedError, public, purge


def page(text):
    return lambda request: HttpResponse(engines["django"].from_string(text).render({}, request))


show_messages = page("page {% raw %}{% for message in messages %}{{ message }}{% endfor %}{% endraw %}")


def message(request):
    messages.info(request, "a message")
    return HttpResponse("page")


def shown_message(request):
    messages.info(request, "a message")
    return show_messages(request)


def cookie(request):
    return HttpResponse("page", headers={"Set-Cookie": "name=ada"})


urlpatterns = [
    path("", page("private"), name="home"),
    path("page", public(600)(page("page"))),
    path("user", public(600)(page("{% raw %}{{ user.is_staff }}{% endraw %}"))),
    path("form", public(600)(page("{% raw %}{% csrf_token %}{% endraw %}"))),
    path("nonce", public(600)(page("{% raw %}{{ csp_nonce }}{% endraw %}"))),
    path("messages", public(600)(show_messages)),
    path("message", public(600)(message)),
    path("shown_message", public(600)(shown_message)),
    path("cookie", public(600)(cookie)),
    path("error", public(600)(lambda request: HttpResponse(status=503))),
]


@pytest.mark.parametrize("path", ["page", "messages"])
@pytest.mark.parametrize("headers", [{}, {"cookie": "sessionid=c3dd4acbf1e94a6c; name=ada"}])
def test_public(client, path, headers):
    response = client.get(f"/{path}", headers=headers)

    assert {"public", "max-age=0", "s-maxage=600"} < set(response["Cache-Control"].split(", "))
    assert not response.has_header("Vary")
    assert client.get(f"/{path}", headers={"if-none-match": response["ETag"]}).status_code == 304


@pytest.mark.parametrize("path", ["user", "form", "nonce", "message", "shown_message", "cookie", "error"])
def test_public_gives_way(client, settings, caplog, path):
    settings.DEBUG = True

    response = client.get(f"/{path}")

    assert response["Cache-Control"] == "private"
    assert f"/{path} is not public as its view says" in caplog.text


def test_public_gives_way_silently_on_servers(client, caplog):
    with caplog.at_level(logging.WARNING):
        assert client.get("/form")["Cache-Control"] == "private"

    assert caplog.text == ""


@pytest.mark.parametrize("path", ["/", "/no/such/page"])
def test_private_by_default(client, path):
    assert client.get(path)["Cache-Control"] == "private"


@pytest.fixture
def with_languages(settings):
    """Let visitors choose a language."""
    settings.LANGUAGES = [("en", "English"), ("de", "Deutsch"), ("fr", "Français")]
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "{{ cookiecutter.project_slug }}.scaling.http.languages.LocaleMiddleware",
    ]
    with translation.override(None):  # the middleware leaves the last visitor's language behind
        yield


@pytest.mark.parametrize("cookie", ["", "django_language=de"])
def test_language_of_the_visitor_is_private(client, with_languages, cookie):
    assert client.get("/page", headers={"cookie": cookie})["Cache-Control"] == "private"


@pytest.mark.parametrize(
    ("address", "prefixed", "is_public"),
    [("/de/page", True, True), ("/de/page", False, True), ("/page", False, True), ("/other", True, False)],
)
def test_language_in_the_address(client, settings, with_languages, address, prefixed, is_public):
    settings.ROOT_URLCONF = (
        *i18n_patterns(path("page", public(600)(page("page"))), prefix_default_language=prefixed),
        path("other", public(600)(page("page"))),
    )

    response = client.get(address, headers={"cookie": "django_language=fr"})

    assert ("public" in response["Cache-Control"]) == is_public
    assert response.has_header("Vary") != is_public  # a page that varies is not kept


class Nginx(BaseHTTPRequestHandler):
    """In place of the server for purging in nginx.conf."""

    def do_GET(self):
        self.server.asked.append((self.headers["X-Forwarded-Proto"], self.headers["Host"], self.path))
        self.send_response(503)
        self.send_header("X-Purged", "1")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def nginx(settings):
    with ThreadingHTTPServer(("127.0.0.1", 0), Nginx) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings.PURGE_ADDRESSES = ["127.0.0.1:9", f"127.0.0.1:{server.server_port}"]
        yield server
        server.shutdown()


def test_purge(nginx):
    with pytest.raises(NotPurgedError, match=r"127\.0\.0\.1:9 has not purged"):
        purge(["https://example.com", "https://Example.com:443/straße/?q=ä%20b#there"])

    assert nginx.asked == [
        ("https", "example.com", "/"),
        ("https", "example.com", "/stra%C3%9Fe/?q=%C3%A4%20b"),
    ]


@pytest.mark.parametrize("url", ["/a/", "https:///a/", "example.com/a/"])
def test_purge_of_something_else(nginx, url):
    with pytest.raises(CommandError, match=f"{url} is no URL"):
        call_command("purge", "https://example.com/a/", url)

    assert nginx.asked == []


def test_nothing_to_purge():
    purge(["https://example.com/a/"])

    with pytest.raises(CommandError, match="PURGE_ADDRESSES names no nginx"):
        call_command("purge", "https://example.com/a/")


def test_middleware_is_missed(settings):
    assert pages_are_private() == []
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.endswith(".cache_headers")]

    assert [error.id for error in pages_are_private()] == ["scaling.E005"]
