"""The visitor's language, on a site that has several."""

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.core.signals import request_started
from django.middleware import locale
from django.utils import translation


class LocaleMiddleware(locale.LocaleMiddleware):
    """Django's, but only if LANGUAGES has several.

    It adds Vary: Accept-Language to all pages, which would split shared caches for nothing.
    """

    def __init__(self, get_response):
        if len(settings.LANGUAGES) < 2:
            raise MiddlewareNotUsed
        super().__init__(get_response)
        request_started.connect(begin_in_language_code)


def begin_in_language_code(**kwargs):
    """Forget the last visitor's language: a middleware before this one may answer, too."""
    translation.deactivate()
