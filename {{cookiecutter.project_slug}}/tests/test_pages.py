"""The home page, and the error pages, which need no database."""

import re
from unittest import mock

import pytest
from django.conf import settings
from django.contrib import messages
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpResponse
from django.urls import path, reverse
from pytest_django.asserts import assertTemplateUsed

from {{ cookiecutter.project_slug }}.urls import urlpatterns as site


def fail(request, error):
    raise error


def add_message(request):
    messages.info(request, "It is <saved>.")
    return HttpResponse()


urlpatterns = [
    path("message/", add_message),
    path("400/", fail, {"error": SuspiciousOperation}),
    path("403/", fail, {"error": PermissionDenied}),
    path("404/", fail, {"error": Http404}),
    path("500/", fail, {"error": RuntimeError}),
    *site,
]


def test_home(client, db):
    assert client.get(reverse("home")).status_code == 200


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_error(client, status):
    client.raise_request_exception = False

    response = client.get(f"/{status}/")

    assert response.status_code == status
    assertTemplateUsed(response, f"{status}.html")


def test_error_when_the_body_is_too_large(client, settings):
    response = client.post("/", b"x" * (settings.MAX_BODY_SIZE + 1), content_type="text/plain")

    assert response.status_code == 413
    assert response["Content-Security-Policy"]
    assertTemplateUsed(response, "413.html")


@pytest.mark.urls(__name__)
def test_error_without_csrf_token(client):
    client.handler.enforce_csrf_checks = True

    response = client.post("/404/")

    assert response.status_code == 403
    assertTemplateUsed(response, "403_csrf.html")


@pytest.mark.urls(__name__)
def test_error_when_a_static_file_is_missing(client):
    client.raise_request_exception = False

    with mock.patch.dict(staticfiles_storage.hashed_files, clear=True):
        response = client.get("/404/")

    assert response.status_code == 500
    assertTemplateUsed(response, "500.html")


@pytest.mark.urls(__name__)
def test_pages_link_collected_files(client):
    links = re.findall(r'<link rel="\w+" href="([^"]+)">', client.get("/404/").text)
    names = [url.removeprefix(settings.STATIC_URL) for url in links if url.startswith(settings.STATIC_URL)]

    assert names
    for name in names:
        assert re.search(r"\.[0-9a-f]{12}\.\w+$", name), f"{name} is not named after its content"
        assert staticfiles_storage.exists(name)


@pytest.mark.urls(__name__)
def test_pages_show_messages(client):
    client.get("/message/")

    assert "It is &lt;saved&gt;." in client.get("/404/").text
    assert "It is" not in client.get("/404/").text
