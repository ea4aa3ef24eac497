from django.contrib.auth.models import AbstractUser


class User(AbstractUser):
    """Django's user, as a model of our own so that fields can be added at any time."""
