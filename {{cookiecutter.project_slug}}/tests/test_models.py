import pytest
from django.db import connection, models

from {{ cookiecutter.project_slug }}.scaling.models import TimestampedModel

pytestmark = pytest.mark.django_db


class Page(TimestampedModel):
    title = models.CharField(max_length=50)
    views = models.IntegerField(default=0)

    class Meta:
        app_label = "test_models"

    def __str__(self):
        return self.title


@pytest.fixture
def page(db):
    with connection.schema_editor() as editor:
        editor.create_model(Page)
    return Page.objects.create(title="old")


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


def test_cache_key(page):
    """The key is the same however the row was got, and another one for another row that changed at the same time."""
    assert page.cache_key == stored(page).cache_key == Page.objects.only("pk").get().cache_key

    Page.objects.create(title="old")
    Page.objects.update(modified=page.modified)
    assert len({page.cache_key for page in Page.objects.all()}) == 2
