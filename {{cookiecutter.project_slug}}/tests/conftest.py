"""The tests run against the deploy settings as they are shipped.

Their config is that of `manage.py config example`, changed by config.json beside this file.
"""

import fcntl
import itertools
import json
import os
import tempfile
{% if cookiecutter.use_replica %}
import time
{% endif %}
from pathlib import Path
from unittest import mock

import django
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.core.management import call_command
{% if cookiecutter.use_replica %}
from django.db import connections
{% endif %}
from django.test import Client, override_settings
from whitenoise.storage import CompressedManifestStaticFilesStorage

# Before anything of the project is imported: its settings would be local.py, which does not exist where only tests run.
os.environ["DJANGO_SETTINGS_MODULE"] = "{{ cookiecutter.project_slug }}.settings.deploy"

from {{ cookiecutter.project_slug }}.config import Config
{% if cookiecutter.use_replica %}
from {{ cookiecutter.project_slug }}.scaling.db.replicas import watch
{% endif %}
from {{ cookiecutter.project_slug }}.scaling.local import postgres
from tests.rows import make

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

locks = []


def number_of_run():
    """Return the lowest number that no other run of these tests has, and keep it while this process lives."""
    folder = settings.BASE_DIR / ".local"
    folder.mkdir(exist_ok=True)
    for number in itertools.count(1):
        lock = (folder / f"tests-{number}.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            locks.append(lock)
            return number


# The workers of pytest-xdist have the number of the process that starts them.
if "TEST_RUN" not in os.environ:
    os.environ["TEST_RUN"] = str(number_of_run())
for database in settings.DATABASES.values():
    test = database.setdefault("TEST", {})
    test["NAME"] = test.get("NAME") or f"test_{database['NAME']}_{os.environ['TEST_RUN']}"


@pytest.fixture(scope="session", autouse=True)
def collected_static_files(tmp_path_factory):
    """Collect the static files, without which no page renders; to compress those of large apps would take minutes."""
    uncompressed = mock.patch.object(CompressedManifestStaticFilesStorage, "compress_files", return_value=[])
    with override_settings(STATIC_ROOT=tmp_path_factory.mktemp("static")), uncompressed:
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
    watch.answered.set()
    monkeypatch.setattr(watch, "start", lambda: None)


@pytest.fixture
def fresh_replicas(unasked_replicas):
    """Have replicas that are fresh: both are the test database itself."""
    for alias in watch.replicas():
        watch.servers()[alias].current_to = time.monotonic() + 3600
    yield
    connections.close_all()


{% endif %}
class SecureClient(Client):
    def generic(self, *args, **kwargs):
        return super().generic(*args, **kwargs | {"secure": True})


@pytest.fixture
def client():
    """A visitor over HTTPS."""
    return SecureClient()


@pytest.fixture
def admin_user(db):
    """Somebody who may do everything, with the password "password"."""
    return make(get_user_model(), password=make_password("password"), is_staff=True, is_superuser=True)


@pytest.fixture
def admin_client(client, admin_user):
    """The same, over HTTPS."""
    client.force_login(admin_user)
    return client
