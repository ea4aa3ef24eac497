"""The JSON config: what its own tests in the rendered project cannot show."""

import json

import jsonschema
import pytest


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
