"""The tests run against the deploy settings as they are shipped, with config.json beside this file as the config."""

import json
import os
import tempfile
from pathlib import Path

import django
import pytest
from django.core.management import call_command
from django.test import Client, override_settings

from {{ cookiecutter.project_slug }} import local_postgres

config = json.loads(Path(__file__).with_name("config.json").read_text())
config["DATABASE_URL"] = os.environ.get("DATABASE_URL") or local_postgres.start()
folder = tempfile.TemporaryDirectory()
config_file = Path(folder.name, "config.json")
config_file.touch(mode=0o600)
config_file.write_text(json.dumps(config))

os.environ["DJANGO_CONFIG"] = str(config_file)
os.environ["DJANGO_SETTINGS_MODULE"] = "{{ cookiecutter.project_slug }}.settings.deploy"
django.setup()


@pytest.fixture(scope="session", autouse=True)
def collected_static_files(tmp_path_factory):
    """Collect the static files, without which no deployed page renders."""
    with override_settings(STATIC_ROOT=tmp_path_factory.mktemp("static")):
        call_command("collectstatic", interactive=False, verbosity=0)
        yield


class SecureClient(Client):
    def generic(self, *args, **kwargs):
        return super().generic(*args, **kwargs | {"secure": True})


@pytest.fixture
def client():
    """A visitor over HTTPS."""
    return SecureClient()
