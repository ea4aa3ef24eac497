import pytest
from django.contrib.auth import get_user_model

from my_project.pins.models import Board
from tests.conftest import SecureClient
from tests.rows import make

User = get_user_model()


@pytest.fixture
def owner(db):
    return make(User, username="grace", email="grace@example.com")


@pytest.fixture
def visitor(db):
    return make(User, username="ada", email="ada@example.com")


@pytest.fixture
def board(owner):
    return make(Board, owner=owner, title="Boats")


@pytest.fixture
def owner_client(owner):
    client = SecureClient()
    client.force_login(owner)
    return client


@pytest.fixture
def visitor_client(visitor):
    client = SecureClient()
    client.force_login(visitor)
    return client
