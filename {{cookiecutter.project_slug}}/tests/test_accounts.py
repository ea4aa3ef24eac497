"""The life of an account, as the person sees it; pages are found by their names."""

import re

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.shortcuts import resolve_url
from django.urls import reverse
from pytest_django.asserts import assertRedirects, assertTemplateUsed

{% if cookiecutter.use_celery %}
from {{ cookiecutter.project_slug }}.celery import app
{% endif %}
from tests.conftest import SecureClient
from tests.rows import make

PASSWORD = "correct horse battery staple"
NEW_PASSWORD = "a new horse, and other staples"

# What a link asks for, and where one then arrives
NEXT_PAGES = pytest.mark.parametrize(
    ("asked", "arrived"),
    [("/somewhere/", "/somewhere/"), ("https://evil.example/", settings.LOGIN_REDIRECT_URL)],
)

User = get_user_model()


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


@NEXT_PAGES
def test_next_page(client, person, asked, arrived):
    form = {"username": person.get_username(), "password": PASSWORD}

    response = client.post(reverse("login", query={"next": asked}), form)

    assertRedirects(response, resolve_url(arrived), fetch_redirect_response=False)


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


def test_mails_are_limited(client, db, settings):
    settings.RATE_LIMITS = {"password_reset": {"seconds": 3600, "per_address": 2, "per_account": 2}}

    answers = [client.post(reverse("password_reset"), {"email": "not an address"}).status_code for _ in range(3)]

    assert answers == [200, 200, 429]


@pytest.mark.parametrize("view", ["password_change", "admin:password_change"])
def test_guesses_of_the_old_password_are_limited(client, admin_user, settings, view):
    """Of whoever has somebody's session, and not of others at the same address."""
    settings.RATE_LIMITS = {"password_change": {"seconds": 3600, "per_address": 100, "per_account": 2}}
    form = {"new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    client.force_login(admin_user)
    other = SecureClient()
    other.force_login(make(User, **{User.USERNAME_FIELD: "grace@example.com"}, is_staff=True))

    guesses = [client.post(reverse(view), form | {"old_password": "another"}).status_code for _ in range(2)]
    refused = client.post(reverse(view), form | {"old_password": "password"})

    assert guesses == [200, 200]
    assert refused.status_code == 429
    assert other.post(reverse(view), form | {"old_password": "another"}).status_code == 200
    admin_user.refresh_from_db()
    assert admin_user.check_password("password")


def test_no_cache_keeps_a_page(client, person):
    names = ["login", "password_reset", "password_reset_done", "password_reset_complete"]
    pages = [client.get(reverse(name)) for name in names]
    log_in(client, person)
    pages += [client.get(reverse(name)) for name in ("account", "password_change", "password_change_done")]

    for page in pages:
        assert page.status_code == 200
        assert {"private", "no-store"} <= set(page["Cache-Control"].split(", "))
