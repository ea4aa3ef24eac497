import pickle

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldFetchBlocked
from django.db import connection, models
from django.http import HttpResponse
from django.template import Context, Template
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.views.generic import ListView

from {{ cookiecutter.project_slug }}.scaling.db.models import FETCH_AS_SETTINGS_SAY, TimestampedModel
from tests.scaling.models import Person

LIST = Template("{{ '{%' }} for page in pages %}{{ '{{' }} page.author.name }} {{ '{%' }} endfor %}")


class Page(TimestampedModel):
    author = models.ForeignKey(Person, models.CASCADE, null=True)
    title = models.CharField(max_length=50)
    views = models.IntegerField(default=0)

    class Meta:
        app_label = "test_models"

    def __str__(self):
        return self.title


def list_view(request):
    """A page that asks for the author of each row on its own."""
    return HttpResponse(LIST.render(Context({"pages": Page.objects.order_by("pk")})))


class PageList(ListView):
    """The same page; its query set is made when this module is imported."""

    queryset = Page.objects.order_by("pk")

    def render_to_response(self, context):
        return HttpResponse(LIST.render(Context({"pages": context["object_list"]})))


urlpatterns = [path("pages/", list_view), path("page-list/", PageList.as_view())]


@pytest.fixture
def table(people):
    with connection.schema_editor() as editor:
        editor.create_model(Page)


@pytest.fixture
def page(table):
    return Page.objects.create(title="old")


@pytest.fixture
def authors(table):
    """Fifty authors, each with a page."""
    authors = Person.objects.bulk_create(Person(name=f"author{n}") for n in range(50))
    Page.objects.bulk_create(Page(author=author) for author in authors)
    return authors


def stored(page):
    return Page.objects.get(pk=page.pk)


def test_save(page):
    before = stored(page)
    page.save()

    assert stored(page).modified > before.modified
    assert stored(page).created == before.created
    assert stored(page).cache_key != before.cache_key


def test_save_update_fields(page):
    before = stored(page)
    page.title = "new"
    page.views = 7
    page.save(update_fields=["title"])

    assert stored(page).modified > before.modified
    assert (stored(page).title, stored(page).views) == ("new", 0)


@pytest.mark.parametrize("get", [lambda pages: pages.only("title"), lambda pages: pages.defer("modified", "views")])
def test_save_deferred(page, get):
    """Django saves only what was loaded."""
    before = stored(page)
    partly = get(Page.objects).get()
    partly.title = "new"
    partly.save()

    assert stored(page).modified > before.modified
    assert (stored(page).title, stored(page).created) == ("new", before.created)


@pytest.mark.parametrize("options", [{}, {"update_fields": None}, {"update_fields": ("title",)}])
def test_asave(page, options):
    before = stored(page)
    async_to_sync(page.asave)(**options)

    assert stored(page).modified > before.modified


def test_save_expression(page):
    before = stored(page)
    page.views = models.F("views") + 1
    page.save()

    assert stored(page).modified > before.modified
    assert stored(page).views == page.views == 1
    assert page.cache_key == stored(page).cache_key


def test_save_no_update_fields(page):
    """An empty update_fields writes nothing, as everywhere in Django."""
    before = stored(page)
    page.save(update_fields=[])

    assert stored(page).modified == before.modified


def test_update(page):
    before = stored(page)
    Page.objects.filter(pk=page.pk).update(views=models.F("views") + 1)

    assert stored(page).modified > before.modified
    assert stored(page).views == 1


def test_update_explicit_modified(page):
    Page.objects.update(modified=page.created)

    assert stored(page).modified == page.created


def test_bulk_update(page):
    before = stored(page)
    page.title = "new"
    Page.objects.bulk_update([page], ["title"])

    assert stored(page).modified > before.modified
    assert stored(page).title == "new"


def test_update_or_create(page):
    before = stored(page)
    Page.objects.update_or_create(pk=page.pk, defaults={"title": "new"})

    assert stored(page).modified > before.modified


def test_get_or_create(page):
    """Whoever only gets a row has not changed it."""
    before = stored(page)
    _, created = Page.objects.get_or_create(pk=page.pk, defaults={"title": "new"})

    assert not created
    assert stored(page).modified == before.modified


def test_refresh_from_db(page):
    """A row that is loaded anew has the key of what it was loaded from."""
    Page.objects.update(title="new")
    page.refresh_from_db()

    assert (page.title, page.cache_key) == ("new", stored(page).cache_key)


def test_cache_key(page, settings):
    """The key is the same however the row was got, and another one for another row that changed at the same time."""
    settings.FETCH_MODE = "FETCH_PEERS"
    assert page.cache_key == stored(page).cache_key == Page.objects.only("pk").get().cache_key

    Page.objects.create(title="old")
    Page.objects.update(modified=page.modified)
    assert len({page.cache_key for page in Page.objects.all()}) == 2


@pytest.mark.parametrize("url", ["/pages/", "/page-list/"])
def test_fetch_peers(client, authors, settings, url):
    """What would be a query for each of 50 rows is one for all of them, on the servers."""
    settings.FETCH_MODE = "FETCH_PEERS"

    with CaptureQueriesContext(connection) as queries:
        response = client.get(url)

    assert response.text.split() == [author.name for author in authors]
    assert len(queries) == 2


@pytest.mark.parametrize("url", ["/pages/", "/page-list/"])
def test_fetch_raise(client, authors, url):
    """The same page fails in tests, and says which field it should have loaded."""
    with pytest.raises(FieldFetchBlocked, match=r"Page\.author"):
        client.get(url)


@pytest.mark.parametrize("get", [lambda: Page.objects.defer("title").first().title, lambda: Page.objects.get().author])
def test_fetch_raise_for_one_object(page, get):
    Page.objects.update(author=Person.objects.create())

    with pytest.raises(FieldFetchBlocked):
        get()


def test_fetch_mode_follows_relations(authors, settings):
    """The pages of an author come without a manager call of their own, and fetch for all of them, too."""
    Page.objects.update(author=authors[0])
    author = Person.objects.get(pk=authors[0].pk)

    with pytest.raises(FieldFetchBlocked, match=r"Page\.title"):
        [page.title for page in author.page_set.defer("title")]


def test_fetch_raise_lets_loaded_relations_pass(authors):
    pages = Page.objects.select_related("author").order_by("pk")

    assert [page.author for page in pages] == authors


def test_fetch_mode_is_pickled():
    """Rows in the cache have it."""
    assert pickle.loads(pickle.dumps(FETCH_AS_SETTINGS_SAY)) is FETCH_AS_SETTINGS_SAY
