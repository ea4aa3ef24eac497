"""The pages that are in every project: home, the error pages, the admin's name. None of them needs the database."""

import re

import pytest
from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404
from django.urls import path

from {{ cookiecutter.project_slug }}.urls import urlpatterns as site


def fail(request, error):
    raise error


urlpatterns = [
    *site,
    path("400/", fail, {"error": SuspiciousOperation}),
    path("403/", fail, {"error": PermissionDenied}),
    path("404/", fail, {"error": Http404}),
    path("500/", fail, {"error": RuntimeError}),
]


def title(response):
    return re.search(r"<title>(.+)</title>", response.text)[1]


def heading(response):
    return re.search(r"<h1>(.+)</h1>", response.text)[1]


def test_home(client):
    response = client.get("/")

    assert response.status_code == 200
    assert title(response) == heading(response)


def test_home_links_collected_files(client):
    links = dict(re.findall(r'<link rel="(\w+)" href="([^"]+)">', client.get("/").text))

    assert links.keys() == {"icon", "stylesheet"}
    for url in links.values():
        name = url.removeprefix(settings.STATIC_URL)
        assert re.search(r"\.[0-9a-f]{12}\.\w+$", name), "not named after its content"
        assert staticfiles_storage.exists(name)


@pytest.mark.urls(__name__)
@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, "Bad request"), (403, "Access denied"), (404, "Page not found"), (500, "Something went wrong")],
)
def test_error(client, status, expected):
    client.raise_request_exception = False

    response = client.get(f"/{status}/")

    assert response.status_code == status
    assert heading(response) == expected
    assert title(response).startswith(f"{expected} · ")


def test_error_without_csrf_token(client):
    client.handler.enforce_csrf_checks = True

    response = client.post("/")

    assert response.status_code == 403
    assert heading(response) == "Access denied"
    assert "cookies" in response.text


def test_error_when_a_static_file_is_missing(client, monkeypatch):
    client.raise_request_exception = False
    monkeypatch.delitem(staticfiles_storage.hashed_files, "css/site.css")

    response = client.get("/")

    assert response.status_code == 500
    assert heading(response) == "Something went wrong"


def test_admin_carries_the_name_of_the_site(client):
    name = title(client.get("/no/such/page")).removeprefix("Page not found · ")

    response = client.get("/admin/login/")

    assert title(response).endswith(f" | {name}")
    assert f">{name}</a>" in response.text
