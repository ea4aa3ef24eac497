from django.contrib.auth import models

from ..scaling.db.models import FetchModeManager


class UserManager(FetchModeManager, models.UserManager):
    pass


class User(models.AbstractUser):
    """Django's user, as a model of our own so that fields can be added at any time."""

    objects = UserManager()
