import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from tests.scaling.models import Person

pytestmark = pytest.mark.django_db


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


def test_index_is_used(many_people):
    sql = logged(Person.objects.filter(name="person7", is_staff=True))

    assert "%s" in sql
    assert "Index Scan using tests_person_name" in explain(sql)


def test_index_is_missing(many_people):
    sql = logged(Person.objects.filter(is_staff=True, note__icontains="%")[:20])

    assert "Seq Scan on tests_person" in explain(sql)


def test_standard_input(many_people, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT name FROM tests_person WHERE name LIKE 'a%%'\n"))

    assert "~~ 'a%'" in explain()


def test_line_of_the_log(many_people):
    line = json.dumps({"message": "Slow query", "sql": 'SELECT "id" FROM "tests_person" WHERE "id" = %s'})

    assert "Index Only Scan" in explain(line + "\n")


def test_runs_nothing(many_people):
    assert "Delete on tests_person" in explain("DELETE FROM tests_person WHERE id > %s")
    with pytest.raises(CommandError, match="read-only"):
        explain("SELECT 1; DELETE FROM tests_person")
    assert Person.objects.count() == 100_000


def test_error():
    with pytest.raises(CommandError, match='relation "nothing" does not exist'):
        explain("SELECT * FROM nothing")
