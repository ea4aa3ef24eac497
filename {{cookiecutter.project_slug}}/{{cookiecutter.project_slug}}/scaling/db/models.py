"""Models that fetch for all rows at once, and that say when they changed, for caches whose keys change with them."""

from django.conf import settings
from django.db import models
from django.db.models.fetch_modes import FetchMode
from django.utils import timezone


class FetchAsSettingsSay(FetchMode):
    """Fetch as FETCH_MODE says at that moment: views have query sets that were made before a test changes it."""

    __slots__ = ()

    track_peers = True

    def fetch(self, fetcher, instance):
        getattr(models, settings.FETCH_MODE).fetch(fetcher, instance)

    def __reduce__(self):
        return "FETCH_AS_SETTINGS_SAY"


FETCH_AS_SETTINGS_SAY = FetchAsSettingsSay()


class FetchModeManager(models.Manager):
    """Fetch related objects and deferred fields as FETCH_MODE says: for all rows of a result at once, not one by one.

    What is fetched through a row follows its mode. Rows of a model without this manager, and rows that were never
    fetched, do not.
    """

    def get_queryset(self):
        return super().get_queryset().fetch_mode(FETCH_AS_SETTINGS_SAY)


class TimestampedQuerySet(models.QuerySet):
    def update(self, **kwargs):
        """Move `modified` with every update, so also with bulk_update(), unless it is given."""
        return super().update(**{"modified": timezone.now()} | kwargs)

    update.alters_data = True


class TimestampedModel(models.Model):
    """Rows that know when they were created and last modified.

    Saves and updates move `modified`. Raw SQL does not, nor bulk_create(update_conflicts=True) without "modified" in
    its update_fields, nor author.articles.add(article) without bulk=False, nor on_delete=SET_NULL, nor a change of
    related rows: save() the row itself after those.
    """

    created = models.DateTimeField(auto_now_add=True)
    modified = models.DateTimeField(auto_now=True)

    objects = FetchModeManager.from_queryset(TimestampedQuerySet)()

    class Meta:
        abstract = True

    def save(self, *, update_fields=None, **kwargs):
        if update_fields:
            update_fields = {*update_fields, "modified"}
        elif update_fields is None:
            self.modified = timezone.now()  # Django saves the fields that are loaded, after only() and defer()
        super().save(update_fields=update_fields, **kwargs)

    @property
    def cache_key(self):
        """A text that differs after every change of the row."""
        return f"{self._meta.concrete_model._meta.label_lower}:{self.pk}:{self.modified.timestamp()}"
