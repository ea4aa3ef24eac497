"""The JSON config: one file per environment holds everything that differs between environments.

DJANGO_CONFIG names the file; without it, it is DEFAULT_FILE. Any value can be kept in a file of its own:
{"SECRET_KEY": {"$file": "/run/secrets/secret_key"}}. On the command line: `manage.py config check|show|example|schema`.
"""

import argparse
import difflib
import json
import os
import re
import secrets
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal
{% if cookiecutter.use_cdn and cookiecutter.media_storage == "s3" %}
from urllib.parse import urlsplit
{% endif %}

import msgspec
from django.core.exceptions import ImproperlyConfigured
from msgspec import Meta

from .settings import base

DEFAULT_FILE = "/srv/{{ cookiecutter.project_slug }}/config.json"

# Types. A title says what is accepted, in error messages and in the JSON Schema; a write-only value is never shown.

PORT = r"(:([0-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))"
BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"

SecretKey = Annotated[
    str,
    Meta(min_length=50, title="a random text of at least 50 characters", extra_json_schema={"writeOnly": True}),
]
PostgresURL = Annotated[
    str,
    Meta(
        pattern=r"^postgres(ql)?://([^/?#@\s]*@)?([^/?#@\s:\[\]]*|\[[0-9a-fA-F:]+\])"
        + PORT
        + r"?/[^/?#\s]+(\?[^#\s]*)?$",
        title="a URL such as postgresql://user:password@host:5432/name",
        extra_json_schema={"writeOnly": True, "format": "uri"},
    ),
]
Host = Annotated[
    str,
    Meta(
        pattern=r"^(\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9a-fA-F:]+\])$",
        title="a host name without scheme, port and path",
    ),
]
Network = Annotated[
    str,
    Meta(
        pattern=rf"^({BYTE}(\.{BYTE}){% raw %}{{3}}{% endraw %}(/(3[0-2]|[12]?[0-9]))?|[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*(/[0-9]{% raw %}{{1,3}}{% endraw %})?)$",
        title="an address or a network such as 10.0.0.0/8",
    ),
]
{% if cookiecutter.use_redis %}
RedisURL = Annotated[
    str,
    Meta(
        pattern=r"^(?!redis:.*\?)(rediss?://([^/?#@\s]*@)?([^/?#@\s:\[\]]+|\[[0-9a-fA-F:]+\])"
        + PORT
        + r"?(/[0-9]*)?(\?ssl_ca_certs=/[^?#&\s]+)?|unix://([^/?#@\s]*@)?/[^?#\s]+(\?db=[0-9]+)?)$",
        title="a URL such as redis://:password@host:6379/0",
        extra_json_schema={"writeOnly": True, "format": "uri"},
    ),
]
{% endif %}
EmailURL = Annotated[
    str,
    Meta(
        pattern=r"^(smtp|smtp\+tls|smtps)://([^/?#@\s]*@)?([^/?#@\s:\[\]]+|\[[0-9a-fA-F:]+\])" + PORT + "?/?$",
        title="a URL such as smtp+tls://user:password@host:587",
        extra_json_schema={"writeOnly": True, "format": "uri"},
    ),
]
StatsdURL = Annotated[str, Meta(pattern=rf"^udp://[^/?#@\s:]+{PORT}$", title="a URL such as udp://127.0.0.1:8125")]
{% if cookiecutter.use_cdn or cookiecutter.media_storage == "s3" %}
Origin = Annotated[
    str,
    Meta(
        pattern=r"^(https://[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|http://(localhost|127\.0\.0\.1))" + PORT + "?$",
        title="an address such as https://cdn.example.com, without a path",
    ),
]
{% endif %}
{% if cookiecutter.media_storage == "s3" %}
Bucket = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", title="the name of a bucket")]
{% endif %}
Count = Annotated[int, Meta(ge=1, title="a number from 1")]
Switch = Annotated[bool, Meta(title="true or false")]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Every key, with its type, its meaning and its default; a key without a default is required."""

    SECRET_KEY: Annotated[SecretKey, Meta(description="Signs sessions, password resets and messages.")]

    SECRET_KEY_FALLBACKS: Annotated[
        list[SecretKey],
        Meta(title="a list of texts", description="Former secret keys: what they signed stays valid for now."),
    ] = []

    ALLOWED_HOSTS: Annotated[
        list[Host],
        Meta(
            min_length=1,
            title="a list of host names",
            description="The host names that the site answers to; a leading dot includes all subdomains.",
            examples=[["{{ cookiecutter.domain_name }}"]],
        ),
    ]

    ENVIRONMENT: Annotated[
        str,
        Meta(
            pattern="^[a-z0-9-]+$",
            title="lower-case letters, digits and dashes",
            description="The name of the environment: in the keys of the cache, which environments may share.",
        ),
    ] = "production"

    TRUSTED_PROXIES: Annotated[
        list[Network],
        Meta(
            title="a list of addresses and networks",
            description="The proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.",
        ),
    ] = base.TRUSTED_PROXIES

    HTTPS: Annotated[Switch, Meta(description="Visitors use HTTPS only; false is for your own machine.")] = True

    HSTS_SECONDS: Annotated[
        int,
        Meta(
            ge=0,
            title="a number of seconds",
            description="How long browsers insist on HTTPS: raise it in steps, to a year of 31536000.",
        ),
    ] = base.SECURE_HSTS_SECONDS

    HSTS_SUBDOMAINS: Annotated[
        Switch, Meta(description="Browsers insist on HTTPS for all subdomains too: each of them must have it.")
    ] = False

    DATABASE_URL: Annotated[
        PostgresURL,
        Meta(
            description="The primary PostgreSQL database; special characters in the password percent-encoded.",
            examples=["postgresql://user:password@localhost:5432/{{ cookiecutter.project_slug }}"],
        ),
    ]

    DATABASE_POOLER: Annotated[
        Literal["none", "pgbouncer"],
        Meta(
            title='"none" or "pgbouncer"',
            description="What DATABASE_URL leads to: PostgreSQL itself, or PgBouncer in transaction mode.",
        ),
    ] = "none"

{% if cookiecutter.use_replica %}
    REPLICA_DATABASE_URLS: Annotated[
        list[PostgresURL],
        Meta(
            title="a list of URLs",
            description="Streaming replicas of the primary, reached as DATABASE_POOLER says; pages read from them.",
        ),
    ] = []

{% endif %}
    WORKERS: Annotated[
        Count | None,
        Meta(title="a number from 1, or null", description="Server processes on one host; null: one for each core."),
    ] = None

    THREADS: Annotated[Count, Meta(description="Requests that one server process serves at once.")] = 4

    HOSTS: Annotated[Count, Meta(description="Hosts that serve the site, to count its database connections.")] = 1

{% if cookiecutter.use_redis %}
    CACHE_REDIS_URL: Annotated[
        RedisURL | None,
        Meta(
            title="a URL such as redis://:password@host:6379/0",
            description="The Redis that caches: redis, rediss (TLS) or unix; null: the database does.",
        ),
    ] = None

{% endif %}
    EMAIL_URL: Annotated[
        EmailURL | None,
        Meta(
            title="a URL such as smtp+tls://user:password@host:587",
            description="The mail server: smtp+tls (STARTTLS), smtps or smtp; without one, sending mail fails.",
        ),
    ] = None

{% if cookiecutter.use_celery %}
    CELERY_BROKER_URL: Annotated[
        str,
        Meta(
            pattern=r"^(rediss?|amqps?)://([^/?#@\s]*@)?([^/?#@\s:\[\]]+|\[[0-9a-fA-F:]+\])"
            + PORT
            + r"?(/[^?#\s]*)?(\?[^#\s]*)?$",
            title="a URL such as redis://:password@host:6379/1",
            description="The broker of background tasks: redis, rediss (TLS), amqp or amqps (TLS).",
            examples=["redis://localhost:6379/1"],
            extra_json_schema={"writeOnly": True, "format": "uri"},
        ),
    ]

{% endif %}
{% if cookiecutter.use_cdn %}
    CDN_URL: Annotated[
        Origin | None,
        Meta(
            title="an address such as https://cdn.example.com, without a path",
            description="The CDN that static files come from, and that has them from the site; null: the site itself.",
        ),
    ] = None

{% endif %}
{% if cookiecutter.media_storage == "filesystem" %}
    MEDIA_ROOT: Annotated[
        str,
        Meta(
            pattern="^/",
            title="an absolute path",
            description="The folder of uploaded files, which all hosts share, and which nginx serves.",
        ),
    ] = "/srv/{{ cookiecutter.project_slug }}/media"

{% endif %}
{% if cookiecutter.media_storage == "s3" %}
    MEDIA_S3_ENDPOINT_URL: Annotated[
        Origin,
        Meta(
            description="The S3-compatible service that keeps uploaded files.",
            examples=["https://s3.eu-central-1.amazonaws.com"],
        ),
    ]

    MEDIA_S3_REGION: Annotated[
        str, Meta(pattern="^[a-z0-9-]+$", title="the name of a region", description="Where the buckets are.")
    ] = "us-east-1"

    MEDIA_S3_BUCKET: Annotated[
        Bucket, Meta(description="Files for everybody, who may read but not list them.", examples=["public-files"])
    ]

    MEDIA_S3_PRIVATE_BUCKET: Annotated[
        Bucket, Meta(description="All other files, behind signed addresses that expire.", examples=["private-files"])
    ]

    MEDIA_S3_ACCESS_KEY: Annotated[
        str | None, Meta(title="a text, or null", description="Signs requests; null: the role of the host does.")
    ] = None

    MEDIA_S3_SECRET_KEY: Annotated[
        Annotated[str, Meta(extra_json_schema={"writeOnly": True})] | None,
        Meta(title="a text, or null", description="The secret that belongs to the access key."),
    ] = None

    MEDIA_CDN_URL: Annotated[
        Origin | None,
        Meta(
            title="an address such as https://media.example.com, without a path",
            description="The CDN before the public bucket; null: visitors read from the bucket itself.",
        ),
    ] = None

{% endif %}
{% if cookiecutter.use_sentry %}
    SENTRY_DSN: Annotated[
        Annotated[
            str,
            Meta(
                pattern=r"^https?://[^/?#@:\s]+@([^/?#@\s:\[\]]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?/([^?#\s]*/)?[0-9]+$",
                extra_json_schema={"writeOnly": True},
            ),
        ]
        | None,
        Meta(
            title="a URL such as https://key@sentry.example/1",
            description="The Sentry project that errors are reported to; null: they are only logged.",
        ),
    ] = None

{% endif %}
    LOG_LEVEL: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Meta(title='"DEBUG", "INFO", "WARNING" or "ERROR"', description="What is logged: this and worse."),
    ] = base.LOG_LEVEL

    STATSD_URL: Annotated[
        StatsdURL | None,
        Meta(
            title="a URL such as udp://127.0.0.1:8125",
            description="The statsd server that takes the figures of each request as metrics.",
        ),
    ] = base.STATSD_URL

    @property
    def workers(self):
        """The number of server processes on this host."""
        return self.WORKERS or os.cpu_count() or 1

    def __repr__(self):
        return f"Config({shown(msgspec.structs.asdict(self))})"

    def __rich_repr__(self):
        return shown(msgspec.structs.asdict(self)).items()


FIELDS = {field.name: field for field in msgspec.structs.fields(Config)}
PROPERTIES = msgspec.json.schema(Config)["$defs"]["Config"]["properties"]


class ConfigError(ImproperlyConfigured):
    """The config cannot be used; the message lists everything that is wrong with it."""


def load(file=None):
    """Return the Config in a file, by default the one that DJANGO_CONFIG names.

    Raises ConfigError with all that is wrong with it. Warns if every user of the machine can read it.
    """
    file = file or default_file()
    values, problems = read(file)
    if problems:
        raise ConfigError(report(file, problems))
    if warning := exposure(file):
        warnings.warn(warning, stacklevel=2)
    return Config(**values)


def default_file():
    """Return the name of the config file of this environment."""
    return os.environ.get("DJANGO_CONFIG") or DEFAULT_FILE


def read(file):
    """Return the usable values of a file in a dict, and a list of sentences on what is wrong with the others."""
    repeated = []

    def unique(pairs):
        keys = [key for key, _ in pairs]
        repeated.extend(key for key in dict.fromkeys(keys) if keys.count(key) > 1)
        return dict(pairs)

    try:
        text = Path(file).read_text(encoding="utf-8-sig")
        given = json.loads(text, object_pairs_hook=unique)
    except OSError as error:
        return {}, [f"{error.strerror}; set DJANGO_CONFIG to the name of the file"]
    except UnicodeDecodeError as error:
        return {}, [f"not UTF-8: look at byte {error.start + 1}"]
    except json.JSONDecodeError as error:
        if not text.strip():
            return {}, ["empty; `manage.py config example` prints a complete one"]
        return {}, [f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}"]
    if not isinstance(given, dict):
        return {}, [f"found {describe(given)}, expected an object of keys and values"]

    given.pop("$schema", None)
    problems = [f"{key}: found more than once, expected once" for key in repeated]
    values = {}
    for key, value in given.items():
        if key not in FIELDS:
            near = difflib.get_close_matches(key.upper(), FIELDS, n=1)
            problems.append(f"{key}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
            continue
        try:
            resolved = resolve(value)
            values[key] = msgspec.convert(resolved, FIELDS[key].type, strict=resolved is value)
        except OSError as error:
            problems.append(f"{key}: cannot read {error.filename}: {error.strerror}")
        except UnicodeDecodeError:
            problems.append(f"{key}: the file it names is not UTF-8")
        except msgspec.ValidationError:
            problems += mismatches(key, resolved)
    problems += [
        f"{key}: missing, expected {PROPERTIES[key]['title']}"
        for key, field in FIELDS.items()
        if field.required and key not in given
    ]
{% if cookiecutter.use_cdn and cookiecutter.media_storage == "s3" %}
    problems += files_among_scripts(values)
{% endif %}
    return values, problems


def resolve(value):
    """Return a value with each {"$file": name} in it replaced by the text of that file."""
    if isinstance(value, dict) and isinstance(value.get("$file"), str):
        return Path(value["$file"]).read_text(encoding="utf-8").strip()
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [resolve(item) for item in value]
    return value


{% if cookiecutter.use_cdn and cookiecutter.media_storage == "s3" %}
def files_among_scripts(values):
    """Return what is wrong with the hosts of uploaded files: on that of CDN_URL, browsers run files as scripts."""
    scripts = values.get("CDN_URL")
    return [
        f'{key}: found "{values[key]}", expected another host than that of CDN_URL, from which browsers run scripts'
        for key in ("MEDIA_S3_ENDPOINT_URL", "MEDIA_CDN_URL")
        if scripts and values.get(key) and urlsplit(values[key]).hostname == urlsplit(scripts).hostname
    ]


{% endif %}
def mismatches(key, value):
    """Return what is wrong with a value that does not have the type of its key: each item of a list for itself."""
    wanted = PROPERTIES[key]
    if not isinstance(value, list) or "items" not in wanted or not value:
        return [f"{key}: found {describe(value, is_secret(wanted))}, expected {wanted['title']}"]
    problems = []
    for index, item in enumerate(value):
        try:
            msgspec.convert([item], FIELDS[key].type)
        except msgspec.ValidationError:
            found = describe(item, is_secret(wanted))
            problems.append(f"{key}[{index}]: found {found}, expected {wanted['items']['title']}")
    return problems


def describe(value, secret=False):
    """Name a value for an error message; of a secret, only its kind."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if value == "":
        return "an empty text"
    if secret:
        return f"a text of {len(value)} characters" if isinstance(value, str) else "a value that is no text"
    return json.dumps(value, ensure_ascii=False)[:80]


def is_secret(wanted):
    """Tell whether a JSON Schema is that of a secret, or of a list of secrets."""
    parts = [wanted["items"]] if "items" in wanted else wanted.get("anyOf", [])
    return wanted.get("writeOnly", False) or any(is_secret(part) for part in parts)


def exposure(file):
    """Return a warning if every user of the machine can read a file with secrets in it, otherwise None."""
    if os.name == "posix" and Path(file).stat().st_mode & 0o004:
        return f"Every user of this machine can read {file} and the secrets in it: chmod o-r {file}"
    return None


def report(file, problems):
    """Return one text that says what is wrong with a file."""
    return "\n  ".join([f"{file} cannot be used:", *problems])


# manage.py config


def example():
    """Return a complete config: every key with its default or an example, and a fresh secret key."""
    return {
        key: secrets.token_urlsafe(48) if key == "SECRET_KEY" else wanted.get("examples", [wanted.get("default")])[0]
        for key, wanted in PROPERTIES.items()
    }


def shown(values):
    """Return the values as they may be shown: of a secret URL without its password, of another secret nothing."""
    return {key: hide(value, PROPERTIES[key]) if is_secret(PROPERTIES[key]) else value for key, value in values.items()}


def hide(value, wanted):
    """Hide the secret in a value: the password of a URL, everything of another text."""
    if isinstance(value, list):
        return [hide(item, wanted["items"]) for item in value]
    if value is None:
        return None
    if "format" not in wanted:
        return "********"
    value = re.sub(r"(://[^:@]*):.*@", r"\1:********@", value)
    return re.sub(r"([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&]*", r"\1********", value, flags=re.IGNORECASE)


def schema():
    """Return the JSON Schema of a config file: each value, or the name of a file that holds it."""
    in_file = {
        "type": "object",
        "properties": {"$file": {"type": "string"}},
        "required": ["$file"],
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "{{ cookiecutter.project_slug }}: config",
        "type": "object",
        "properties": {key: {"anyOf": [wanted, in_file]} for key, wanted in PROPERTIES.items()},
        "required": [key for key, field in FIELDS.items() if field.required],
        "additionalProperties": False,
    }


def main(arguments):
    """Run `manage.py config` with its arguments; return the exit status."""
    parser = argparse.ArgumentParser(prog="manage.py config", description="Look at the JSON config.")
    actions = parser.add_subparsers(dest="action", required=True)
    for action, help in (
        ("check", "say everything that is wrong with the config"),
        ("show", "print the values in use, secrets hidden"),
        ("example", "print a complete config with a fresh secret key"),
        ("schema", "print a JSON Schema of the config, for editors"),
    ):
        actions.add_parser(action, help=help)
    for action in ("check", "show"):
        actions.choices[action].add_argument("file", nargs="?", default=default_file(), help="by default %(default)s")
    options = parser.parse_args(arguments)

    if options.action in ("example", "schema"):
        print(json.dumps(example() if options.action == "example" else schema(), indent=2, ensure_ascii=False))
        return 0

    values, problems = read(options.file)
    if problems:
        print(report(options.file, problems), file=sys.stderr)
    elif warning := exposure(options.file):
        print(warning, file=sys.stderr)
    if options.action == "show":
        defaults = {key: wanted["default"] for key, wanted in PROPERTIES.items() if "default" in wanted}
        print(json.dumps(shown(defaults | values), indent=2, ensure_ascii=False))
    elif not problems:
        print(f"{options.file}: no errors")
    return 1 if problems else 0
