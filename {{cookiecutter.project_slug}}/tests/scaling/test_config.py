import json
import os
import subprocess
import sys
from pathlib import Path
from pprint import pformat
from typing import Annotated, Literal

import pytest
from msgspec import Meta

from {{ cookiecutter.project_slug }}.config import Config
from {{ cookiecutter.project_slug }}.scaling.config.file import ConfigError, ConfigFile
from {{ cookiecutter.project_slug }}.scaling.config.types import Secret

ROOT = Path(__file__).resolve().parents[2]
SECRET_KEY = "a-secret-that-no-message-may-show-a-secret-that-no-message-may-show"
VALID = Config.example() | {
    "SECRET_KEY": SECRET_KEY,
    "ALLOWED_HOSTS": ["example.com"],
    "DATABASE_URL": "postgresql://ada:hidden%40word@db:5432/shop?sslmode=require",
{% if cookiecutter.use_celery %}
    "CELERY_BROKER_URL": "redis://:hidden@broker",
{% endif %}
}


class Plain(ConfigFile, kw_only=True):
    """A config whose keys say no more than their types, as those may that a project adds."""

    STRIPE_KEY: Secret
    WEBHOOK_TOKEN: str
    CURRENCY: Literal["EUR", "USD"]
    CITIES: list[str]
    LIMITS: dict[str, int]
    RATIO: float | None
    MAX_ITEMS: Annotated[int, Meta(ge=1)] = 5


@pytest.fixture
def write(tmp_path):
    """Write a config file, from values or from text, and return its path."""

    def write(content):
        file = tmp_path / "config.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        file.chmod(0o600)
        return file

    return write


def problems(file, config=Config):
    """Return what is wrong with a file, a line each, after a first line that names the file."""
    with pytest.raises(ConfigError) as error:
        config.load(file)
    first, *lines = str(error.value).splitlines()
    assert str(file) in first
    assert "secret-that-no-message-may-show" not in str(error.value)
    assert "hidden" not in str(error.value)
    return [line.strip() for line in lines]


def manage(*arguments, **environment):
    """Run manage.py with nothing else in the environment."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_valid(write):
    loaded = Config.load(write(VALID))

    assert loaded.SECRET_KEY == SECRET_KEY
    assert loaded.ALLOWED_HOSTS == ["example.com"]
    assert loaded.SECRET_KEY_FALLBACKS == []


def test_value_in_file(write, tmp_path):
    (tmp_path / "key").write_text(SECRET_KEY + "\n")
    secret = {"$file": str(tmp_path / "key")}

    loaded = Config.load(write(VALID | {"SECRET_KEY": secret, "SECRET_KEY_FALLBACKS": [secret, SECRET_KEY + "2"]}))

    assert loaded.SECRET_KEY == SECRET_KEY
    assert loaded.SECRET_KEY_FALLBACKS == [SECRET_KEY, SECRET_KEY + "2"]


def test_value_in_missing_file(write):
    assert problems(write(VALID | {"SECRET_KEY": {"$file": "/nowhere/key"}})) == [
        "SECRET_KEY: cannot read /nowhere/key: No such file or directory"
    ]


def test_all_problems_at_once(write):
    values = VALID | {
        "SECRET_KEY_FALLBACKS": [SECRET_KEY, "secret-that-no-message-may-show"],
        "ALLOWED_HOSTS": ["example.com", "https://example.com", 7],
        "DATABASE_URL": "mysql://ada:hidden@db/shop",
{% if cookiecutter.use_celery %}
        "CELERY_BROKER_URL": "sqs://hidden",
{% endif %}
        "SECRET_KEI": SECRET_KEY,
        "COLOUR": "red",
    }
    del values["SECRET_KEY"]

    assert problems(write(values)) == [
        "SECRET_KEY_FALLBACKS[1]: found a text of 31 characters, expected a random text of at least 50 characters",
        'ALLOWED_HOSTS[1]: found "https://example.com", expected a host name without scheme, port and path',
        "ALLOWED_HOSTS[2]: found 7, expected a host name without scheme, port and path",
        "DATABASE_URL: found a text of 26 characters, expected a URL such as postgresql://user:password@host:5432/name",
{% if cookiecutter.use_celery %}
        "CELERY_BROKER_URL: found a text of 12 characters, expected a URL such as redis://:password@host:6379/1",
{% endif %}
        "SECRET_KEI: unknown key, did you mean SECRET_KEY?",
        "COLOUR: unknown key",
        "SECRET_KEY: missing, expected a random text of at least 50 characters",
    ]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("DEBUG", "; it is off on every server, and on in settings/development.py"),
        ("DATABASES", ", use DATABASE_URL: a URL such as postgresql://user:password@host:5432/name"),
        ("EMAIL_HOST", ", use EMAIL_URL: a URL such as smtp+tls://user:password@host:587, or null"),
        ("SECRET", ", use SECRET_KEY: a random text of at least 50 characters"),
        ("TIME_ZONE", "; as a setting of Django that is the same everywhere, it goes into settings/base.py"),
    ],
)
def test_name_from_elsewhere(write, key, hint):
    assert problems(write(VALID | {key: "hidden"})) == [f"{key}: unknown key{hint}"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "empty; `manage.py config example` prints a complete one"),
        ("[1, 2]", "found a list of 2, expected an object of keys and values"),
        ('{"SECRET_KEY": 1,\n "DEBUG" true}', "not JSON: line 2, column 10: Expecting ':' delimiter"),
    ],
)
def test_not_an_object(write, content, problem):
    assert problems(write(content)) == [problem]


def test_key_given_twice(write):
    file = write(json.dumps(VALID).replace("{", '{"ALLOWED_HOSTS": ["other.example"], ', 1))

    assert problems(file) == ["ALLOWED_HOSTS: found more than once, expected once"]


def test_no_file(tmp_path):
    assert problems(tmp_path / "none.json") == ["No such file or directory; set DJANGO_CONFIG to the name of the file"]


def test_not_utf_8(write):
    file = write(VALID)
    file.write_bytes(b'{"SECRET_KEY": "\xff"}')

    assert problems(file) == ["not UTF-8: look at byte 17"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db/shop",
        "postgres://ada@%2Frun%2Fpostgresql/shop",
        "postgresql://ada:p%40ss@[::1]:5433/shop?sslmode=require",
        "postgresql://ada@/shop",
    ],
)
def test_database_url(write, url):
    loaded = Config.load(write(VALID | {"DATABASE_URL": url}))

    assert url == loaded.DATABASE_URL


@pytest.mark.parametrize(
    "url", ["", "db", "postgresql://db", "postgresql://db:65536/shop", "postgresql://ada:p#ss@db/shop", 5, None]
)
def test_bad_database_url(write, url):
    assert len(problems(write(VALID | {"DATABASE_URL": url}))) == 1


{% if cookiecutter.use_cdn and cookiecutter.media_storage == "s3" %}
@pytest.mark.parametrize("key", ["MEDIA_CDN_URL", "MEDIA_S3_ENDPOINT_URL"])
@pytest.mark.parametrize("url", ["https://cdn.example.com", "https://CDN.Example.com:443", "https://cdn.example.com:1"])
def test_uploaded_files_on_the_host_of_scripts(write, key, url):
    """Browsers would run an uploaded file as a script of the site."""
    assert problems(write(VALID | {"CDN_URL": "https://cdn.example.com", key: url})) == [
        f'{key}: found "{url}", expected another host than that of CDN_URL, from which browsers run scripts'
    ]


def test_uploaded_files_on_another_host(write):
    hosts = {"CDN_URL": "https://cdn.example.com", "MEDIA_CDN_URL": "https://media.cdn.example.com"}

    loaded = Config.load(write(VALID | hosts))

    assert loaded.MEDIA_CDN_URL == "https://media.cdn.example.com"


{% endif %}
def test_no_secret_in_its_repr(write):
    """Wherever it is printed: in a traceback with variables, in a debugger, by mistake."""
    loaded = Config.load(write(VALID | {"SECRET_KEY_FALLBACKS": [SECRET_KEY]}))

    for text in (repr(loaded), str(loaded), pformat([loaded]), str(list(loaded.__rich_repr__()))):
        assert "ALLOWED_HOSTS" in text
        assert "example.com" in text
        assert SECRET_KEY not in text
        assert "hidden" not in text


def test_readable_by_every_user(write):
    file = write(VALID)
    file.chmod(0o644)

    with pytest.warns(UserWarning, match=f"chmod o-r {file}"):
        Config.load(file)


def test_check(write):
    ran = manage("config", "check", DJANGO_CONFIG=str(write(VALID)))

    assert (ran.returncode, ran.stderr) == (0, "")


def test_check_broken(write):
    file = write({"SECRET_KEY": "short"})

    ran = manage("config", "check", str(file))

    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        f"{file} cannot be used:",
        *(f"  {problem}" for problem in problems(file)),
    ]


def test_show_hides_secrets(write):
    ran = manage("config", "show", DJANGO_CONFIG=str(write(VALID | {"SECRET_KEY_FALLBACKS": [SECRET_KEY]})))

    shown = json.loads(ran.stdout)
    assert shown["SECRET_KEY"] == "********"
    assert shown["SECRET_KEY_FALLBACKS"] == ["********"]
    assert shown["DATABASE_URL"] == "postgresql://ada:********@db:5432/shop?sslmode=require"
    assert shown["ALLOWED_HOSTS"] == ["example.com"]


def test_show_broken(write):
    ran = manage("config", "show", str(write(VALID | {"ALLOWED_HOSTS": 7})))

    assert ran.returncode == 1
    assert "ALLOWED_HOSTS: found 7" in ran.stderr
    assert json.loads(ran.stdout)["DATABASE_URL"].endswith("@db:5432/shop?sslmode=require")


def test_example_is_complete_valid_and_fresh(write):
    example = manage("config", "example").stdout

    assert manage("config", "check", str(write(example))).returncode == 0
    assert json.loads(example).keys() == Config.fields().keys()
    assert json.loads(example)["SECRET_KEY"] != json.loads(manage("config", "example").stdout)["SECRET_KEY"]


def test_example_file_says_what_the_class_says():
    committed = json.loads((ROOT / "config.example.json").read_text())
    optional = [key for key, field in Config.fields().items() if not field.required]

    assert committed.keys() == Config.fields().keys()
    assert {key: committed[key] for key in optional} == {key: Config.example()[key] for key in optional}


def test_example_file_has_no_usable_secret_key(write):
    committed = json.loads((ROOT / "config.example.json").read_text())

    assert [line.split(":")[0] for line in problems(write(committed))] == ["SECRET_KEY"]


def test_settings_refuse_to_start(write):
    file = write({"ALLOWED_HOSTS": ["example.com"]})

    ran = manage("check", DJANGO_CONFIG=str(file), DJANGO_SETTINGS_MODULE=os.environ["DJANGO_SETTINGS_MODULE"])

    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert ran.stderr.splitlines() == [f"{file} cannot be used:", *(f"  {problem}" for problem in problems(file))]


@pytest.mark.parametrize("network", ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1"])
def test_network(write, network):
    loaded = Config.load(write(VALID | {"TRUSTED_PROXIES": [network]}))

    assert [network] == loaded.TRUSTED_PROXIES


@pytest.mark.parametrize("network", ["", "proxy", "10.0.0", "10.0.0.256", "10.0.0.0/33", "10.0.0.1:80"])
def test_bad_network(write, network):
    assert len(problems(write(VALID | {"TRUSTED_PROXIES": [network]}))) == 1


def test_plain_keys_have_usable_examples(write):
    example = Plain.example()

    assert Plain.load(write(example)).MAX_ITEMS == 5
    assert example == {
        "STRIPE_KEY": "change-me",
        "WEBHOOK_TOKEN": "example",
        "CURRENCY": "EUR",
        "CITIES": [],
        "LIMITS": {},
        "RATIO": 1,
        "MAX_ITEMS": 5,
    }


def test_wrong_values_of_plain_keys(write):
    wrong = {
        "STRIPE_KEY": "",
        "WEBHOOK_TOKEN": 7,
        "CURRENCY": "CHF",
        "CITIES": ["Bern", 7],
        "LIMITS": {"items": "many"},
        "RATIO": "high",
        "MAX_ITEMS": 0,
    }

    assert problems(write(wrong), Plain) == [
        "STRIPE_KEY: found an empty text, expected a text of 1 or more characters",
        "WEBHOOK_TOKEN: found a value that is no text, expected a text",
        'CURRENCY: found "CHF", expected "EUR" or "USD"',
        "CITIES[1]: found 7, expected a text",
        "LIMITS: found an object, expected an object (each: a whole number)",
        'RATIO: found "high", expected a number, or null',
        "MAX_ITEMS: found 0, expected a whole number from 1",
    ]


def test_plain_key_missing(write):
    values = Plain.example()
    del values["CITIES"]
    del values["MAX_ITEMS"]

    assert problems(write(values), Plain) == ["CITIES: missing, expected a list (each: a text)"]


def test_plain_secrets_are_hidden(write):
    """Those of the type Secret, and texts that are secret by their names."""
    loaded = Plain.load(write(Plain.example() | {"STRIPE_KEY": "hidden-1", "WEBHOOK_TOKEN": "hidden-2"}))

    assert loaded.WEBHOOK_TOKEN == "hidden-2"
    assert "hidden" not in repr(loaded)
    assert "'WEBHOOK_TOKEN': '********'" in repr(loaded)


def test_no_example():
    class Strict(ConfigFile, kw_only=True):
        STRIPE_KEY: Annotated[Secret, Meta(pattern="^sk_")]
        ADDRESS: Annotated[str, Meta(pattern="^/")]

    with pytest.raises(ConfigError) as error:
        Strict.example()

    assert str(error.value).splitlines() == [
        "Keys without an example; give one in config.py by Meta(examples=[…]):",
        "  STRIPE_KEY: found a text of 9 characters, expected a text of 1 or more characters and that matches ^sk_",
        '  ADDRESS: found "example", expected a text that matches ^/',
    ]


def test_conflict_between_keys(write):
    class Range(ConfigFile, kw_only=True):
        LEAST: int
        MOST: int = 9

        def conflicts(self):
            if self.LEAST > self.MOST:
                yield f"LEAST: found {self.LEAST}, expected at most MOST"

    assert Range.load(write({"LEAST": 9})).LEAST == 9
    assert problems(write({"LEAST": 10}), Range) == ["LEAST: found 10, expected at most MOST"]
    assert problems(write({"LEAST": 10, "MOST": "many"}), Range) == ['MOST: found "many", expected a whole number']
