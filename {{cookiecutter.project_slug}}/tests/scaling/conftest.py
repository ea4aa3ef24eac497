"""What the tests of scaling/ share: models, addresses and middlewares that do not change with the project."""

import logging

import pytest
from django.db import connection

from tests.scaling.models import Person


@pytest.fixture(autouse=True)
def own_site(request, settings, caplog):
    """A site with the addresses of the test's file, in English, without middlewares of the project's own."""
    known = ("django.", "whitenoise.", "{{ cookiecutter.project_slug }}.scaling.")
    language = "{{ cookiecutter.project_slug }}.scaling.http.languages.LocaleMiddleware"
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name.startswith(known) and name != language]
    settings.ROOT_URLCONF = request.module.__name__ if hasattr(request.module, "urlpatterns") else "tests.scaling.urls"
    settings.LOGIN_REDIRECT_URL = "/"
    settings.LANGUAGE_CODE = "en-us"
    caplog.set_level(logging.INFO)


@pytest.fixture
def people(db):
    """The table of people, empty."""
    with connection.schema_editor() as editor:
        editor.create_model(Person)


@pytest.fixture
def many_people(people):
    """A table of 100,000 people, analysed: person1, person2 …; every tenth is on the staff."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tests_person (name, nickname, note, is_staff)"
            " SELECT 'person' || n, 'Ada', 'Byron', n % 10 = 0 FROM generate_series(1, 100000) AS n"
        )
        cursor.execute("ANALYZE tests_person")
