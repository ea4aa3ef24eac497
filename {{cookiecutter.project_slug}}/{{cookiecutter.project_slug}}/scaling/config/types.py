"""Types for the keys of `Config`, beside `str`, `int`, `bool`, `list[str]`, `Literal["a", "b"]` and the like.

The title says what is accepted, in error messages and in the JSON Schema; without one, the type is put in words.
The example stands in the example config. SECRET is never shown; of a SECRET_URL, everything but its password is.
"""

from typing import Annotated

from msgspec import Meta

SECRET = {"writeOnly": True}
SECRET_URL = {"writeOnly": True, "format": "uri"}

# Parts of patterns
PORT = r"(:([0-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))"
SERVER = r"([^/?#@\s:\[\]]+|\[[0-9a-fA-F:]+\])"
USER = r"([^/?#@\s]*@)?"
BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4 = rf"{BYTE}\.{BYTE}\.{BYTE}\.{BYTE}"
IPV6 = "[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*"

Secret = Annotated[str, Meta(min_length=1, examples=["change-me"], extra_json_schema=SECRET)]

# Without an example: the example config has a fresh random text.
SecretKey = Annotated[
    str, Meta(min_length=50, title="a random text of at least 50 characters", extra_json_schema=SECRET)
]

Count = Annotated[int, Meta(ge=1, title="a number from 1")]

Seconds = Annotated[int, Meta(ge=0, title="a number of seconds")]

Name = Annotated[
    str,
    Meta(pattern="^[a-z0-9-]+$", title="lower-case letters, digits and dashes", examples=["my-name"]),
]

{% if cookiecutter.media_storage == "filesystem" %}
Folder = Annotated[str, Meta(pattern="^/", title="an absolute path", examples=["/srv/files"])]

{% endif %}
Host = Annotated[
    str,
    Meta(
        pattern=r"^(\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9a-fA-F:]+\])$",
        title="a host name without scheme, port and path",
        examples=["{{ cookiecutter.domain_name }}"],
    ),
]

Network = Annotated[
    str,
    Meta(
        pattern=f"^({IPV4}(/(3[0-2]|[12]?[0-9]))?|{IPV6}(/[0-9][0-9]?[0-9]?)?)$",
        title="an address or a network such as 10.0.0.0/8",
        examples=["10.0.0.0/8"],
    ),
]

Address = Annotated[
    str,
    Meta(pattern=f"^{SERVER}{PORT}$", title="an address and a port such as 127.0.0.1:80", examples=["127.0.0.1:80"]),
]
{% if cookiecutter.use_cdn or cookiecutter.media_storage == "s3" %}

Origin = Annotated[
    str,
    Meta(
        pattern=r"^(https://[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|http://(localhost|127\.0\.0\.1))" + PORT + "?$",
        title="an address such as https://cdn.example.com, without a path",
        examples=["https://cdn.example.com"],
    ),
]
{% endif %}

PostgresURL = Annotated[
    str,
    Meta(
        pattern=rf"^postgres(ql)?://{USER}{SERVER}?{PORT}?/[^/?#\s]+(\?[^#\s]*)?$",
        title="a URL such as postgresql://user:password@host:5432/name",
        examples=["postgresql://user:password@localhost:5432/{{ cookiecutter.project_slug }}"],
        extra_json_schema=SECRET_URL,
    ),
]
{% if cookiecutter.use_redis %}

# A query only with TLS, where it names the authority; a Unix socket has one for the number of the database.
RedisURL = Annotated[
    str,
    Meta(
        pattern=rf"^(redis://{USER}{SERVER}{PORT}?(/[0-9]*)?"
        rf"|rediss://{USER}{SERVER}{PORT}?(/[0-9]*)?(\?ssl_ca_certs=/[^?#&\s]+)?"
        rf"|unix://{USER}/[^?#\s]+(\?db=[0-9]+)?)$",
        title="a URL such as redis://:password@host:6379/0",
        examples=["redis://localhost:6379/0"],
        extra_json_schema=SECRET_URL,
    ),
]
{% endif %}
{% if cookiecutter.use_celery %}

BrokerURL = Annotated[
    str,
    Meta(
        pattern=rf"^((rediss?|amqps?)://{USER}{SERVER}{PORT}?(/[^?#\s]*)?(\?[^#\s]*)?"
        rf"|redis\+socket://{USER}/[^?#\s]+(\?[^#\s]*)?)$",
        title="a URL such as redis://:password@host:6379/1",
        examples=["redis://localhost:6379/1"],
        extra_json_schema=SECRET_URL,
    ),
]
{% endif %}

EmailURL = Annotated[
    str,
    Meta(
        pattern=rf"^((smtp|smtp\+tls|smtps)://{USER}{SERVER}{PORT}?/?|anymail\+[a-z_-]+://\?[^#\s]+)$",
        title="a URL such as smtp+tls://user:password@host:587",
        examples=["smtp+tls://user:password@localhost:587"],
        extra_json_schema=SECRET_URL,
    ),
]

StatsdURL = Annotated[
    str,
    Meta(
        pattern=rf"^udp://[^/?#@\s:]+{PORT}$",
        title="a URL such as udp://127.0.0.1:8125",
        examples=["udp://127.0.0.1:8125"],
    ),
]
{% if cookiecutter.media_storage == "s3" %}

Bucket = Annotated[
    str, Meta(pattern="^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", title="the name of a bucket", examples=["files"])
]
{% endif %}
{% if cookiecutter.use_sentry %}

SentryDSN = Annotated[
    str,
    Meta(
        pattern=rf"^https?://[^/?#@:\s]+@{SERVER}(:[0-9]{% raw %}{{1,5}}{% endraw %})?/([^?#\s]*/)?[0-9]+$",
        title="a URL such as https://key@sentry.example/1",
        examples=["https://key@sentry.example/1"],
        extra_json_schema=SECRET,
    ),
]
{% endif %}
