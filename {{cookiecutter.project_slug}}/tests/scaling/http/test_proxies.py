import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import path

from {{ cookiecutter.project_slug }}.scaling.http.proxies import trusted_proxies

PROXIES = ["10.0.0.0/8", "2001:db8:1::/48"]

urlpatterns = [path("", lambda request: HttpResponse(request.headers.get("X-Forwarded-For", "none")))]


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


def test_no_view_sees_what_was_dropped(client):
    """No middleware before this one may ask for request.headers, which are kept as they are at first."""
    response = client.get("/", headers={"x-forwarded-for": "203.0.113.9"}, REMOTE_ADDR="192.0.2.1")

    assert response.content == b"none"


def test_peer_of_a_unix_socket_is_a_proxy(settings):
    headers = {"x-forwarded-for": "192.0.2.66, 203.0.113.9", "x-forwarded-proto": "https"}

    assert seen(settings, "", [], **headers) == ("203.0.113.9", "https")


@pytest.mark.parametrize(
    ("forwarded", "scheme"),
    [("https", "https"), ("http", "http"), ("https,http", "http"), ("http, https", "https"), ("", "http")],
)
def test_scheme_is_the_nearest_proxys(settings, forwarded, scheme):
    assert seen(settings, "10.0.0.1", **{"x-forwarded-proto": forwarded})[1] == scheme
