"""The JSON config: one file per environment holds everything that differs between environments.

DJANGO_CONFIG names the file; without it, it is `default_file`. Any value can be kept in a file of its own:
{"SECRET_KEY": {"$file": "/run/secrets/secret_key"}}. On the command line: `manage.py config check|show|example|schema`.
"""

import os
from typing import Annotated, Literal
{% if cookiecutter.use_cdn and cookiecutter.media_storage == "s3" %}
from urllib.parse import urlsplit
{% endif %}

from msgspec import Meta, field

from .scaling.config import types
from .scaling.config.file import ConfigFile
from .settings import base


class Config(ConfigFile, kw_only=True):
    """Every key, with its type, its meaning and its default; a key without a default is required.

    README.md shows how to add one.
    """

    default_file = "/srv/{{ cookiecutter.project_slug }}/config.json"

    SECRET_KEY: Annotated[types.SecretKey, Meta(description="Signs sessions, password resets and messages.")]

    SECRET_KEY_FALLBACKS: Annotated[
        list[types.SecretKey],
        Meta(title="a list of texts", description="Former secret keys: what they signed stays valid for now."),
    ] = []

    ALLOWED_HOSTS: Annotated[
        list[types.Host],
        Meta(
            min_length=1,
            title="a list of host names, at least one",
            description="The host names that the site answers to; a leading dot includes all subdomains.",
        ),
    ]

    ENVIRONMENT: Annotated[
        types.Name,
        Meta(description="The name of the environment: in the keys of the cache, which environments may share."),
    ] = "production"

    TRUSTED_PROXIES: Annotated[
        list[types.Network],
        Meta(
            title="a list of addresses and networks",
            description="The proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.",
        ),
    ] = field(default_factory=base.TRUSTED_PROXIES.copy)

    HTTPS: Annotated[bool, Meta(description="Visitors use HTTPS only; false is for your own machine.")] = True

    HSTS_SECONDS: Annotated[
        types.Seconds,
        Meta(description="How long browsers insist on HTTPS: raise it in steps, to a year of 31536000."),
    ] = base.SECURE_HSTS_SECONDS

    HSTS_SUBDOMAINS: Annotated[
        bool,
        Meta(description="Browsers insist on HTTPS for all subdomains too: each of them must have it."),
    ] = False

    DATABASE_URL: Annotated[
        types.PostgresURL,
        Meta(description="The primary PostgreSQL database; special characters in the password percent-encoded."),
    ]

    DATABASE_POOLER: Annotated[
        Literal["none", "pgbouncer"],
        Meta(description="What DATABASE_URL leads to: PostgreSQL itself, or PgBouncer in transaction mode."),
    ] = "none"

{% if cookiecutter.use_replica %}
    REPLICA_DATABASE_URLS: Annotated[
        list[types.PostgresURL],
        Meta(
            title="a list of URLs",
            description="Streaming replicas of the primary, reached as DATABASE_POOLER says; pages read from them.",
        ),
    ] = []

{% endif %}
    WORKERS: Annotated[
        types.Count | None,
        Meta(description="Server processes on one host; null: one for each core."),
    ] = None

    THREADS: Annotated[types.Count, Meta(description="Requests that one server process serves at once.")] = 4

    HOSTS: Annotated[types.Count, Meta(description="Hosts that serve the site, to count its database connections.")] = 1

{% if cookiecutter.use_redis %}
    CACHE_REDIS_URL: Annotated[
        types.RedisURL | None,
        Meta(description="The Redis that caches: redis, rediss (TLS) or unix; null: the database does."),
    ] = None

{% endif %}
    PURGE_ADDRESSES: Annotated[
        list[types.Address],
        Meta(
            title="a list of addresses such as 127.0.0.1:8090",
            description="Where the nginx of each host is told to purge pages that it keeps; nginx.conf has the port.",
        ),
    ] = field(default_factory=["127.0.0.1:8090"].copy)

    EMAIL_URL: Annotated[
        types.EmailURL | None,
        Meta(description="Sends mail: smtp+tls (STARTTLS), smtps, smtp or anymail+name; null: sending mail fails."),
    ] = None

{% if cookiecutter.use_celery %}
    CELERY_BROKER_URL: Annotated[
        types.BrokerURL,
        Meta(description="The broker of background tasks: redis, rediss (TLS), redis+socket, amqp or amqps (TLS)."),
    ]

{% endif %}
{% if cookiecutter.use_cdn %}
    CDN_URL: Annotated[
        types.Origin | None,
        Meta(description="The CDN that static files come from, which has them from the site; null: the site itself."),
    ] = None

{% endif %}
{% if cookiecutter.media_storage == "filesystem" %}
    MEDIA_ROOT: Annotated[
        types.Folder,
        Meta(description="The folder of uploaded files, which all hosts share, and which nginx serves."),
    ] = "/srv/{{ cookiecutter.project_slug }}/media"

{% endif %}
{% if cookiecutter.media_storage == "s3" %}
    MEDIA_S3_ENDPOINT_URL: Annotated[
        types.Origin,
        Meta(
            description="The S3-compatible service that keeps uploaded files.",
            examples=["https://s3.eu-central-1.amazonaws.com"],
        ),
    ]

    MEDIA_S3_REGION: Annotated[
        types.Name,
        Meta(title="the name of a region", description="Where the buckets are."),
    ] = "us-east-1"

    MEDIA_S3_BUCKET: Annotated[
        types.Bucket,
        Meta(description="Files for everybody, who may read but not list them.", examples=["public-files"]),
    ]

    MEDIA_S3_PRIVATE_BUCKET: Annotated[
        types.Bucket,
        Meta(description="All other files, behind signed addresses that expire.", examples=["private-files"]),
    ]

    MEDIA_S3_ACCESS_KEY: Annotated[
        str | None,
        Meta(description="Signs requests; null: the role of the host does."),
    ] = None

    MEDIA_S3_SECRET_KEY: Annotated[
        types.Secret | None,
        Meta(description="The secret that belongs to the access key."),
    ] = None

    MEDIA_CDN_URL: Annotated[
        types.Origin | None,
        Meta(
            title="an address such as https://media.example.com, without a path, or null",
            description="The CDN before the public bucket; null: visitors read from the bucket itself.",
        ),
    ] = None

{% endif %}
{% if cookiecutter.use_sentry %}
    SENTRY_DSN: Annotated[
        types.SentryDSN | None,
        Meta(description="The Sentry project that errors are reported to; null: they are only logged."),
    ] = None

{% endif %}
    LOG_LEVEL: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"],
        Meta(description="What is logged: this and worse."),
    ] = base.LOG_LEVEL

    STATSD_URL: Annotated[
        types.StatsdURL | None,
        Meta(description="The statsd server that takes the figures of each request as metrics."),
    ] = base.STATSD_URL

    @property
    def workers(self):
        """The number of server processes on this host."""
        return self.WORKERS or os.cpu_count() or 1
{% if cookiecutter.use_cdn and cookiecutter.media_storage == "s3" %}

    def conflicts(self):
        """Uploaded files must not be on the host of CDN_URL: browsers would run them as scripts of the site."""
        expected = "expected another host than that of CDN_URL, from which browsers run scripts"
        for key in ("MEDIA_S3_ENDPOINT_URL", "MEDIA_CDN_URL"):
            url = getattr(self, key)
            if self.CDN_URL and url and urlsplit(url).hostname == urlsplit(self.CDN_URL).hostname:
                yield f'{key}: found "{url}", {expected}'
{% endif %}
