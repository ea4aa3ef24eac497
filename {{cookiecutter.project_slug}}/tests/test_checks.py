import pytest
from django.db import connection

from {{ cookiecutter.project_slug }}.scaling import checks, timeouts


def test_timeouts_nest():
    assert checks.timeouts_nest() == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DATABASE_LOCK", 5, "DATABASE_LOCK (5 s) is not shorter than DATABASE_STATEMENT (5 s)."),
        ("REQUEST", 16, "REQUEST (16 s) is not shorter than GRACEFUL (15 s)."),
        ("KEEPALIVE", 60, "PROXY_KEEPALIVE (60 s) is not shorter than KEEPALIVE (60 s)."),
        ("COMMAND_LOCK", 4, "COMMAND_LOCK (4 s) is not shorter than DATABASE_LOCK (3 s)."),
    ],
)
def test_timeouts_that_do_not_nest_are_named(monkeypatch, name, value, message):
    monkeypatch.setattr(timeouts, name, value)

    assert message in [error.msg for error in checks.timeouts_nest()]


def test_timeouts_nest_around_one_that_is_off(monkeypatch):
    monkeypatch.setattr(timeouts, "REQUEST", None)

    assert checks.timeouts_nest() == []


def accepted():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        )
        return cursor.fetchone()[0]


@pytest.mark.django_db
def test_connections_suffice(settings):
    settings.DATABASE_POOLER = "none"
    settings.WORKERS, settings.THREADS, settings.HOSTS = 1, accepted() - checks.RESERVE - 1, 1

    assert checks.connections_suffice(databases=["default"]) == []


@pytest.mark.django_db
def test_connections_short_by_one(settings):
    settings.DATABASE_POOLER = "none"
    settings.WORKERS, settings.THREADS, settings.HOSTS = 1, accepted() - checks.RESERVE, 1

    (warning,) = checks.connections_suffice(databases=["default"])

    assert f"need {accepted() + 1} connections; PostgreSQL accepts {accepted()}." in warning.msg
    assert "Lower WORKERS, THREADS or HOSTS" in warning.hint


@pytest.mark.django_db
def test_connections_of_a_pooler_are_not_counted(settings):
    settings.HOSTS, settings.DATABASE_POOLER = 10_000, "pgbouncer"

    assert checks.connections_suffice(databases=["default"]) == []
