"""The visitor's language, on a site that has several."""

from django.conf import settings
from django.conf.urls.i18n import is_language_prefix_patterns_used
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

    def process_response(self, request, response):
        """Name no header in Vary where the address alone says the language, LANGUAGE_CODE's by having none."""
        varies = response.headers.get("Vary")
        response = super().process_response(request, response)
        if not in_chosen_language(request):
            response.headers.pop("Vary", None)
            if varies:
                response.headers["Vary"] = varies
        return response


def in_chosen_language(request):
    """Tell whether LocaleMiddleware takes the language from the visitor's cookie or browser.

    It names only Accept-Language in Vary, although the cookie comes first.
    """
    if not hasattr(request, "LANGUAGE_CODE"):  # which LocaleMiddleware sets
        return False
    in_addresses, with_default = is_language_prefix_patterns_used(getattr(request, "urlconf", settings.ROOT_URLCONF))
    return not in_addresses or (with_default and not translation.get_language_from_path(request.path_info))


def begin_in_language_code(**kwargs):
    """Forget the last visitor's language: a middleware before this one may answer, too."""
    translation.deactivate()
