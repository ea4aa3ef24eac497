import pytest
from django.contrib.auth import get_user_model, hashers


def test_password_is_hashed_with_argon2(db):
    user = get_user_model().objects.create_user("ada", password="correct horse")

    assert user.password.startswith("argon2$argon2id$")
    assert user.check_password("correct horse")
    assert not user.check_password("wrong horse")


@pytest.mark.parametrize("hasher", [hashers.Argon2PasswordHasher(), hashers.PBKDF2PasswordHasher()])
def test_password_of_another_hasher_is_hashed_anew_at_login(client, admin_user, hasher):
    admin_user.password = before = hasher.encode("password", hasher.salt())
    admin_user.save()

    client.post("/admin/login/", {"username": "admin", "password": "password"})

    admin_user.refresh_from_db()
    assert "sessionid" in client.cookies
    assert admin_user.password.startswith("argon2$argon2id$")
    assert admin_user.password != before
    assert admin_user.check_password("password")


def test_admin_login(client, admin_user):
    form = {"username": "admin", "password": "password", "next": "/admin/"}

    response = client.post("/admin/login/", form, follow=True)

    assert response.redirect_chain == [("/admin/", 302)]
    assert response.context["user"] == admin_user


def test_admin_refuses_visitors(client, db):
    assert client.get("/admin/").status_code == 302


def test_user_in_admin(admin_client, admin_user):
    response = admin_client.get(f"/admin/accounts/user/{admin_user.pk}/change/", secure=True)

    assert response.status_code == 200
