"""The life of an account, as the person sees it; pages are found by their names."""

import re

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.shortcuts import resolve_url
from django.urls import reverse
from pytest_django.asserts import assertRedirects, assertTemplateUsed

from {{ cookiecutter.project_slug }}.accounts.forms import SignUpForm
{% if cookiecutter.use_celery %}
from {{ cookiecutter.project_slug }}.celery import app
{% endif %}
from tests.conftest import SecureClient
from tests.rows import Rows, make

PASSWORD = "correct horse battery staple"
NEW_PASSWORD = "a new horse, and other staples"

User = get_user_model()


@pytest.fixture
def details(db):
    """What a new person enters: something in each field of the form."""
    person = Rows().build(User, 1, email="Ada@example.com")
    entered = {name: getattr(person, name) for name in SignUpForm.base_fields if hasattr(person, name)}
    return entered | {"password1": PASSWORD, "password2": PASSWORD}


@pytest.fixture
def person(db):
    person = make(User, email="ada@example.com")
    person.set_password(PASSWORD)
    person.save()
    return person


{% if cookiecutter.use_celery %}
@pytest.fixture(autouse=True)
def tasks_at_once(monkeypatch):
    monkeypatch.setitem(app.conf, "task_always_eager", True)


{% endif %}
def log_in(client, person, password=PASSWORD, view="login", **extra):
    return client.post(reverse(view), {"username": person.get_username(), "password": password}, **extra)


def is_logged_in(client):
    return client.get(reverse("account")).status_code == 200


def test_sign_up(client, details):
    response = client.post(reverse("signup"), details)

    assertRedirects(response, resolve_url(settings.LOGIN_REDIRECT_URL))
    assert is_logged_in(client)
    assert User.objects.get().check_password(PASSWORD)


def test_sign_up_twice(client, details):
    client.post(reverse("signup"), details)

    response = SecureClient().post(reverse("signup"), details)

    assert User.USERNAME_FIELD in response.context["form"].errors
    assert User.objects.count() == 1


{% if cookiecutter.login_with == "email" %}
def test_address_in_capitals_is_the_same_account(client, details):
    client.post(reverse("signup"), details)
    person = User.objects.get(email="ADA@EXAMPLE.COM")

    client.post(reverse("logout"))
    log_in(client, User(email="ADA@example.com"))
    second = SecureClient().post(reverse("signup"), details | {"email": "aDa@example.com"})

    assert person.email == "ada@example.com"
    assert is_logged_in(client)
    assert "email" in second.context["form"].errors


{% endif %}
def test_sign_up_with_a_weak_password(client, details):
    response = client.post(reverse("signup"), details | {"password1": "password", "password2": "password"})

    assert response.context["form"].errors
    assert not User.objects.exists()


def test_log_in(client, person):
    response = log_in(client, person)

    assertRedirects(response, resolve_url(settings.LOGIN_REDIRECT_URL))
    assert is_logged_in(client)


@pytest.mark.parametrize("view", ["login", "admin:login"])
def test_wrong_password(client, admin_user, view):
    log_in(client, admin_user, "another", view)

    assert settings.SESSION_COOKIE_NAME not in client.cookies


def test_session_cookie(client, person):
    log_in(client, person)

    cookie = client.cookies[settings.SESSION_COOKIE_NAME]

    assert cookie["httponly"]
    assert cookie["secure"]
    assert cookie["samesite"] == "Lax"


@pytest.mark.parametrize("view", ["login", "signup"])
@pytest.mark.parametrize(("asked", "arrived"), [("/somewhere/", "/somewhere/"), ("https://evil.example/", None)])
def test_next_page(client, person, details, view, asked, arrived):
    form = {"username": person.get_username(), "password": PASSWORD}
    if view == "signup":
        person.delete()
        form = details

    response = client.post(reverse(view, query={"next": asked}), form)

    assertRedirects(response, arrived or resolve_url(settings.LOGIN_REDIRECT_URL), fetch_redirect_response=False)


def test_log_out(client, person):
    log_in(client, person)

    assert client.get(reverse("logout")).status_code == 405
    assert is_logged_in(client)

    client.post(reverse("logout"))

    assert not is_logged_in(client)


def test_account_refuses_strangers(client, db):
    assertRedirects(client.get(reverse("account")), reverse("login", query={"next": reverse("account")}))


def test_password_change_ends_other_sessions(client, person):
    other = SecureClient()
    for visitor in (client, other):
        log_in(visitor, person)

    form = {"old_password": PASSWORD, "new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    client.post(reverse("password_change"), form)

    assert is_logged_in(client)
    assert not is_logged_in(other)
    person.refresh_from_db()
    assert person.check_password(NEW_PASSWORD)


def test_password_reset(client, person, mailoutbox, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        response = client.post(reverse("password_reset"), {"email": person.email})
    assertRedirects(response, reverse("password_reset_done"))
    [mail] = mailoutbox
    link = re.search(r"https://testserver(\S+)", mail.body)[1]

    form = client.get(link, follow=True)
    passwords = {"new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    response = client.post(form.request["PATH_INFO"], passwords)

    assert mail.to == [person.email]
    assertRedirects(response, reverse("password_reset_complete"))
    log_in(client, person, NEW_PASSWORD)
    assert is_logged_in(client)
    assert not client.get(link, follow=True).context["validlink"]


def test_password_reset_for_nobody(client, person, mailoutbox, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        response = client.post(reverse("password_reset"), {"email": "nobody@example.com"})

    assertRedirects(response, reverse("password_reset_done"))
    assert mailoutbox == []


def test_password_reset_without_a_mail_server(client, settings):
    settings.MAILERS = {}

    response = client.get(reverse("password_reset"))

    assert response.status_code == 503
    assertTemplateUsed(response, "accounts/password_reset_unavailable.html")


def test_admin_keeps_its_own_pages(admin_client):
    response = admin_client.get(reverse("admin:password_change"))

    assertTemplateUsed(response, "admin/base_site.html")


@pytest.mark.parametrize("view", ["login", "admin:login"])
def test_attempts_are_limited(client, admin_user, settings, view):
    settings.RATE_LIMITS = {"login": {"seconds": 3600, "per_address": 100, "per_account": 2}}

    answers = [log_in(client, admin_user, "another", view).status_code for _ in range(3)]
    right_password = log_in(client, admin_user, "password", view)
    elsewhere = log_in(SecureClient(), admin_user, "password", view, REMOTE_ADDR="192.0.2.1")

    assert answers == [200, 200, 429]
    assertTemplateUsed(right_password, "429.html")
    assert 0 < int(right_password["Retry-After"]) <= 3600
    assert elsewhere.status_code == 302


@pytest.mark.parametrize("view", ["signup", "password_reset"])
def test_accounts_and_mails_are_limited(client, details, settings, view):
    settings.RATE_LIMITS = {view: {"seconds": 3600, "per_address": 2, "per_account": 2}}

    answers = [client.post(reverse(view), details | {"email": "not an address"}).status_code for _ in range(3)]

    assert answers == [200, 200, 429]


def test_no_cache_keeps_a_page(client, person):
    names = ["signup", "login", "password_reset", "password_reset_done", "password_reset_complete"]
    pages = [client.get(reverse(name)) for name in names]
    log_in(client, person)
    pages += [client.get(reverse(name)) for name in ("account", "password_change", "password_change_done")]

    for page in pages:
        assert page.status_code == 200
        assert {"private", "no-store"} <= set(page["Cache-Control"].split(", "))
