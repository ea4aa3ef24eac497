"""The JSON config: what its own tests in the rendered project cannot show."""

import json
import re

import jsonschema
import pytest
import requests
from conftest import Server, clean_environment, free_port


@pytest.fixture(scope="module")
def schema(default_project):
    return json.loads(default_project.manage("config", "schema").stdout)


@pytest.fixture
def example(default_project):
    return json.loads(default_project.manage("config", "example").stdout)


def test_schema_accepts_the_example(schema, example):
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(example, schema, cls=jsonschema.Draft202012Validator)


def test_schema_accepts_files(schema, example):
    example["SECRET_KEY"] = {"$file": "/run/secrets/secret_key"}

    jsonschema.validate(example, schema)


@pytest.mark.parametrize(
    "change",
    [
        {"SECRET_KEY": "short"},
        {"SECRET_KEY": {"$file": 7}},
        {"ALLOWED_HOSTS": "example.com"},
        {"ALLOWED_HOSTS": ["https://example.com"]},
        {"DATABASE_URL": "mysql://db/shop"},
        {"COLOUR": "red"},
    ],
)
def test_schema_refuses(schema, example, change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(example | change, schema)


def test_config_works_without_settings(project):
    (project.package / "settings" / "local.py").unlink()
    (project.package / "settings" / "deploy.py").write_text("this is not Python")

    assert project.manage("config", "example").returncode == 0


def test_example_file_is_the_example(default_project, example):
    committed = json.loads((default_project.path / "config.example.json").read_text())

    assert list(committed) == list(example)
    assert committed | {"SECRET_KEY": ""} == example | {"SECRET_KEY": ""}


def insert(file, pattern, text):
    """Insert a text into a file, before the first line that matches a pattern."""
    file.write_text(re.sub(pattern, lambda found: text + found[0], file.read_text(), count=1, flags=re.MULTILINE))


def add_required_key(project, line):
    """Give a project a key of its own, STRIPE_KEY, in the four places that its README shows."""
    insert(project.package / "config.py", "^    DATABASE_URL:", f"    {line}\n\n")
    insert(project.package / "settings" / "deploy.py", "^# Database$", "STRIPE_KEY = config.STRIPE_KEY\n\n\n")
    insert(project.path / "config.example.json", '^  "DATABASE_URL"', '  "STRIPE_KEY": "sk_live_of_mine",\n')


@pytest.fixture
def own_key(project):
    add_required_key(project, "STRIPE_KEY: str")
    return project


def print_setting(project, name, **environment):
    """Return what a setting is in a shell of a project."""
    return project.manage(
        "shell", "-v0", "-c", f"from django.conf import settings; print(settings.{name})", **environment
    )


@pytest.mark.parametrize("line", ["STRIPE_KEY: str", "STRIPE_KEY: types.Secret"])
def test_own_key(project, tmp_path, line):
    add_required_key(project, line)
    environment = project.configure(tmp_path, STRIPE_KEY="sk_live_of_mine")

    assert project.manage("config", "check", **environment).stdout.endswith(": no errors\n")
    assert print_setting(project, "STRIPE_KEY", **environment).stdout == "sk_live_of_mine\n"
    assert json.loads(project.manage("config", "show", **environment).stdout)["STRIPE_KEY"] == "********"
    schema = json.loads(project.manage("config", "schema").stdout)
    jsonschema.validate(json.loads((tmp_path / "config.json").read_text()), schema)


def test_own_key_missing(own_key, tmp_path):
    environment = own_key.configure(tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    del values["STRIPE_KEY"]
    file.write_text(json.dumps(values))

    for command in (["config", "check"], ["check"]):
        ran = own_key.manage(*command, check=False, **environment)
        assert ran.returncode == 1
        first, second = ran.stdout.splitlines()
        assert first == f"{file} cannot be used:"
        assert second.startswith("  STRIPE_KEY: missing, expected a text")


def test_own_key_in_the_tests_of_the_project(own_key):
    own_key.run(own_key.python, "-m", "pytest", "-q", "-k", "config or security or check or project")


def test_own_key_in_make_serve(own_key, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    log = tmp_path / "make-serve.log"
    server = Server(["make", "serve", f"ADDRESS={address}"], address, log, cwd=own_key.path, env=clean_environment())
    try:
        assert requests.get(server.wait_until_up().url, timeout=10).status_code == 200
    finally:
        server.stop()


def test_own_key_with_a_default(project, tmp_path):
    insert(project.package / "config.py", "^    DATABASE_URL:", "    MAX_ITEMS: int = 5\n\n")
    insert(project.package / "settings" / "deploy.py", "^# Database$", "MAX_ITEMS = config.MAX_ITEMS\n\n\n")
    environment = project.configure(tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    assert values.pop("MAX_ITEMS") == 5
    file.write_text(json.dumps(values))

    assert print_setting(project, "MAX_ITEMS", **environment).stdout == "5\n"
    file.write_text(json.dumps(values | {"MAX_ITEMS": "many"}))
    ran = project.manage("config", "check", check=False, **environment)
    assert ran.stdout.splitlines()[1:] == ['  MAX_ITEMS: found "many", expected a whole number']


def test_mail_needs_a_server(default_project, tmp_path):
    """The tests of the rendered project have one: their mail goes to a mailbox."""
    environment = default_project.configure(tmp_path, EMAIL_URL=None)

    ran = default_project.manage("sendtestemail", "ada@example.com", check=False, **environment)

    assert ran.returncode == 1
    assert "MailerDoesNotExist" in ran.stdout
