from django.db import models

from {{ cookiecutter.project_slug }}.scaling.db.models import FetchModeManager


class Person(models.Model):
    """Somebody, whatever the users of the project look like; the fixture `people` makes the table."""

    name = models.CharField(max_length=150, unique=True)
    nickname = models.TextField(default="")
    note = models.TextField(default="")
    is_staff = models.BooleanField(default=False)

    objects = FetchModeManager()

    class Meta:
        app_label = "tests"

    def __str__(self):
        return self.name
