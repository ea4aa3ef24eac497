import csv
import io
import tracemalloc
from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.core.exceptions import FieldError
from django.db import DataError, connection
from django.db.models import CharField, Count, JSONField, Value
from django.test.utils import CaptureQueriesContext
from django.utils.translation import gettext_lazy

from {{ cookiecutter.project_slug }}.scaling.db.export import CHUNK_ROWS, csv_response
from tests.scaling.models import Person

pytestmark = pytest.mark.usefixtures("people")

COLUMNS = {gettext_lazy("Name"): "name", "Staff": "is_staff"}


def rows(response):
    text = b"".join(response).decode()
    assert text.startswith("\ufeff")  # or Excel takes it for another encoding
    return list(csv.reader(io.StringIO(text[1:], newline="")))


def test_csv_response():
    Person.objects.create(name="Žofie, “the first”", is_staff=True)

    response = csv_response(Person.objects.all(), "people.csv", COLUMNS)

    assert rows(response) == [["Name", "Staff"], ["Žofie, “the first”", "True"]]
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == 'attachment; filename="people.csv"'


def test_csv_response_of_a_reversed_query_set():
    number = CHUNK_ROWS + 1
    Person.objects.bulk_create(Person(name=f"person{n}") for n in range(number))

    response = csv_response(Person.objects.order_by("-name").reverse(), "people.csv", {"Number": "pk"})

    numbers = [int(pk) for (pk,) in rows(response)[1:]]
    assert numbers == sorted(Person.objects.values_list("pk", flat=True))


def test_csv_response_of_nothing():
    assert rows(csv_response(Person.objects.all(), "people.csv", COLUMNS)) == [["Name", "Staff"]]


def test_filename_beyond_ascii():
    """Every browser understands RFC 6266's form of it."""
    response = csv_response(Person.objects.none(), 'Žofie "2026".csv', COLUMNS)

    assert response["Content-Disposition"] == "attachment; filename*=utf-8''%C5%BDofie%20%222026%22.csv"


@pytest.mark.parametrize(
    ("text", "exported"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\uff1d1", "'\uff1d1"),
        (" =1", " '=1"),
        ('"=1', "\"'=1"),
        ("\t=1", "\t'=1"),
        ("\r\n=1", "\r\n'=1"),
        ("ok;=1+1", "ok;'=1+1"),
        ('ok; "=1+1;=2', "ok; \"'=1+1;'=2"),
        ("ok\n@SUM(A1)", "ok\n'@SUM(A1)"),
    ],
)
def test_formula(text, exported):
    Person.objects.create(nickname=text, note=text)
    columns = {"=1": "nickname", gettext_lazy("=2"): "note"}

    assert rows(csv_response(Person.objects.all(), "people.csv", columns)) == [["'=1", "'=2"], [exported, exported]]


SEPARATORS = [",", ";", "\t"]
BEGINNINGS = ["", "ok", "ok;", "ok,", "ok\t", "ok\n", "ok\r\n", 'ok"', 'ok";', '";"', "ok; \t", ";\u2003", '"\n"']
ENDS = ["", '"', ";", '";"', "\n"]


@pytest.mark.parametrize("separator", SEPARATORS)
def test_formula_however_the_table_is_split(separator):
    """Which separator a spreadsheet takes is a matter of its country; quotes it may count otherwise then."""
    texts = [f"{before}=cmd|' /C calc'!A0{after}" for before in BEGINNINGS for after in ENDS]
    Person.objects.bulk_create(Person(name=f"{n}", nickname=text, note=text) for n, text in enumerate(texts))
    columns = {"Name": "nickname", "Family name": "note", "Number": "pk"}
    text = b"".join(csv_response(Person.objects.all(), "people.csv", columns)).decode()

    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    unquoted = text.replace('"', "").replace("\n", separator).split(separator) if separator != "," else []

    assert [cell for row in table for cell in row if cell.strip(' "\u2003').startswith("=")] == []
    assert [cell for cell in unquoted if cell.strip().startswith("=")] == []


def test_text_of_other_values():
    """What is no number becomes a text, and may be a formula then."""
    Person.objects.create(nickname="name")
    values = {
        "json": Value({"a": ";=1;"}, JSONField()),
        "span": Value(timedelta(days=-1)),
        "none": Value(None, CharField()),
        "fraction": Value(Decimal("-1.5")),
        "day": Value(date(2026, 1, 2)),
    }

    response = csv_response(Person.objects.annotate(**values), "people.csv", {name: name for name in values})

    assert rows(response)[1:] == [["{'a': ';'=1;'}", "'-1 day, 0:00:00", "", "-1.5", "2026-01-02"]]


def test_every_cell_is_quoted():
    Person.objects.create(pk=5, nickname='a "b"\tc\nd')

    response = csv_response(Person.objects.all(), "people.csv", {"ID": "pk", "Name": "nickname"})

    assert b"".join(response).decode() == '\ufeff"ID","Name"\r\n"5","a ""b""\tc\nd"\r\n'


@pytest.mark.parametrize("text", ["", "1-1", "a@example.com", "a; b - c", "1,-1"])
def test_no_formula(text):
    Person.objects.create(nickname=text)

    assert rows(csv_response(Person.objects.all(), "people.csv", {"Name": "nickname"})) == [["Name"], [text]]


def test_negative_number_is_no_formula():
    Person.objects.create(pk=-5)

    assert rows(csv_response(Person.objects.all(), "people.csv", {"ID": "pk"})) == [["ID"], ["-5"]]


def test_every_row_once(many_people):
    """Ordered otherwise or not, from a table with gaps: each row comes, and no row twice."""
    Person.objects.filter(name__endswith="7").delete()
    response = csv_response(Person.objects.order_by("?"), "people.csv", {"Name": "name"})
    names = [name for (name,) in rows(response)[1:]]

    assert len(names) == 90_000
    assert set(names) == set(Person.objects.values_list("name", flat=True))


@pytest.mark.parametrize(
    ("queryset", "columns", "error", "message"),
    [
        (Person.objects.all()[:5], COLUMNS, TypeError, "slice"),
        (Person.objects.all().union(Person.objects.all()), COLUMNS, TypeError, "union"),
        (Person.objects.values("is_staff").annotate(n=Count("pk")), {"Number": "n"}, TypeError, "annotate"),
        (Person.objects.distinct("is_staff"), COLUMNS, TypeError, "distinct"),
        (Person.objects.raw("SELECT * FROM tests_person"), COLUMNS, TypeError, "raw SQL"),
        (Person.objects.all(), {"Colour": "colour"}, FieldError, "colour"),
        (Person.objects.extra(where=["1 = 1/0"]), COLUMNS, DataError, "division by zero"),
    ],
    ids=["slice", "union", "groups", "distinct", "raw", "unknown field", "error of the database"],
)
def test_refused_before_the_response_begins(queryset, columns, error, message):
    """A response that has begun could only break off."""
    with pytest.raises(error, match=message):
        csv_response(queryset, "people.csv", columns)


def test_first_bytes_before_the_last_row(many_people):
    with CaptureQueriesContext(connection) as queries:
        pieces = iter(csv_response(Person.objects.all(), "people.csv", COLUMNS))
        next(pieces)
        assert b'"person1",' in next(pieces)

    assert len(queries) == 1
    assert f"LIMIT {CHUNK_ROWS}" in queries[0]["sql"]


def test_memory(many_people):
    """A hundred times the rows take no more memory: 100,000 of them as objects would be 60 MB."""
    response = csv_response(Person.objects.all(), "people.csv", COLUMNS)
    tracemalloc.start()
    try:
        size = sum(len(piece) for piece in response)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size > 1_000_000
    assert peak < 2_000_000
