"""The visitor's language, on a site that has several."""

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.core.signals import request_started
from django.middleware import locale
from django.utils import translation


class LocaleMiddleware(locale.LocaleMiddleware):
    """Django's, where LANGUAGES has more than one: it adds `Vary: Accept-Language` to all pages, for shared caches."""

    def __init__(self, get_response):
        if len(settings.LANGUAGES) < 2:
            raise MiddlewareNotUsed
        super().__init__(get_response)
        request_started.connect(forget)


def forget(**kwargs):
    """Begin a request in LANGUAGE_CODE: what a middleware before this one answers would be in the last visitor's."""
    translation.deactivate()
