import pytest
from django.urls import reverse
from pytest_django.asserts import assertRedirects

from my_project.celery import app
from my_project.pins.models import Comment, Pin
from my_project.pins.tasks import tell_owner
from my_project.scaling.tasks.models import OutboxMessage
from tests.rows import make


@pytest.fixture
def pin(board):
    return make(Pin, board=board, title="A boat")


def test_comment(visitor_client, visitor, pin):
    response = visitor_client.post(reverse("pins:comment", args=[pin.pk]), {"text": "Nice!"})

    assertRedirects(response, pin.get_absolute_url())
    assert Comment.objects.filter(pin=pin, author=visitor, text="Nice!").exists()
    assert OutboxMessage.objects.get().task == tell_owner.name


def test_the_owner_gets_a_mail(visitor_client, pin, mailoutbox, monkeypatch, django_capture_on_commit_callbacks):
    monkeypatch.setitem(app.conf, "task_always_eager", True)

    with django_capture_on_commit_callbacks(execute=True):
        visitor_client.post(reverse("pins:comment", args=[pin.pk]), {"text": "Nice!"})

    (mail,) = mailoutbox
    assert mail.to == ["grace@example.com"]
    assert mail.subject == "A comment on A boat"
    assert mail.body == f"ada wrote:\n\nNice!\n\nhttps://testserver{pin.get_absolute_url()}\n"


def test_comment_without_an_account(client, pin):
    address = reverse("pins:comment", args=[pin.pk])

    response = client.post(address, {"text": "Nice!"})

    assertRedirects(response, reverse("login", query={"next": address}))
    assert not Comment.objects.exists()


def test_comment_that_was_deleted(db, mailoutbox):
    tell_owner(1, "https://example.com/pins/1/")

    assert not mailoutbox


@pytest.mark.django_db(transaction=True)
def test_change_shows_at_once(client, pin, visitor):
    comment = make(Comment, pin=pin, author=visitor, text="Nice <b>boat</b>, see https://example.com")

    page = client.get(pin.get_absolute_url()).text
    assert "Nice &lt;b&gt;boat&lt;/b&gt;" in page
    assert '<a href="https://example.com" rel="nofollow">' in page
    comment.text = "Very nice"
    comment.save()
    assert "Very nice" in client.get(pin.get_absolute_url()).text


def test_pages(client, pin, visitor):
    comments = [make(Comment, pin=pin, author=visitor, text=f"Comment {number}") for number in range(21)]

    second = client.get(pin.get_absolute_url(), {"page": 2})

    assert list(second.context["page_obj"]) == comments[20:]
