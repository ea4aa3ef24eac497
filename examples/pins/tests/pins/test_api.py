from django.urls import reverse

from my_project.pins.models import Pin
from tests.rows import make


def test_pages(client, board):
    pins = [make(Pin, board=board, title=f"Pin {number}") for number in range(21)]

    response = client.get(reverse("pins:api"))
    first = response.json()
    last = client.get(first["next"]).json()

    assert "public" in response.headers["Cache-Control"]
    assert [pin["id"] for pin in first["pins"] + last["pins"]] == [pin.pk for pin in reversed(pins)]
    assert last["next"] is None


def test_pin(client, board):
    pin = make(Pin, board=board, title="A boat", text="Of wood", picture="pins/boat.png")

    found = client.get(reverse("pins:api_detail", args=[pin.pk])).json()

    assert (found["title"], found["text"]) == ("A boat", "Of wood")
    assert found["picture"] == "/media/pins/boat.png"
    assert found["board"] == {"id": board.pk, "title": "Boats"}
    assert found["url"] == pin.get_absolute_url()


def test_unknown_page(client, db):
    response = client.get(reverse("pins:api"), {"before": "yesterday"})

    assert response.status_code == 400
    assert response.json() == {"errors": {"before": ["Enter a whole number."]}}


def test_only_reads(client, db):
    assert client.post(reverse("pins:api")).status_code == 405
