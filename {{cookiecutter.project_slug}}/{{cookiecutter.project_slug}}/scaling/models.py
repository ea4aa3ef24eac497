"""Models that say when they changed, for caches whose keys change with them."""

from django.db import models
from django.utils import timezone


class TimestampedQuerySet(models.QuerySet):
    def update(self, **kwargs):
        """Move `modified` with every update, so also with bulk_update(), unless it is given."""
        return super().update(**{"modified": timezone.now()} | kwargs)

    update.alters_data = True


class TimestampedModel(models.Model):
    """Rows that know when they were created and last modified.

    Saves and updates move `modified`. Raw SQL does not, nor bulk_create(update_conflicts=True) without "modified" in
    its update_fields, nor a change of related rows: save() the row itself after those.
    """

    created = models.DateTimeField(auto_now_add=True)
    modified = models.DateTimeField(auto_now=True)

    objects = TimestampedQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *, update_fields=None, **kwargs):
        if update_fields:
            update_fields = {*update_fields, "modified"}
        super().save(update_fields=update_fields, **kwargs)

    @property
    def cache_key(self):
        """A text that differs after every change of the row."""
        return f"{self._meta.label_lower}:{self.pk}:{self.modified.timestamp()}"
