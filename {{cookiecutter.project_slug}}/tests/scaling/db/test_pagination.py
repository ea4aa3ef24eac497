import pytest
from django.contrib import admin
from django.core.paginator import EmptyPage, PageNotAnInteger
from django.db import connection
from django.db.models import Q
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.views.generic import ListView

from {{ cookiecutter.project_slug }}.scaling.db import pagination
from {{ cookiecutter.project_slug }}.scaling.db.pagination import (
    EstimatedPaginator,
    UncountedPaginator,
    estimated_count,
)
from tests.scaling.models import Person

pytestmark = pytest.mark.usefixtures("people")


class People(ListView):
    queryset = Person.objects.order_by("pk")
    paginate_by = 20
    paginator_class = UncountedPaginator
    template_name = "base.html"


urlpatterns = [path("", People.as_view(), name="home")]


@pytest.fixture
def queries():
    with CaptureQueriesContext(connection) as captured:
        yield captured


def people_in_order(number):
    Person.objects.bulk_create(Person(name=f"person{n}") for n in range(number))
    return Person.objects.order_by("pk")


@pytest.mark.parametrize(
    ("rows", "number", "length", "follows", "end"),
    [(0, 1, 0, False, 0), (9, 1, 9, False, 9), (10, 1, 10, False, 10), (11, 1, 10, True, 10), (11, 2, 1, False, 11)],
)
def test_page(rows, number, length, follows, end):
    page = UncountedPaginator(people_in_order(rows), 10).page(number)

    assert len(page) == length
    assert page.has_next() is follows
    assert page.has_previous() is (number > 1)
    assert page.end_index() == end


def test_page_orphans():
    """A page takes in so few rows of the next one, as Django's paginator has it."""
    paginator = UncountedPaginator(people_in_order(23), 10, orphans=3)

    assert len(paginator.page(1)) == 10
    assert len(paginator.page(2)) == 13
    assert not paginator.page(2).has_next()


def test_page_of_nothing():
    paginator = UncountedPaginator(people_in_order(10), 10)

    for number in (2, 0, -1, 10**30):
        with pytest.raises(EmptyPage):
            paginator.page(number)
    for number in ("", "x", None, 1.5):
        with pytest.raises(PageNotAnInteger):
            paginator.page(number)
    with pytest.raises(EmptyPage):
        paginator.page(1).next_page_number()
    with pytest.raises(EmptyPage):
        UncountedPaginator(Person.objects.none(), 10, allow_empty_first_page=False).page(1)


def test_get_page_of_nothing():
    paginator = UncountedPaginator(people_in_order(11), 10)

    assert [paginator.get_page(number).number for number in ("2", "3", "x", -1)] == [2, 1, 1, 1]


def test_page_of_many_rows(client, many_people, queries):
    response = client.get("/?page=4000")

    page = response.context["page_obj"]
    assert response.context["is_paginated"]
    assert (page.previous_page_number(), page.next_page_number()) == (3999, 4001)
    assert (page.start_index(), page.end_index()) == (79_981, 80_000)
    assert [query["sql"].split("LIMIT")[1].split() for query in queries] == [["21", "OFFSET", "79980"]]


@pytest.mark.parametrize("page", ["last", "0", "x", "9" * 30, "5001"])
def test_no_such_page(client, page):
    assert client.get("/", {"page": page}).status_code == 404


def test_page_beyond_max_rows(many_people, monkeypatch):
    monkeypatch.setattr(pagination, "MAX_ROWS", 1000)
    paginator = UncountedPaginator(Person.objects.order_by("pk"), 100)

    assert not paginator.page(10).has_next()
    with pytest.raises(EmptyPage):
        paginator.page(11)


@pytest.mark.parametrize("condition", [Q(), Q(is_staff=False), Q(pk__gt=0)], ids=["all", "most", "range"])
def test_estimated_count(many_people, queries, condition):
    found = Person.objects.filter(condition).order_by("name")
    estimate = estimated_count(found)

    assert [query["sql"].startswith("EXPLAIN") for query in queries] == [True]
    assert estimate == pytest.approx(found.count(), rel=0.05)


def test_estimated_count_follows_the_table(many_people):
    """What has come since the last ANALYZE is counted in, by the size that the table has now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tests_person (name, nickname, note, is_staff)"
            " SELECT 'new' || name, 'Ada', 'Byron', is_staff FROM tests_person"
        )

    assert estimated_count(Person.objects.all()) == pytest.approx(200_000, rel=0.1)


@pytest.mark.parametrize(
    ("condition", "expected"), [(Q(name__in=["person1", "person7"]), 2), (Q(pk=-1), 0), (Q(pk__in=[]), 0)]
)
def test_estimated_count_is_exact_for_few(many_people, condition, expected):
    assert estimated_count(Person.objects.filter(condition)) == expected


def test_estimated_count_of_a_new_table():
    people_in_order(3)

    assert estimated_count(Person.objects.all()) == 3


class PersonAdmin(admin.ModelAdmin):
    paginator = EstimatedPaginator
    show_full_result_count = False


def test_admin_does_not_count(rf, many_people, admin_user, queries):
    request = rf.get("/", {"p": "2"})
    request.user = admin_user

    page = PersonAdmin(Person, admin.AdminSite()).changelist_view(request).context_data["cl"]

    assert page.result_count == pytest.approx(100_000, rel=0.05)
    assert not [query["sql"] for query in queries if "COUNT(*)" in query["sql"]]
