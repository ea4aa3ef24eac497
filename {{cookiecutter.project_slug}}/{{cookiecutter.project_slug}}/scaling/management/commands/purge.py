from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ...http.public import NotPurgedError, purge


def is_url(text):
    try:
        parts = urlsplit(text)
    except ValueError:  # a bracket that is not closed
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


class Command(BaseCommand):
    help = "Have pages made anew that nginx{{ ' or the CDN' if cookiecutter.use_cdn else '' }} keeps, when they are next asked for."

    def add_arguments(self, parser):
        parser.add_argument("urls", nargs="+", metavar="url", help="such as https://{{ cookiecutter.domain_name }}/articles/?page=2")

    def handle(self, urls, **options):
{% if cookiecutter.use_cdn %}
        if not settings.PURGE_ADDRESSES and not settings.CDN_PURGE:
            raise CommandError("Nothing keeps pages: PURGE_ADDRESSES names no nginx, CDN_PURGE no function.")
{% else %}
        if not settings.PURGE_ADDRESSES:
            raise CommandError("Nothing keeps pages: PURGE_ADDRESSES names no nginx.")
{% endif %}
        if wrong := [url for url in urls if not is_url(url)]:
            raise CommandError(f"{wrong[0]} is no URL; expected one such as https://{{ cookiecutter.domain_name }}/articles/")
        try:
            purge(urls)
        except NotPurgedError as error:
            raise CommandError("\n".join(error.args)) from None
