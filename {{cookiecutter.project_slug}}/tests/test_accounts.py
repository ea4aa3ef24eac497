from django.conf import settings
from django.urls import reverse


def test_login(client, admin_user):
    form = {"username": admin_user.get_username(), "password": "password", "next": reverse("admin:index")}

    response = client.post(reverse("admin:login"), form, follow=True)

    assert response.redirect_chain == [(reverse("admin:index"), 302)]
    assert response.context["user"] == admin_user


def test_wrong_password(client, admin_user):
    form = {"username": admin_user.get_username(), "password": "another"}

    client.post(reverse("admin:login"), form)

    assert settings.SESSION_COOKIE_NAME not in client.cookies


def test_admin_refuses_visitors(client, db):
    assert client.get(reverse("admin:index")).status_code == 302


def test_session_cookie(client, admin_user):
    client.post(reverse("admin:login"), {"username": admin_user.get_username(), "password": "password"})

    cookie = client.cookies[settings.SESSION_COOKIE_NAME]

    assert cookie["httponly"]
    assert cookie["secure"]
    assert cookie["samesite"] == "Lax"
