import io
import json

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

pytestmark = pytest.mark.django_db

User = get_user_model()


def explain(sql=None):
    output = io.StringIO()
    call_command("explain", *([sql] if sql else []), stdout=output)
    return output.getvalue()


def logged(queryset):
    """Return the SQL of a query as an execute wrapper sees it, with placeholders."""
    statements = []

    def record(execute, sql, params, many, context):
        statements.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(record):
        list(queryset)
    return statements[0]


def test_index_is_used(many_users):
    sql = logged(User.objects.filter(username="user7", is_staff=True))

    assert "%s" in sql
    assert "Index Scan using accounts_user_username" in explain(sql)


def test_index_is_missing(many_users):
    sql = logged(User.objects.filter(last_login__gt=timezone.now(), email__icontains="%")[:20])

    assert "Seq Scan on accounts_user" in explain(sql)


def test_standard_input(many_users, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT username FROM accounts_user WHERE username LIKE 'a%%'\n"))

    assert "~~ 'a%'" in explain()


def test_line_of_the_log(many_users):
    line = json.dumps({"message": "Slow query", "sql": 'SELECT "id" FROM "accounts_user" WHERE "id" = %s'})

    assert "Index Only Scan" in explain(line + "\n")


def test_runs_nothing(many_users):
    assert "Delete on accounts_user" in explain("DELETE FROM accounts_user WHERE id > %s")
    with pytest.raises(CommandError, match="read-only"):
        explain("SELECT 1; DELETE FROM accounts_user")
    assert User.objects.count() == 100_000


def test_error():
    with pytest.raises(CommandError, match='relation "nothing" does not exist'):
        explain("SELECT * FROM nothing")
