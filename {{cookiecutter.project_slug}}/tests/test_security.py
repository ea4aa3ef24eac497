import pytest
from django.conf import settings
from django.core import mail
from django.core.mail import MailerDoesNotExist, send_mail
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client, RequestFactory

from {{ cookiecutter.project_slug }}.scaling.http.proxies import trusted_proxies
from {{ cookiecutter.project_slug }}.scaling.mail import mailer

PROXIES = ["10.0.0.0/8", "2001:db8:1::/48"]


def seen(settings, peer, proxies=PROXIES, **headers):
    """Return the address and the scheme of a request as the application sees them."""
    settings.TRUSTED_PROXIES = proxies
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR=peer)
    trusted_proxies(lambda request: HttpResponse())(request)
    assert "X-Forwarded-For" not in request.headers
    return request.META["REMOTE_ADDR"], request.scheme


@pytest.mark.parametrize(
    ("forwarded_for", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("192.0.2.66, 203.0.113.9", "203.0.113.9"),
        ("192.0.2.66, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("192.0.2.66,203.0.113.9:4711,2001:db8:1::5", "203.0.113.9"),
        ("2001:db8::9", "2001:db8::9"),
        ("[2001:db8::9]", "2001:db8::9"),
        ("192.0.2.66, [2001:db8::9]:4711", "2001:db8::9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, ::ffff:10.0.0.2", "203.0.113.9"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("203.0.113.9, unknown", "10.0.0.1"),
        ("unknown, 10.0.0.2", "10.0.0.2"),
        ("203.0.113.999", "10.0.0.1"),
        ("", "10.0.0.1"),
        (",,", "10.0.0.1"),
        ("'; DROP TABLE visitors", "10.0.0.1"),
    ],
)
def test_address_behind_proxies(settings, forwarded_for, address):
    headers = {"x-forwarded-for": forwarded_for}

    assert seen(settings, "10.0.0.1", **headers) == (address, "http")
    assert seen(settings, "::ffff:10.0.0.1", **headers)[0] == address


@pytest.mark.parametrize("peer", ["192.0.2.1", "2001:db8:2::1"])
@pytest.mark.parametrize("proxies", [PROXIES, []])
def test_headers_of_others_are_dropped(settings, peer, proxies):
    headers = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}

    assert seen(settings, peer, proxies, **headers) == (peer, "http")


def test_peer_of_a_unix_socket_is_a_proxy(settings):
    headers = {"x-forwarded-for": "192.0.2.66, 203.0.113.9", "x-forwarded-proto": "https"}

    assert seen(settings, "", [], **headers) == ("203.0.113.9", "https")


@pytest.mark.parametrize(
    ("forwarded", "scheme"),
    [("https", "https"), ("http", "http"), ("https,http", "http"), ("http, https", "https"), ("", "http")],
)
def test_scheme_is_the_nearest_proxys(settings, forwarded, scheme):
    assert seen(settings, "10.0.0.1", **{"x-forwarded-proto": forwarded})[1] == scheme


def test_check_deploy_is_silent():
    call_command("check", deploy=True, fail_level="WARNING")


def test_session_cookie(client, admin_user):
    client.post("/admin/login/", {"username": "admin", "password": "password"})

    cookie = client.cookies[settings.SESSION_COOKIE_NAME]

    assert cookie["httponly"]
    assert cookie["secure"]
    assert cookie["samesite"] == "Lax"


def test_plain_http_is_redirected():
    response = Client().get("/")

    assert (response.status_code, response["Location"]) == (301, "https://testserver/")


def test_hsts_over_https_only(client):
    assert client.get("/")["Strict-Transport-Security"] == "max-age=3600"
    assert "Strict-Transport-Security" not in Client().get("/")


def test_body_limit(client, settings):
    settings.MAX_BODY_SIZE = 10

    assert client.post("/", b"x" * 11, content_type="text/plain").status_code == 413
    assert client.post("/", b"x" * 10, content_type="text/plain").status_code != 413


def test_policies(client, settings):
    settings.PERMISSIONS_POLICY = "camera=()"

    assert client.get("/")["Permissions-Policy"] == "camera=()"
    assert "unsafe" not in client.get("/")["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("url", "host", "port", "use_tls", "use_ssl"),
    [
        ("smtp+tls://ada:p%40ss@mail.example", "mail.example", 587, True, False),
        ("smtps://ada:p%40ss@mail.example", "mail.example", 465, False, True),
        ("smtp://ada:p%40ss@[::1]:1025", "::1", 1025, False, False),
    ],
)
def test_mailer(settings, url, host, port, use_tls, use_ssl):
    settings.MAILERS = {"default": mailer(url)}

    connection = mail.mailers.default

    assert (connection.host, connection.port) == (host, port)
    assert (connection.username, connection.password) == ("ada", "p@ss")
    assert (connection.use_tls, connection.use_ssl) == (use_tls, use_ssl)
    assert 0 < connection.timeout < 10


def test_mail_without_a_server_is_an_error(settings):
    settings.MAILERS = {}

    with pytest.raises(MailerDoesNotExist):
        send_mail("Subject", "Text", None, ["ada@example.com"])
