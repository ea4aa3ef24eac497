"""What nginx{{ ' or a CDN' if cookiecutter.use_cdn else '' }} may keep: pages that say so, for a time, and nothing of one visitor for another."""

import http.client
import logging
from urllib.parse import quote, urlsplit

from django.conf import settings
from django.contrib.messages import get_messages
from django.contrib.messages.storage.cookie import CookieStorage
from django.middleware.csp import get_nonce
from django.utils.cache import patch_cache_control
from django.utils.encoding import punycode
from django.utils.http import split_directive_names
{% if cookiecutter.use_cdn %}
from django.utils.module_loading import import_string
{% endif %}
from django.views.decorators.cache import cache_control
from django.views.decorators.http import conditional_page

from .. import timeouts
from ..cache import STALE_SECONDS
{% if cookiecutter.use_replica %}
from ..db.replicas import page_to_keep
{% endif %}
from .languages import in_chosen_language

# What browsers send as it is, and nginx has in its keys, by https://url.spec.whatwg.org/#percent-encoded-bytes
IN_PATH = "!$%&'()*+,-./:;=@[]_|~"
IN_QUERY = "!$%&()*+,-./:;=?@[\\]^_`{|}~"

logger = logging.getLogger(__name__)


def public(ttl):
    """Let shared caches serve a view's page to everybody for `ttl` seconds; browsers ask whenever it is opened.

    They serve it a little longer while they fetch the next one. A page that is not the same for everybody stays private
    all the same: why_private() says which.
    """
    directives = {"public": True, "max_age": 0, "s_maxage": ttl, "stale_while_revalidate": STALE_SECONDS}

    def decorator(view):
        page = conditional_page(view)  # with an ETag, so that a browser that asks is told that nothing has changed
        page = cache_control(**directives)(page)
{% if cookiecutter.use_replica %}
        page = page_to_keep(page, otherwise=view)
{% endif %}
        return page

    return decorator


def cache_headers(get_response):
    """Let no shared cache keep a page unless its view has said so and all visitors get the same."""

    def middleware(request):
        response = get_response(request)
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "private"
            return response
        directives = set(split_directive_names(response.headers["Cache-Control"]))
        if directives & {"no-store", "private"}:
            return response
        if not directives & {"public", "s-maxage"}:
            patch_cache_control(response, private=True)
        elif reason := why_private(request, response):
            response.headers["Cache-Control"] = "private"
            if settings.DEBUG:
                logger.warning("%s is not public as its view says: %s", request.path, reason)
        return response

    return middleware


def why_private(request, response):
    """Say why a response is not for everybody, or return None. An error in a cache would outlive its cause."""
    varies = set(split_directive_names(response.get("Vary", "")))
    reasons = {
        "its method is neither GET nor HEAD": request.method not in ("GET", "HEAD"),
        "its status is neither 200 nor 304": response.status_code not in (200, 304),
        "it sets a cookie": bool(response.cookies) or "Set-Cookie" in response.headers,
        "it depends on the session, the user or another cookie": "cookie" in varies,
        "no request is like another to it": "*" in varies,
        "its language is the visitor's choice, and not in its address (i18n_patterns)": in_chosen_language(request),
        "the request was authorized": "Authorization" in request.headers,
        "it has a nonce": bool(get_nonce(request)),
        "the visitor has messages, perhaps on it": CookieStorage.cookie_name in request.COOKIES,
        "it shows a message": shows_messages(request),
        "it is streamed, and may still look at the session": response.streaming,
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def shows_messages(request):
    """Tell whether there were messages when the page asked for them; one that was added for it has left no cookie."""
    messages = get_messages(request)
    return getattr(messages, "used", False) and len(messages) > 0


class NotPurgedError(Exception):
    """Its arguments say in a sentence each what still keeps a page."""


def purge(urls):
    """Have each nginx of PURGE_ADDRESSES{{ ' and then the CDN' if cookiecutter.use_cdn else '' }} ask for pages anew when a visitor does.

    Raise NotPurgedError at the end if not all could be told: pages there may be as old as their views allow.
    """
    urls, problems = list(urls), []
    for address in settings.PURGE_ADDRESSES:
        for url in urls:
            try:
                purge_from_nginx(address, url)
            except OSError as error:
                problems.append(f"nginx at {address} has not purged {url}, nor what follows it: {error}")
                break
            except http.client.HTTPException as error:
                problems.append(f"nginx at {address} has not purged {url}: {error}")
{% if cookiecutter.use_cdn %}
    if settings.CDN_PURGE:
        try:
            import_string(settings.CDN_PURGE)(urls)
        except Exception as error:
            problems.append(f"{settings.CDN_PURGE} failed: {type(error).__name__}: {error}")
{% endif %}
    if problems:
        raise NotPurgedError(*problems)


def purge_from_nginx(address, url):
    """Ask for a page at the server of nginx.conf that purges what it is asked for.

    Raise HTTPException if it was another server, or refused this page, and OSError if there is none.
    """
    wanted = urlsplit(url)
    path = quote(wanted.path or "/", IN_PATH)
    if "?" in url.partition("#")[0]:
        path += f"?{quote(wanted.query, IN_QUERY)}"
    connection = http.client.HTTPConnection(address, timeout=timeouts.OUTGOING)
    try:
        connection.request("GET", path, headers={"Host": punycode(wanted.hostname), "X-Forwarded-Proto": wanted.scheme})
        response = connection.getresponse()
        if "X-Purged" not in response.headers:
            raise http.client.HTTPException(f"it answered {response.status}, and is not the server that purges")
    finally:
        connection.close()
