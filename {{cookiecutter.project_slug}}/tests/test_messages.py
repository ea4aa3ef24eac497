import pytest

pytestmark = pytest.mark.django_db


def test_message_is_shown_once(client, admin_user):
    client.force_login(admin_user)
    fields = {"username": "ada", "password1": "correct horse battery", "password2": "correct horse battery"}
    fields["usable_password"] = "true"

    added = client.post("/admin/accounts/user/add/", fields)

    assert added.status_code == 302
    assert "messages" in client.cookies
    assert "was added successfully" in client.get(added["Location"]).text
    assert "was added successfully" not in client.get(added["Location"]).text


def test_page_without_messages(client):
    assert "messages" not in client.get("/").cookies
