import pytest
from django.contrib import messages
from django.http import HttpResponse
from django.urls import path


def add(request):
    messages.info(request, "a message")
    return HttpResponse("page")


def show(request):
    return HttpResponse(" ".join(map(str, messages.get_messages(request))))


urlpatterns = [
    path("add/", add),
    path("show/", show),
    path("page/", lambda request: HttpResponse("page")),
]


def test_message_is_shown_once(client):
    client.get("/add/")
    assert "messages" in client.cookies

    assert client.get("/show/").text == "a message"
    assert client.get("/show/").text == ""


@pytest.mark.parametrize("path", ["page", "show"])
def test_page_without_messages(client, path):
    """A page that would show messages does not ask the session for them."""
    response = client.get(f"/{path}/", headers={"cookie": "sessionid=c3dd4acbf1e94a6c"})

    assert not response.cookies
    assert not response.has_header("Vary")
