import pytest
from django.http import HttpResponse
from django.urls import path
from django.utils.translation import gettext

MIDDLEWARE = "{{ cookiecutter.project_slug }}.scaling.http.languages.LocaleMiddleware"

urlpatterns = [path("", lambda request: HttpResponse(gettext("March")))]


@pytest.fixture
def languages(settings):
    before = settings.MIDDLEWARE.index("django.middleware.common.CommonMiddleware")
    settings.MIDDLEWARE = [*settings.MIDDLEWARE[:before], MIDDLEWARE, *settings.MIDDLEWARE[before:]]


@pytest.mark.usefixtures("languages")
def test_one_language(client, settings):
    settings.LANGUAGES = [("en", "English")]

    response = client.get("/", headers={"Accept-Language": "de"})

    assert response.text == "March"
    assert not response.has_header("Vary")


@pytest.mark.usefixtures("languages")
def test_two_languages(client, settings):
    settings.LANGUAGES = [("en", "English"), ("de", "Deutsch")]

    response = client.get("/", headers={"Accept-Language": "de-AT,en;q=0.5"})

    assert response.text == "März"
    assert response["Vary"] == "Accept-Language"
    assert client.get("/").text == "March"


@pytest.mark.usefixtures("languages")
def test_what_is_refused_before_is_not_in_the_last_language(client, settings):
    settings.LANGUAGES = [("en", "English"), ("de", "Deutsch")]
    settings.MAX_BODY_SIZE = 10

    client.get("/", headers={"Accept-Language": "de"})
    response = client.post("/", b"x" * 11, content_type="text/plain")

    assert response.status_code == 413
    assert 'lang="de"' not in response.text
