"""Every address of the site and of the admin is visited, and may send so many queries to the database."""

import pytest
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import Resolver404, URLPattern, get_resolver, resolve
{% if cookiecutter.use_celery %}

from {{ cookiecutter.project_slug }}.scaling.tasks.models import OutboxMessage
{% endif %}

CEILING = 10

# More than the ceiling, so that a query for every row exceeds it.
ROWS = 20

# Names of views that may send more queries, on purpose: each with the reason.
CEILINGS = {}

# Addresses of views that take arguments, by the view's name or else its route.
ADDRESSES = {
    "admin:app_list": "/admin/accounts/",
    "admin:auth_user_password_change": "/admin/accounts/user/1/password/",
    "admin:autocomplete": "/admin/autocomplete/?app_label=accounts&model_name=user&field_name=groups",
    "admin/(?P<url>.*)$": "/admin/accounts",
}

# Names of views that have no address: each with the reason.
WITHOUT_ADDRESS = {
    "admin:view_on_site",  # no model has a page of its own
}


User = get_user_model()


@pytest.fixture
def rows(db):
    """Make ROWS rows of each model that pages show, and of what belongs to it; their primary keys begin with 1."""
    numbers = range(1, ROWS + 1)
    users = User.objects.bulk_create(User(pk=n, username=f"user{n}", is_superuser=n == 1) for n in numbers)
    groups = Group.objects.bulk_create(Group(pk=n, name=f"group{n}") for n in numbers)
    users[0].groups.set(groups)
    groups[0].user_set.set(users)
    User.objects.update(is_staff=True)
    LogEntry.objects.log_actions(users[0].pk, users, CHANGE)
{% if cookiecutter.use_celery %}
    OutboxMessage.objects.bulk_create(OutboxMessage(pk=n, task="task", arguments="[]") for n in numbers)
{% endif %}


def views(patterns=None, prefix="", namespace=""):
    """Yield the name, the route and the function of every view."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield f"{namespace}{pattern.name}" if pattern.name else route, route, pattern.callback
        else:
            inner = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            yield from views(pattern.url_patterns, route, inner)


def address(name, route, view):
    """Return an address of the view: in the admin, that of a model's first row."""
    found = ADDRESSES.get(name, f"/{route}")
    if hasattr(view, "model_admin"):
        found = found.replace("<path:object_id>", str(view.model_admin.model._default_manager.earliest("pk").pk))
    try:
        leads_there = "<" not in found and resolve(found.partition("?")[0]).func is view
    except Resolver404:
        leads_there = False
    assert leads_there, f"{found} is no address of {name}: add one to ADDRESSES in {__file__}"
    return found


@pytest.mark.parametrize("visitor", ["anonymous", "staff"])
@pytest.mark.parametrize("view", [view for view in views() if view[0] not in WITHOUT_ADDRESS], ids=lambda view: view[0])
def test_queries(client, rows, view, visitor):
    url = address(*view)
    if visitor == "staff":
        client.force_login(User.objects.get(pk=1))
    ContentType.objects.clear_cache()

    with CaptureQueriesContext(connection) as queries:
        response = client.get(url)

    assert response.status_code in (200, 301, 302, 403, 405), f"{url} answers {response.status_code}"
    ceiling = CEILINGS.get(view[0], CEILING)
    sent = "\n".join(query["sql"] for query in queries)
    assert len(queries) <= ceiling, f"{url} sends {len(queries)} queries, {view[0]} may send {ceiling}:\n{sent}"


def test_rows_of_every_model_in_the_admin(rows):
    few = [model._meta.label for model in admin.site._registry if model._default_manager.count() < ROWS]

    assert few == [], f"make {ROWS} rows of each in the fixture `rows` in {__file__}"
