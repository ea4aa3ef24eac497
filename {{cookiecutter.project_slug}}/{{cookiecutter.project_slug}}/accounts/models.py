{% if cookiecutter.login_with == "username" %}
from django.contrib.auth import models

from ..scaling.db.models import FetchModeManager


class UserManager(FetchModeManager, models.UserManager):
    pass


class User(models.AbstractUser):
    """Django's user, as a model of our own so that fields can be added at any time."""

    objects = UserManager()
{% endif %}
{% if cookiecutter.login_with == "email" %}
from django.contrib.auth.base_user import BaseUserManager
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models.lookups import Exact
from django.utils.translation import gettext_lazy as _

from ..scaling.db.models import FetchModeManager


class LowercaseEmailField(models.EmailField):
    """Addresses in lower case, those that are looked up included: Ada@example.com is ada@example.com."""

    def to_python(self, value):
        value = super().to_python(value)
        return value and value.lower()

    def pre_save(self, model_instance, add):
        value = self.to_python(super().pre_save(model_instance, add))
        setattr(model_instance, self.attname, value)
        return value


# Django asks for addresses without regard to case: here that is the same, and has the index.
LowercaseEmailField.register_lookup(Exact, "iexact")


class UserManager(FetchModeManager, BaseUserManager):
    def create_user(self, email, password=None, **values):
        if not email:
            raise ValueError("An account needs an e-mail address.")
        user = self.model(email=email, **values)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email, password=None, **values):
        return self.create_user(email, password, is_staff=True, is_superuser=True, **values)


class User(AbstractUser):
    """Somebody who logs in with an e-mail address."""

    username = None
    email = LowercaseEmailField(_("email address"), unique=True)

    objects = UserManager()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = []
{% endif %}
