import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from pytest_django.asserts import assertRedirects

from my_project.pins.models import Pin
from tests.rows import make

PNG = b"\x89PNG\r\n\x1a\n and so on"


@pytest.fixture(autouse=True)
def media(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path


def add(client, board, content=PNG, title="A boat"):
    picture = SimpleUploadedFile("boat.png", content)
    return client.post(reverse("pins:add", args=[board.pk]), {"title": title, "picture": picture})


def test_add(owner_client, board):
    response = add(owner_client, board)

    assertRedirects(response, board.get_absolute_url(), fetch_redirect_response=False)
    pin = Pin.objects.get(board=board)
    assert pin.picture.read() == PNG
    page = owner_client.get(board.get_absolute_url())
    assert "A boat is on the board." in page.text
    assert f'src="{pin.picture.url}"' in page.text


def test_add_what_is_no_picture(owner_client, board):
    response = add(owner_client, board, b"<script>")

    assert "The file is none of these" in response.text
    assert not Pin.objects.exists()


def test_full_board(owner_client, board, settings):
    settings.PINS_PER_BOARD = 1
    make(Pin, board=board)

    response = add(owner_client, board)

    assert "The board is full: it has 1 pins." in response.text
    assert Pin.objects.count() == 1


def test_add_to_a_board_of_somebody_else(visitor_client, board):
    assert add(visitor_client, board).status_code == 404


def test_list_is_public(client, owner_client, board):
    """A CDN may keep it: it is the same for everybody."""
    make(Pin, board=board, title="A boat")

    page = client.get(reverse("pins:list"))

    assert "A boat" in page.text
    assert "public" in page.headers["Cache-Control"]
    assert owner_client.get(reverse("pins:list")).text == page.text


@pytest.mark.parametrize("name", ["pins:boards", "pins:board", "pins:board_add", "pins:add"])
def test_other_pages_are_private(owner_client, board, name):
    arguments = [board.pk] if name in ("pins:board", "pins:add") else []

    page = owner_client.get(reverse(name, args=arguments))

    assert page.status_code == 200
    assert page.headers["Cache-Control"] == "private"
