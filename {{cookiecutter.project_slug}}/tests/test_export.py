import csv
import io
import tracemalloc

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.translation import gettext_lazy

from {{ cookiecutter.project_slug }}.scaling.export import CHUNK_ROWS, csv_response

pytestmark = pytest.mark.django_db

User = get_user_model()
COLUMNS = {gettext_lazy("Name"): "username", "Staff": "is_staff"}


def rows(response):
    text = b"".join(response).decode()
    assert text.startswith("\ufeff")  # or Excel takes it for another encoding
    return list(csv.reader(io.StringIO(text[1:], newline="")))


def test_csv_response():
    User.objects.create(username="Žofie, “the first”", is_staff=True)

    response = csv_response(User.objects.all(), "users.csv", COLUMNS)

    assert rows(response) == [["Name", "Staff"], ["Žofie, “the first”", "True"]]
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"] == 'attachment; filename="users.csv"'


def test_csv_response_of_nothing():
    assert rows(csv_response(User.objects.all(), "users.csv", COLUMNS)) == [["Name", "Staff"]]


def test_filename_beyond_ascii():
    """Every browser understands RFC 6266's form of it."""
    response = csv_response(User.objects.none(), 'Žofie "2026".csv', COLUMNS)

    assert response["Content-Disposition"] == "attachment; filename*=utf-8''%C5%BDofie%20%222026%22.csv"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r\n=1", " =1", "\uff1d1"])
def test_formula(text):
    User.objects.create(first_name=text)

    assert rows(csv_response(User.objects.all(), "users.csv", {"=1": "first_name"})) == [["'=1"], [f"'{text}"]]


@pytest.mark.parametrize("text", ["", "1-1", "a@example.com"])
def test_no_formula(text):
    User.objects.create(first_name=text)

    assert rows(csv_response(User.objects.all(), "users.csv", {"Name": "first_name"})) == [["Name"], [text]]


def test_negative_number_is_no_formula():
    User.objects.create(pk=-5)

    assert rows(csv_response(User.objects.all(), "users.csv", {"ID": "pk"})) == [["ID"], ["-5"]]


def test_every_row_once(many_users):
    """Ordered otherwise or not, from a table with gaps: each row comes, and no row twice."""
    User.objects.filter(username__endswith="7").delete()
    response = csv_response(User.objects.order_by("?"), "users.csv", {"Name": "username"})
    names = [name for (name,) in rows(response)[1:]]

    assert len(names) == 90_000
    assert set(names) == set(User.objects.values_list("username", flat=True))


def test_first_bytes_before_the_last_row(many_users):
    with CaptureQueriesContext(connection) as queries:
        pieces = iter(csv_response(User.objects.all(), "users.csv", COLUMNS))
        next(pieces)
        assert b"user1," in next(pieces)

    assert len(queries) == 1
    assert f"LIMIT {CHUNK_ROWS}" in queries[0]["sql"]


def test_memory(many_users):
    """A hundred times the rows take no more memory: 100,000 of them as objects would be 60 MB."""
    response = csv_response(User.objects.all(), "users.csv", COLUMNS)
    tracemalloc.start()
    try:
        size = sum(len(piece) for piece in response)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size > 1_000_000
    assert peak < 2_000_000
