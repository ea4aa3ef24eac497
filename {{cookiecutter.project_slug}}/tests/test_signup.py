"""Signing up: delete this file when you close that, as docs/accounts.md describes."""

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.shortcuts import resolve_url
from django.urls import reverse
from pytest_django.asserts import assertRedirects

from {{ cookiecutter.project_slug }}.accounts.forms import SignUpForm
from tests.conftest import SecureClient
from tests.rows import Rows
from tests.test_accounts import NEXT_PAGES, PASSWORD, is_logged_in{{ ', log_in' if cookiecutter.login_with == 'email' else '' }}

User = get_user_model()


@pytest.fixture
def details(db):
    """What a new person enters: something in each field of the form."""
    person = Rows().build(User, 1, email="Ada@example.com")
    entered = {name: getattr(person, name) for name in SignUpForm.base_fields if hasattr(person, name)}
    return entered | {"password1": PASSWORD, "password2": PASSWORD}


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


@NEXT_PAGES
def test_next_page(client, details, asked, arrived):
    response = client.post(reverse("signup", query={"next": asked}), details)

    assertRedirects(response, resolve_url(arrived), fetch_redirect_response=False)


def test_accounts_are_limited(client, details, settings):
    settings.RATE_LIMITS = {"signup": {"seconds": 3600, "per_address": 2, "per_account": 2}}

    answers = [client.post(reverse("signup"), details | {"password2": "another"}).status_code for _ in range(3)]

    assert answers == [200, 200, 429]


def test_no_cache_keeps_the_page(client, db):
    assert {"private", "no-store"} <= set(client.get(reverse("signup"))["Cache-Control"].split(", "))
