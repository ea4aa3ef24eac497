"""How many attempts a visitor has, counted in the cache by all processes together; RATE_LIMITS has the figures."""

import functools
import time
import unicodedata
from contextlib import suppress
from ipaddress import IPv6Address, IPv6Network

from django.conf import settings
from django.core.cache import cache
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers

from ..cache import make_key
from .proxies import parse


def rate_limited(name, account=None, *, only_failures=False):
    """Limit the POSTs of an address to a view, and of these those for one account, to what RATE_LIMITS[name] says.

    `account` is the field of the form that names the account; without it, it is that of who is logged in. With
    `only_failures` an answer that redirects is not counted: that of a login that succeeds. A window begins every so
    many seconds by the clock, so that there may be twice as many attempts around the end of one. While the cache is
    away, nobody is limited.
    """

    def decorator(view):
        @functools.wraps(view)
        def limited(request, *args, **kwargs):
            if request.method != "POST":
                return view(request, *args, **kwargs)
            figures = settings.RATE_LIMITS[name]
            now, window = time.time(), figures["seconds"]
            visitor = (name, int(now // window), network_of(request.META["REMOTE_ADDR"]))
            who = folded(request.POST.get(account, "")) if account else str(request.user.pk)
            limits = {
                make_key("rate limit", *visitor): figures["per_address"],
                make_key("rate limit", *visitor, who): figures["per_account"],
            }
            counted = []
            for key, limit in limits.items():
                if count(key, window) > limit:
                    uncount(counted)  # or one account would use up the attempts of its neighbours
                    return too_many_attempts(request, int(window - now % window) + 1)
                counted.append(key)
            response = view(request, *args, **kwargs)
            if only_failures and 300 <= response.status_code < 400:
                uncount(counted)
            return response

        return limited

    return decorator


def network_of(address):
    """Return what one visitor has: an IPv4 address, or a network of IPv6, of which he may use any address."""
    address = parse(address)
    return str(IPv6Network((int(address), 64), strict=False) if isinstance(address, IPv6Address) else address)


def folded(account):
    """Return what is the same for all ways to write a name."""
    return unicodedata.normalize("NFKC", account).strip().casefold()


def count(key, window):
    """Return how many attempts there are now, this one included."""
    cache.add(key, 0, 2 * window)  # longer than the window, in which it must not expire
    try:
        return cache.incr(key)
    except ValueError:  # the cache keeps nothing, as in development
        return 0


def uncount(keys):
    for key in keys:
        with suppress(ValueError):
            cache.decr(key)


def too_many_attempts(request, seconds):
    response = render(request, "429.html", {"minutes": -(-seconds // 60)}, status=429)
    response.headers["Retry-After"] = str(seconds)
    add_never_cache_headers(response)
    return response
