"""The tests run against the deploy settings as they are shipped.

Their config is that of `manage.py config example`, changed by config.json beside this file.
"""

import json
import os
import tempfile
{% if cookiecutter.use_replica %}
import time
{% endif %}
from pathlib import Path

import django
import pytest
from django.core.management import call_command
from django.db import connection{% if cookiecutter.use_replica %}, connections{% endif %}

from django.test import Client, override_settings

# Before anything of the project is imported: by default its settings are local.py, which a machine for tests has not.
os.environ["DJANGO_SETTINGS_MODULE"] = "{{ cookiecutter.project_slug }}.settings.deploy"

from {{ cookiecutter.project_slug }}.config import Config
{% if cookiecutter.use_replica %}
from {{ cookiecutter.project_slug }}.scaling.db.replicas import watch
{% endif %}
from {{ cookiecutter.project_slug }}.scaling.local import postgres

config = Config.example() | json.loads(Path(__file__).with_name("config.json").read_text())
config["DATABASE_URL"] = os.environ.get("DATABASE_URL") or postgres.start()
{% if cookiecutter.use_replica %}
config["REPLICA_DATABASE_URLS"] = [config["DATABASE_URL"]] * 2
{% endif %}
folder = tempfile.TemporaryDirectory()
config_file = Path(folder.name, "config.json")
config_file.touch(mode=0o600)
config_file.write_text(json.dumps(config))

os.environ["DJANGO_CONFIG"] = str(config_file)
django.setup()


@pytest.fixture(scope="session", autouse=True)
def collected_static_files(tmp_path_factory):
    """Collect the static files, without which no deployed page renders."""
    with override_settings(STATIC_ROOT=tmp_path_factory.mktemp("static")):
        call_command("collectstatic", interactive=False, verbosity=0)
        yield


@pytest.fixture(autouse=True)
def fetch_raise(settings):
    """Let every query that fetches what an object lacks fail, naming the field that a query set should have loaded.

    A test, or a fixture, for which that is right sets `settings.FETCH_MODE = "FETCH_PEERS"` again.
    """
    settings.FETCH_MODE = "FETCH_RAISE"


{% if cookiecutter.use_replica %}
@pytest.fixture(autouse=True)
def unasked_replicas(monkeypatch):
    """Ask no replica how far it is, so that none is read from: the connections would outlive the test database."""
    watch.servers.cache_clear()
    watch.asked.set()
    monkeypatch.setattr(watch, "start", lambda: None)


@pytest.fixture
def fresh_replicas(unasked_replicas):
    """Have replicas that are fresh: both are the test database itself."""
    for alias in watch.replicas():
        watch.servers()[alias].current_to = time.monotonic()
    yield
    connections.close_all()


{% endif %}
@pytest.fixture
def many_users(db):
    """A table of 100,000 users, analysed: user1, user2 …; every tenth is on the staff."""
    with connection.cursor() as cursor:
        # Into new files: what fills the old ones, and what ANALYZE says of them, would outlast the test.
        cursor.execute("TRUNCATE accounts_user CASCADE")
        cursor.execute(
            "INSERT INTO accounts_user (username, password, first_name, last_name, email,"
            " is_superuser, is_staff, is_active, date_joined)"
            " SELECT 'user' || n, '!', 'Ada', 'Byron', '', false, n % 10 = 0, true, now()"
            " FROM generate_series(1, 100000) AS n"
        )
        cursor.execute("ANALYZE accounts_user")


class SecureClient(Client):
    def generic(self, *args, **kwargs):
        return super().generic(*args, **kwargs | {"secure": True})


@pytest.fixture
def client():
    """A visitor over HTTPS."""
    return SecureClient()
