from django.conf import settings
from django.db import models
from django.urls import reverse

from ..scaling.db.models import TimestampedModel
from ..scaling.files.uploads import MEGABYTE, UploadValidator


class Board(TimestampedModel):
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="boards")
    title = models.CharField(max_length=100)

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("pins:board", args=[self.pk])


class Pin(TimestampedModel):
    board = models.ForeignKey(Board, models.CASCADE, related_name="pins")
    title = models.CharField(max_length=100)
    picture = models.FileField(upload_to="pins", validators=[UploadValidator(max_size=2 * MEGABYTE)])
    text = models.TextField(blank=True)

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("pins:detail", args=[self.pk])


class Comment(TimestampedModel):
    pin = models.ForeignKey(Pin, models.CASCADE, related_name="comments")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="comments")
    text = models.TextField(max_length=2000)

    def __str__(self):
        return self.text[:50]
