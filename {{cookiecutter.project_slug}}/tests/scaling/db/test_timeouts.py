"""The timeouts of connections, and what happens to one that was closed between two requests."""

import time
from threading import Thread, Timer

import psycopg
import pytest
from django.db import close_old_connections, connection, connections
from django.db.utils import OperationalError

from {{ cookiecutter.project_slug }}.scaling import timeouts
from {{ cookiecutter.project_slug }}.scaling.db.postgresql import database

URL = "postgresql://ada:secret@db.example.com/site"


def show(name):
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        return cursor.fetchone()[0]


@pytest.fixture
def admin(transactional_db):
    """A connection to end that of the test with."""
    connection.ensure_connection()
    with psycopg.connect(connection.connection.info.dsn, autocommit=True) as admin:
        yield admin


def end_backend(admin):
    """End the server's side of the connection; return its process."""
    pid = connection.connection.info.backend_pid
    admin.execute("SELECT pg_terminate_backend(%s, 1000)", [pid])
    return pid


def test_url_wins():
    options = database(f"{URL}?connect_timeout=7&sslmode=require")["OPTIONS"]

    assert (options["connect_timeout"], options["sslmode"]) == (7, "require")


@pytest.fixture
def sent(monkeypatch):
    """Return a function that says which parameters libpq gets for an entry of DATABASES."""

    def sent(entry):
        monkeypatch.setitem(connections.settings, "other", connections.settings["default"] | entry)
        return connections.create_connection("other").get_connection_params()

    return sent


def test_options_of_the_url_come_last(sent):
    options = sent(database(f"{URL}?currentSchema=shop"))["options"]

    own = f"-c statement_timeout={timeouts.COMMAND_STATEMENT}s -c lock_timeout={timeouts.COMMAND_LOCK}s "
    assert options.startswith(own)
    assert options.endswith(" -c search_path=shop")


def test_pooler_is_sent_no_options(sent):
    entry = database(URL, "pgbouncer")

    assert "options" not in sent(entry)
    assert (entry["CONN_MAX_AGE"], entry["DISABLE_SERVER_SIDE_CURSORS"]) == (0, True)


@pytest.mark.django_db
def test_migrations_wait_longer_for_statements_than_for_locks():
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, setting::int / 1000 FROM pg_settings WHERE name ~ '^(statement|lock)_timeout$'")
        found = dict(cursor.fetchall())

    assert found == {"statement_timeout": timeouts.COMMAND_STATEMENT, "lock_timeout": timeouts.COMMAND_LOCK}


def test_closed_connection_is_replaced(admin):
    pid = end_backend(admin)
    close_old_connections()  # as at the end of a request

    assert show("statement_timeout")
    assert connection.connection.info.backend_pid != pid


def test_live_connection_is_kept_without_asking_the_server(admin):
    pid = connection.connection.info.backend_pid
    close_old_connections()
    seen = admin.execute("SELECT query_start FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()

    assert connection.is_usable()
    assert admin.execute("SELECT query_start FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() == seen


def test_connection_ends_with_its_thread(admin):
    pids = []

    def connect():
        connection.ensure_connection()
        pids.append(connection.connection.info.backend_pid)

    thread = Thread(target=connect)
    thread.start()
    thread.join()
    end = time.monotonic() + 10
    while admin.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pids).fetchone():
        assert time.monotonic() < end


def test_old_connection_is_kept_while_there_would_be_no_other(admin, monkeypatch):
    pid = connection.connection.info.backend_pid
    monkeypatch.setitem(connection.retry_at, connection.alias, time.monotonic() + 60)
    connection.close_at = time.monotonic() - 1
    close_old_connections()

    assert show("lock_timeout")
    assert connection.connection.info.backend_pid == pid


def test_wait_is_ended_and_the_next_query_succeeds(admin):
    pid = connection.connection.info.backend_pid
    start = time.monotonic()
    Timer(0.2, connection.end_wait).start()
    with pytest.raises(OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(10)")
    ended = time.monotonic()
    # The server does not notice that nobody waits for the answer, and would keep the database in use.
    admin.execute("SELECT pg_terminate_backend(%s, 1000)", [pid])
    close_old_connections()

    assert ended - start < 5
    assert show("lock_timeout")


def test_wait_that_is_none_is_not_ended(admin):
    assert not connection.end_wait()
    assert show("lock_timeout")
