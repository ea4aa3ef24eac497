import csv

from django.urls import reverse
from pytest_django.asserts import assertRedirects

from my_project.pins.models import Board, Pin
from tests.rows import Rows, make


def test_list(client, board):
    page = client.get(reverse("pins:boards"))

    assert f'<a href="{board.get_absolute_url()}">Boats</a>' in page.text
    assert "grace" in page.text


def test_make_one(owner_client, owner):
    response = owner_client.post(reverse("pins:board_add"), {"title": "Boats"})

    board = Board.objects.get(title="Boats", owner=owner)
    assertRedirects(response, board.get_absolute_url())


def test_make_one_without_an_account(client, db):
    address = reverse("pins:board_add")

    response = client.post(address, {"title": "Boats"})

    assertRedirects(response, reverse("login", query={"next": address}))
    assert not Board.objects.exists()


def test_only_its_owner_may_add_and_export(client, owner_client, visitor_client, board):
    add, export = reverse("pins:add", args=[board.pk]), reverse("pins:export", args=[board.pk])

    assert [owner_client.get(address).status_code for address in (add, export)] == [200, 200]
    assert [visitor_client.get(address).status_code for address in (add, export)] == [404, 404]
    assert [client.get(address).status_code for address in (add, export)] == [302, 302]
    assert add in owner_client.get(board.get_absolute_url()).text
    assert add not in visitor_client.get(board.get_absolute_url()).text


def test_pages(client, board):
    """The newest pins come first, twenty on a page."""
    pins = Pin.objects.bulk_create([Pin(board=board, title=f"Pin {number}", picture="a.png") for number in range(21)])
    make(Pin, board=Rows(2)[Board][1], title="Of another board")

    first = client.get(board.get_absolute_url())
    second = client.get(board.get_absolute_url(), {"page": 2})

    assert list(first.context["page_obj"]) == pins[:0:-1]
    assert list(second.context["page_obj"]) == pins[:1]


def test_export(owner_client, board):
    make(Pin, board=board, title="=1+1", text="A boat", picture="pins/boat.png")

    response = owner_client.get(reverse("pins:export", args=[board.pk]))

    headings, row = csv.reader(response.getvalue().decode("utf-8-sig").splitlines())
    assert headings == ["Title", "Text", "Picture", "Created"]
    assert row[:3] == ["'=1+1", "A boat", "pins/boat.png"]
    assert "private" in response.headers["Cache-Control"]
