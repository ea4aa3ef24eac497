import pytest
from django.db import connection

from {{ cookiecutter.project_slug }}.scaling import checks, timeouts


def test_timeouts_nest():
    assert checks.timeouts_nest() == []


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        ("DATABASE_LOCK", "DATABASE_STATEMENT"),
        ("REQUEST", "GRACEFUL"),
        ("PROXY_KEEPALIVE", "KEEPALIVE"),
        ("COMMAND_LOCK", "DATABASE_LOCK"),
    ],
)
def test_timeouts_that_do_not_nest_are_named(monkeypatch, inner, outer):
    seconds = getattr(timeouts, outer)
    monkeypatch.setattr(timeouts, inner, seconds)

    message = f"{inner} ({seconds} s) is not shorter than {outer} ({seconds} s)."
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


@pytest.fixture
def spare(settings):
    """Return with how many threads one worker takes all connections."""
    settings.DATABASE_POOLER = "none"
    settings.WORKERS, settings.THREADS, settings.HOSTS = 1, 0, 1
{% if cookiecutter.use_celery %}
    settings.CELERY_WORKER_CONCURRENCY = 1
{% endif %}
    return accepted() - checks.RESERVE - sum(checks.connections_held("default").values())


@pytest.mark.django_db(databases="__all__")
def test_connections_suffice(settings, spare):
    settings.THREADS = spare

    assert checks.connections_suffice(databases=["default"]) == []


@pytest.mark.django_db(databases="__all__")
def test_connections_short_by_one(settings, spare):
    settings.THREADS = spare + 1

    warning, *_ = checks.connections_suffice(databases=["default"])

    assert f"need {accepted() + 1} connections; default accepts {accepted()}." in warning.msg
    assert "Lower WORKERS, THREADS or HOSTS" in warning.hint


@pytest.mark.django_db
def test_connections_of_a_pooler_are_not_counted(settings):
    settings.HOSTS, settings.DATABASE_POOLER = 10_000, "pgbouncer"

    assert checks.connections_suffice(databases=["default"]) == []
