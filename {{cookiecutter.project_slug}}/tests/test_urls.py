"""Every address of the site and of the admin is visited, and may send so many queries to the database."""

import contextlib
import sys
from collections import Counter
from pathlib import Path

import pytest
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.urls import NoReverseMatch, Resolver404, URLPattern, get_resolver, resolve, reverse

from {{ cookiecutter.project_slug }}.scaling.logs.request_log import code_line, is_of_cache
from tests.rows import Rows

# Those to the database cache are counted apart.
CEILING = 10

# Views that may send more queries, on purpose, by their names: each with the reason.
CEILINGS = {}

# Addresses of views that take arguments, by the views' names or else their routes, and of those of other packages.
ADDRESSES = {
    # "article": lambda rows: reverse("article", args=[rows[Article][0].pk]),
    "admin:app_list": lambda rows: reverse("admin:app_list", args=[User._meta.app_label]),
    "admin:auth_user_password_change": lambda rows: reverse("admin:auth_user_password_change", args=[rows[User][0].pk]),
    "admin:autocomplete": lambda rows: reverse(
        "admin:autocomplete",
        query={"app_label": User._meta.app_label, "model_name": User._meta.model_name, "field_name": "groups"},
    ),
    "password_reset_confirm": lambda rows: reverse("password_reset_confirm", args=["uid", "token"]),
}

# Names of views that have no address: each with the reason.
WITHOUT_ADDRESS = {
    "admin:view_on_site",  # leads to a row's own page, which is visited
}

# More than the ceiling, so that a query for every row exceeds it.
ROWS = 20

User = get_user_model()

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture
def rows(admin_user):
    """Rows of every model in the admin, and what somebody did with them."""
    rows = Rows(ROWS)
    for model in admin.site._registry:
        rows[model]
    LogEntry.objects.log_actions(admin_user.pk, rows[User], CHANGE)
    ContentType.objects.clear_cache()
    return rows


def is_own(view):
    """Tell whether a view is the project's or Django's, and not that of another package, which has tests of its own."""
    view = getattr(view, "func", view)  # of a partial
    view = getattr(view, "view_class", None) or getattr(view, "cls", None) or view
    module = sys.modules[view.__module__]
    return module.__name__.startswith("django.") or "site-packages" not in Path(module.__file__).parts


def views(patterns=None, prefix="", namespace=""):
    """Yield the name, or else the route, the route and the function of every view that has an address."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern)
        if not isinstance(pattern, URLPattern):
            inner = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            yield from views(pattern.url_patterns, route, inner)
            continue
        name = f"{namespace}{pattern.name}" if pattern.name else route
        is_404_of_the_admin = getattr(pattern.callback, "__name__", "") == "catch_all_view"
        is_asked_for = name in ADDRESSES or (is_own(pattern.callback) and name not in WITHOUT_ADDRESS)
        if is_asked_for and not is_404_of_the_admin:
            yield name, route, pattern.callback


def pytest_generate_tests(metafunc):
    if "view" in metafunc.fixturenames:
        found = list(views())
        metafunc.parametrize("view", found, ids=[name for name, *_ in found])


def address(rows, name, route, view):
    """Return an address of the view: of one that shows a row, or in the admin, that of the model's first row."""
    found = ADDRESSES[name](rows) if name in ADDRESSES else own_page(rows, route, view)
    if not found:
        with contextlib.suppress(NoReverseMatch):
            route = reverse(name).removeprefix("/")
        found = f"/{route}"
    if "<path:object_id>" in found:
        model = view.model_admin.model
        if not rows[model]:
            pytest.skip(f"there are no rows of {model._meta.label}")
        found = found.replace("<path:object_id>", quote(str(rows[model][0].pk)))
    try:
        leads_there = resolve(found.partition("?")[0]).func is view
    except Resolver404:
        leads_there = False
    if not leads_there:
        pytest.fail(f"{found} is no address of {name}: add one to {line('ADDRESSES')}", pytrace=False)
    return found


def own_page(rows, route, view):
    """Return the page of a model's first row, if the view is generic and its model says where that is."""
    generic = getattr(view, "view_class", None)
    model = getattr(generic, "model", None) or getattr(getattr(generic, "queryset", None), "model", None)
    # A page that adds a row has get_object(), too, but takes no arguments.
    is_of_one = "<" in route and hasattr(generic, "get_object") and hasattr(model, "get_absolute_url")
    return rows[model][0].get_absolute_url() if is_of_one and rows[model] else None


def line(name, file="test_urls.py"):
    """Return where a name is given its value."""
    number = Path(__file__).with_name(file).read_text().partition(f"\n{name} = ")[0].count("\n") + 2
    return f"{name}, tests/{file}:{number}"


def ceiling(name, view):
    """Return how many queries a view may send: in the admin, one more for each relation of its model."""
    if name in CEILINGS or not hasattr(view, "model_admin"):
        return CEILINGS.get(name, CEILING)
    meta = view.model_admin.model._meta
    return CEILING + sum(field.is_relation for field in meta.get_fields(include_hidden=True))


def queries_of(client, url):
    """Visit an address; return each query, with the line of the project or of a template that led to it."""
    queries = []

    def record(execute, sql, params, many, context):
        queries.append((sql, code_line(sys._getframe(1))))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(record):
        response = client.get(url)
    if response.status_code not in (200, 301, 302, 401, 403, 405):
        pytest.fail(f"{url} answers {response.status_code}", pytrace=False)
    return queries


def complaint(url, name, queries, allowed, view, to="database"):
    """Say what a page asks for again and again, and what to do about it."""
    (sql, code), times = Counter(queries).most_common(1)[0]
    if code is None or code.startswith("tests/"):
        code = type(view.model_admin).__name__ if hasattr(view, "model_admin") else "Django"
    ways = {
        "database": "Load what is needed with the rows, by select_related() or prefetch_related()",
        "cache": "Ask for all of a list at once, by {{ '{%' }} fragment ... for row in rows {{ '%}' }} or cached_many()",
    }
    return (
        f"{url} sends {len(queries)} queries to the {to}, {allowed} are allowed. {times} times, from {code}:\n\n"
        f"    {sql if len(sql) < 300 else f'{sql[:200]} ... {sql[-95:]}'}\n\n"
        f"{ways[to]}; or, if so many are right,\n"
        f'give "{name}" another ceiling in {line("CEILINGS")}.'
    )


def test_queries(client, admin_user, rows, settings, view):
    name, _, function = view
    if hasattr(function, "model_admin"):
        settings.FETCH_MODE = "FETCH_PEERS"  # a page of one object may fetch what that lacks
    url, allowed = address(rows, *view), ceiling(name, function)
    as_visitor = queries_of(client, url)
    client.force_login(admin_user)
    ContentType.objects.clear_cache()
    visits = [as_visitor, queries_of(client, url)]

    for to in ("database", "cache"):
        sent = [[query for query in visit if is_of_cache(query[0]) == (to == "cache")] for visit in visits]
        queries = max(sent, key=len)
        if len(queries) > allowed:
            pytest.fail(complaint(url, name, queries, allowed, function, to), pytrace=False)


def test_rows_of_every_model_in_the_admin(rows):
    if rows.problems:
        reasons = "\n".join(f"No rows of {label} can be made: {reason}." for label, reason in rows.problems.items())
        pytest.fail(f"{reasons}\nSay in {line('VALUES', 'rows.py')} what its fields hold.", pytrace=False)
