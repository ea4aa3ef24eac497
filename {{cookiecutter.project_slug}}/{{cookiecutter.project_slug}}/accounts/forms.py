from django import forms
from django.contrib.auth import forms as auth
{% if cookiecutter.use_celery %}
from django.utils.translation import get_language
{% endif %}
{% if cookiecutter.login_with == "username" %}
from django.utils.translation import gettext_lazy as _
{% endif %}

from .models import User
{% if cookiecutter.use_celery %}
from .tasks import send_password_reset
{% endif %}


class SignUpForm(auth.UserCreationForm):
    """Asks for what `manage.py createsuperuser` asks for."""

    class Meta(auth.UserCreationForm.Meta):
        model = User
        fields = [User.USERNAME_FIELD, *User.REQUIRED_FIELDS]
        widgets = {"email": forms.EmailInput(attrs={"autocomplete": "email"})}
{% if cookiecutter.login_with == "username" %}
        help_texts = {"email": _("We send a link here if you forget your password.")}
{% endif %}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in self._meta.fields:
            self.fields[name].required = True
{% if cookiecutter.use_celery %}


class PasswordResetForm(auth.PasswordResetForm):
    """Leaves it all to a task: the time of the answer does not tell whether there is an account."""

    def save(self, *, request, token_generator, **options):
        send_password_reset.delay_on_commit(
            self.cleaned_data["email"], get_language(), domain_override=request.get_host(), **options
        )
{% endif %}
