"""Django's views of accounts, with this site's templates and limits."""

from django.conf import settings
from django.contrib.auth import login, views
from django.contrib.auth.mixins import LoginRequiredMixin
from django.db import IntegrityError, transaction
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.generic import FormView, TemplateView

from ..scaling.http.rate_limit import rate_limited
from .forms import {{ 'PasswordResetForm, ' if cookiecutter.use_celery else '' }}SignUpForm
from .models import User


# No cache keeps any of these pages, that of the browser included: "back" would show them to the next person at the
# machine. LoginView and PasswordResetConfirmView have never_cache from Django.
def decorate(*decorators):
    return method_decorator(decorators, name="dispatch")


@decorate(never_cache)
class AccountView(LoginRequiredMixin, TemplateView):
    template_name = "accounts/account.html"


@decorate(never_cache, sensitive_post_parameters(), rate_limited("signup", account=User.USERNAME_FIELD))
class SignUpView(views.RedirectURLMixin, FormView):
    form_class = SignUpForm
    template_name = "accounts/signup.html"
    next_page = settings.LOGIN_REDIRECT_URL

    def form_valid(self, form):
        try:
            with transaction.atomic():
                user = form.save()
        except IntegrityError:
            form = self.get_form()  # which sees who has the name since a moment ago, as after a second click
            if form.is_valid():
                raise
            return self.form_invalid(form)
        login(self.request, user)
        return super().form_valid(form)

    def get_context_data(self, **kwargs):
        return super().get_context_data(next=self.get_redirect_url(), **kwargs)


@decorate(rate_limited("login", account="username", only_failures=True))
class LoginView(views.LoginView):
    template_name = "accounts/login.html"


@decorate(never_cache, rate_limited("password_change", only_failures=True))
class PasswordChangeView(views.PasswordChangeView):
    template_name = "accounts/password_change.html"


@decorate(never_cache)
class PasswordChangeDoneView(views.PasswordChangeDoneView):
    template_name = "accounts/password_change_done.html"


@decorate(never_cache, rate_limited("password_reset", account="email"))
class PasswordResetView(views.PasswordResetView):
{% if cookiecutter.use_celery %}
    form_class = PasswordResetForm
{% else %}
    # The mail is sent before the answer, and that takes a while: it tells who has an account, as signing up does.
{% endif %}
    template_name = "accounts/password_reset.html"
    subject_template_name = "accounts/password_reset_subject.txt"
    email_template_name = "accounts/password_reset_mail.txt"

    def dispatch(self, request, *args, **kwargs):
        if not settings.MAILERS:  # a server without EMAIL_URL
            return render(request, "accounts/password_reset_unavailable.html", status=503)
        return super().dispatch(request, *args, **kwargs)


@decorate(never_cache)
class PasswordResetDoneView(views.PasswordResetDoneView):
    template_name = "accounts/password_reset_done.html"


class PasswordResetConfirmView(views.PasswordResetConfirmView):
    template_name = "accounts/password_reset_confirm.html"


@decorate(never_cache)
class PasswordResetCompleteView(views.PasswordResetCompleteView):
    template_name = "accounts/password_reset_complete.html"
