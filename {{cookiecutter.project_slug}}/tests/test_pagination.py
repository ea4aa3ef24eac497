import pytest
from django.contrib.auth import get_user_model
from django.core.paginator import EmptyPage, PageNotAnInteger
from django.db import connection
from django.db.models import Q
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.views.generic import ListView

from {{ cookiecutter.project_slug }}.scaling.db import pagination
from {{ cookiecutter.project_slug }}.scaling.db.pagination import UncountedPaginator, estimated_count
from {{ cookiecutter.project_slug }}.urls import urlpatterns as site

pytestmark = pytest.mark.django_db

User = get_user_model()


class Users(ListView):
    queryset = User.objects.order_by("pk")
    paginate_by = 20
    paginator_class = UncountedPaginator
    template_name = "home.html"


urlpatterns = [*site, path("users/", Users.as_view())]


@pytest.fixture
def queries():
    with CaptureQueriesContext(connection) as captured:
        yield captured


def users(number):
    User.objects.bulk_create(User(username=f"user{n}") for n in range(number))
    return User.objects.order_by("pk")


@pytest.mark.parametrize(
    ("rows", "number", "length", "follows", "end"),
    [(0, 1, 0, False, 0), (9, 1, 9, False, 9), (10, 1, 10, False, 10), (11, 1, 10, True, 10), (11, 2, 1, False, 11)],
)
def test_page(rows, number, length, follows, end):
    page = UncountedPaginator(users(rows), 10).page(number)

    assert len(page) == length
    assert page.has_next() is follows
    assert page.has_previous() is (number > 1)
    assert page.end_index() == end


def test_page_orphans():
    """A page takes in so few rows of the next one, as Django's paginator has it."""
    paginator = UncountedPaginator(users(23), 10, orphans=3)

    assert len(paginator.page(1)) == 10
    assert len(paginator.page(2)) == 13
    assert not paginator.page(2).has_next()


def test_page_of_nothing():
    paginator = UncountedPaginator(users(10), 10)

    for number in (2, 0, -1, 10**30):
        with pytest.raises(EmptyPage):
            paginator.page(number)
    for number in ("", "x", None, 1.5):
        with pytest.raises(PageNotAnInteger):
            paginator.page(number)
    with pytest.raises(EmptyPage):
        paginator.page(1).next_page_number()
    with pytest.raises(EmptyPage):
        UncountedPaginator(User.objects.none(), 10, allow_empty_first_page=False).page(1)


def test_get_page_of_nothing():
    paginator = UncountedPaginator(users(11), 10)

    assert [paginator.get_page(number).number for number in ("2", "3", "x", -1)] == [2, 1, 1, 1]


@pytest.mark.urls(__name__)
def test_page_of_many_rows(client, many_users, queries):
    response = client.get("/users/?page=4000")

    page = response.context["page_obj"]
    assert response.context["is_paginated"]
    assert (page.previous_page_number(), page.next_page_number()) == (3999, 4001)
    assert (page.start_index(), page.end_index()) == (79_981, 80_000)
    assert [query["sql"].split("LIMIT")[1].split() for query in queries] == [["21", "OFFSET", "79980"]]


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("page", ["last", "0", "x", "9" * 30, "5001"])
def test_no_such_page(client, db, page):
    assert client.get("/users/", {"page": page}).status_code == 404


def test_page_beyond_max_rows(many_users, monkeypatch):
    monkeypatch.setattr(pagination, "MAX_ROWS", 1000)
    paginator = UncountedPaginator(User.objects.order_by("pk"), 100)

    assert not paginator.page(10).has_next()
    with pytest.raises(EmptyPage):
        paginator.page(11)


@pytest.mark.parametrize("condition", [Q(), Q(is_staff=False), Q(pk__gt=0)], ids=["all", "most", "range"])
def test_estimated_count(many_users, queries, condition):
    users = User.objects.filter(condition).order_by("username")
    estimate = estimated_count(users)

    assert [query["sql"].startswith("EXPLAIN") for query in queries] == [True]
    assert estimate == pytest.approx(users.count(), rel=0.05)


def test_estimated_count_follows_the_table(many_users):
    """What has come since the last ANALYZE is counted in, by the size that the table has now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accounts_user (username, password, first_name, last_name, email,"
            " is_superuser, is_staff, is_active, date_joined)"
            " SELECT 'new' || username, '!', 'Ada', 'Byron', '', false, is_staff, true, now() FROM accounts_user"
        )

    assert estimated_count(User.objects.all()) == pytest.approx(200_000, rel=0.1)


@pytest.mark.parametrize(
    ("condition", "expected"), [(Q(username__in=["user1", "user7"]), 2), (Q(pk=-1), 0), (Q(pk__in=[]), 0)]
)
def test_estimated_count_is_exact_for_few(many_users, condition, expected):
    assert estimated_count(User.objects.filter(condition)) == expected


def test_estimated_count_of_a_new_table():
    users(3)

    assert estimated_count(User.objects.all()) == 3


def test_admin_does_not_count(client, many_users, admin_user, queries):
    client.force_login(admin_user)

    response = client.get("/admin/accounts/user/?p=2")

    assert response.context["cl"].result_count == pytest.approx(100_001, rel=0.05)
    assert isinstance(response.context["cl"].paginator, pagination.EstimatedPaginator)
    assert not [query["sql"] for query in queries if "COUNT(*)" in query["sql"]]
