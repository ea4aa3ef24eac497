from types import SimpleNamespace

import pytest
from django.http import HttpResponse, HttpResponseRedirect
from django.test import RequestFactory

from {{ cookiecutter.project_slug }}.scaling.http import rate_limit
from {{ cookiecutter.project_slug }}.scaling.http.rate_limit import rate_limited

pytestmark = pytest.mark.django_db

NOON = 1_800_000_000 // 3600 * 3600


def answer(request):
    return HttpResponseRedirect("/") if request.POST.get("password") == "right" else HttpResponse()


@pytest.fixture
def clock(monkeypatch):
    """Set the time, in seconds after the beginning of a window."""

    def set_clock(seconds):
        monkeypatch.setattr(rate_limit, "time", SimpleNamespace(time=lambda: NOON + seconds))

    set_clock(0)
    return set_clock


@pytest.fixture
def post(settings, clock):
    """Post a form as somebody; return the response."""
    settings.RATE_LIMITS = {"try": {"seconds": 3600, "per_address": 5, "per_account": 2}}
    view = rate_limited("try", account="name", only_failures=True)(answer)

    def post(name="ada", address="192.0.2.1", method="post", **form):
        request = getattr(RequestFactory(), method)("/", {"name": name} | form, REMOTE_ADDR=address)
        return view(request)

    return post


def statuses(responses):
    return [response.status_code for response in responses]


def test_per_account(post):
    assert statuses(post() for _ in range(3)) == [200, 200, 429]
    assert post("grace").status_code == 200
    assert post(address="192.0.2.2").status_code == 200


def test_per_address(post):
    assert statuses(post(str(number)) for number in range(6)) == [200] * 5 + [429]
    assert post("0", address="192.0.2.2").status_code == 200


def test_what_is_refused_for_one_account_leaves_the_others_their_attempts(post):
    for _ in range(20):
        post()

    assert statuses(post(str(number)) for number in range(4)) == [200, 200, 200, 429]


def test_success_is_not_counted(post):
    assert statuses(post(password="right") for _ in range(10)) == [302] * 10
    assert statuses(post() for _ in range(3)) == [200, 200, 429]
    assert post(password="right").status_code == 429


def test_looking_is_not_counted(post):
    assert statuses(post(method="get") for _ in range(10)) == [200] * 10


def test_window(post, clock):
    clock(3000.5)
    assert statuses(post() for _ in range(3)) == [200, 200, 429]
    assert post()["Retry-After"] == "600"

    clock(3599.9)
    assert post()["Retry-After"] == "1"

    clock(3600)
    assert post().status_code == 200


@pytest.mark.parametrize("name", ["Ada", " ada ", "ADA", "\uff41da"])
def test_ways_to_write_a_name(post, name):
    post()
    post()

    assert post(name).status_code == 429


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("2001:db8:0:1::9", True),
        ("2001:db8:0:1:ffff::", True),
        ("2001:db8:0:2::1", False),
        ("192.0.2.1", False),
        ("", False),
    ],
)
def test_ipv6_by_network(post, address, same):
    for _ in range(2):
        post(address="2001:db8:0:1::1")

    assert (post(address=address).status_code == 429) == same


def test_ipv4_in_ipv6(post):
    for _ in range(2):
        post()

    assert post(address="::ffff:192.0.2.1").status_code == 429
    assert post(address="::ffff:192.0.2.2").status_code == 200


def test_refusal_is_kept_by_no_cache(post):
    refused = [post() for _ in range(3)][-1]

    assert "no-store" in refused["Cache-Control"]
    assert "Too many attempts" in refused.text


def test_cache_that_keeps_nothing(post, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

    assert statuses(post() for _ in range(10)) == [200] * 10
