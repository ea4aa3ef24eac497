"""Models that fetch for all rows at once, and that say when they changed, for caches whose keys change with them."""

from django.conf import settings
from django.db import models
from django.utils import timezone


class FetchModeManager(models.Manager):
    """Fetch related objects and deferred fields as FETCH_MODE says: for all rows of a result at once, not one by one.

    What is fetched through a row follows its mode; a model without such a manager, an unsaved row, begins anew.
    """

    def get_queryset(self):
        return super().get_queryset().fetch_mode(getattr(models, settings.FETCH_MODE))


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
{% if cookiecutter.use_celery %}


class OutboxMessage(models.Model):
    """A task that delay_on_commit() asked for, or a retry: there from the transaction that asked until the task ended.

    A worker sends it to the broker when it is due, notes here that the task begins, and deletes it when that has ended;
    a task without its row is not run. What cannot be sent or run is kept with its error.
    """

    STATES = {
        "waiting": models.Q(sent=None, error=""),
        "sent": models.Q(sent__isnull=False, started=None, error=""),
        "running": models.Q(sent__isnull=False, started__isnull=False, error=""),
        "error": ~models.Q(error=""),
    }

    created = models.DateTimeField(auto_now_add=True)
    task = models.TextField()
    task_id = models.TextField()
    arguments = models.TextField()
    queue = models.TextField()
    due = models.DateTimeField(db_default=models.functions.Now())  # by the clock that workers ask, the database's
    expires = models.DateTimeField(null=True)
    sent = models.DateTimeField(null=True)
    started = models.DateTimeField(null=True)
    deliveries = models.PositiveSmallIntegerField(default=0)  # that began
    error = models.TextField(blank=True)

    objects = FetchModeManager()

    class Meta:
        verbose_name = "task in the outbox"
        verbose_name_plural = "tasks in the outbox"
        # Where workers look all the time, however many rows wait for their time, for a worker, or for a person
        indexes = [
            models.Index("due", "id", name="outbox_waiting", condition=models.Q(sent=None, error="")),
            models.Index("sent", name="outbox_sent", condition=models.Q(sent__isnull=False, error="")),
            models.Index("id", name="outbox_error", condition=~models.Q(error="")),
        ]

    def __str__(self):
        return self.task

    @property
    def state(self):
        if self.error:
            return "error"
        if self.sent is None:
            return "waiting"
        return "running" if self.started else "sent"


class PeriodicRun(models.Model):
    """When an entry of beat's schedule last ran, or a worker last reported: so that one process does it for all."""

    name = models.TextField(primary_key=True)
    last_run_at = models.DateTimeField()

    objects = FetchModeManager()

    def __str__(self):
        return self.name
{% endif %}
