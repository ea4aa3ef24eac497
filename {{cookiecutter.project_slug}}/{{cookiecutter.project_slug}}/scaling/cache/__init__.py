"""Cached values that expire one by one and are computed by one caller at a time, on any of Django's cache backends.

Call cached(), for many values at once cached_many(), and in templates the tag `fragment`.
"""

import hashlib
import pickle
import random
import time
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from enum import Enum
from functools import partial
from uuid import UUID

from django.conf import settings
from django.core.cache import cache
from django.db import models, transaction
from django.utils.functional import Promise

{% if cookiecutter.use_replica %}
from ..db.replicas import values_to_keep
{% endif %}
from ..logs.request_log import current

# Keys that were set together expire apart, each up to this share of its TTL earlier or later.
JITTER = 0.2
# An expired value is served for so long, at most, while one caller computes the next.
STALE_SECONDS = 60
# A computation that takes longer counts as crashed, and the next may start. One that raises makes way at once.
LOCK_SECONDS = 3
# A caller without even a stale value waits for another's: through a crash and the computation after it.
WAIT_SECONDS = 2 * LOCK_SECONDS
POLL_SECONDS = 0.1

# What a key can vary on; a subclass comes before its base.
SCALARS = (bool, int, float, Decimal, str, bytes, datetime, date, time_of_day, timedelta, UUID)
# What unpickling raises, mostly, where a class is another one by now.
UNREADABLE = (AttributeError, EOFError, ImportError, LookupError, TypeError, ValueError, pickle.UnpicklingError)


class CountedCache:
    """Count the hits and misses of each request, on top of a backend whose get_many() does not use get()."""

    def get(self, key, default=None, version=None):
        return self.get_many([key], version).get(key, default)

    def get_many(self, keys, version=None):
        found = super().get_many(keys := set(keys), version)
        if figures := current.get():
            figures.cache_hits += len(found)
            figures.cache_misses += len(keys) - len(found)
        return found


def cached(name, ttl, compute, *vary_on, flush=False):
    """Return what compute() returned in the last `ttl` seconds, give or take a fifth, or what it returns now.

    There is one value, which must be picklable, for each `name` and `vary_on`. Callers that find it expired get the
    old one while one of them computes; if there is none they wait, WAIT_SECONDS at most, and then compute themselves.

    In a transaction the value is computed without a lock, which would hold up others until the commit, and cached at
    the commit: it may rest on rows that are rolled back. Raises what compute() raises.
    """
    key = make_key(name, *vary_on)
    return cached_many(ttl, {key: compute}, flush=flush)[key]


def cached_many(ttl, computations, flush=False):
    """Do as cached() for several values at once: `computations` and what is returned have the keys of make_key().

    The cache is asked for all of them at once. What it lacks is computed by one of those who miss the same.
    """

    def refresh(keys):
        values = {key: computations[key]() for key in keys}
        for value in values.values():
            if isinstance(value, models.QuerySet):
                len(value)  # its rows are read now, not when it is stored
        entries = {key: (time.time() + lifetime(ttl), value) for key, value in values.items()}
        store = partial(cache.set_many, entries, ttl * (1 + JITTER) + STALE_SECONDS)
        if transaction.get_connection().in_atomic_block:
            # robust: should the cache fail after the commit, whatever else waits for the commit still runs.
            transaction.on_commit(store, robust=True)
        else:  # where on_commit() would connect to the database first
            store()
        return values
{% if cookiecutter.use_replica %}

    # From the primary: they are kept for longer than a replica may lag.
    refresh, ttl = values_to_keep(refresh, ttl)
{% endif %}

    values = {} if flush or not computations else fresh(cache.get_many(computations))
    missing = [key for key in computations if key not in values]
    if not missing:
        return values
    if flush or transaction.get_connection().in_atomic_block:
        return values | refresh(missing)
    return values | refresh_once(missing, refresh)


def make_key(name, *vary_on):
    """Return a hash of what a value varies on: a full database cache deletes by the order of keys, so at random.

    A saved row counts by its primary key and its `cache_key`, if it has one; a query set, page, list or tuple by its
    members; all anonymous users as one; everything else by type and value: 1, "1" and True are three keys.
    """
    return hashlib.sha256(repr([str(name), *map(identity, vary_on)]).encode()).hexdigest()


def flush_requested(request):
    """Whether the page is asked for with ?flush by a member of the staff: its cached parts are then computed anew."""
    return "flush" in request.GET and hasattr(request, "user") and request.user.is_staff


def ttls(request):
    """Context processor: the TTLs of the settings, in seconds."""
    return {name: getattr(settings, name) for name in ("SHORT_TTL", "MIDDLE_TTL", "LONG_TTL", "FOREVER_TTL")}


def identity(value):
    """Return what is the same in every process, and of no other value; isinstance() sees through SimpleLazyObject."""
    if value is None:
        return None
    if isinstance(value, Enum):
        # Choices are what a row from the database has in their place: plain text, or a number.
        kind = value.__class__
        return identity(value.value) if issubclass(kind, SCALARS) else (kind.__module__, kind.__qualname__, value.name)
    if isinstance(value, Promise):  # a translation in the language of now
        return ("str", str(value))
    for kind in SCALARS:
        if isinstance(value, kind):
            return (kind.__name__, str(value))
    if isinstance(value, models.Model):
        if value._state.adding or value.pk is None:
            raise ValueError(f"A cache key cannot vary on {value!r}: it is not saved.")
        model = value._meta.concrete_model._meta.label_lower
        return ("row", model, identity(value.pk), identity(getattr(value, "cache_key", None)))
    if isinstance(value, (Sequence, models.QuerySet)):
        return [identity(member) for member in value]
    if getattr(value, "is_anonymous", False) is True:
        return ("anonymous",)
    raise TypeError(
        f"A cache key cannot vary on {value!r:.100}, which is a {type(value).__name__}. It takes None, text, bytes,"
        " numbers, dates and times, UUIDs, members of enums, saved rows, request.user, query sets, lists, tuples and"
        " pages of these: give it .all() of a manager, sorted() of a set, and a list of what a generator yields."
    )


def lifetime(ttl):
    return ttl * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311


def fresh(entries, since=0):
    """Return the values that have not expired, or not so many seconds ago."""
    now = time.time() - since
    return {key: value for key, (expires, value) in entries.items() if now < expires}


def refresh_once(keys, refresh):
    lock = make_key("lock", *sorted(keys))
    deadline = time.monotonic() + WAIT_SECONDS
    unheld = 0
    # Twice neither free nor held: the cache takes no writes, so nobody can be computing for others.
    while unheld < 2 and time.monotonic() < deadline:
        if cache.add(lock, True, LOCK_SECONDS):
            try:
                values = fresh(cache.get_many(keys))  # another caller may have finished since the first look
                missing = [key for key in keys if key not in values]
                return values | refresh(missing) if missing else values
            finally:
                cache.delete(lock)
        found = cache.get_many([*keys, lock])
        is_held = found.pop(lock, False)
        values = fresh(found, STALE_SECONDS)
        if len(values) == len(keys):
            return values
        if is_held:
            time.sleep(POLL_SECONDS)
        else:
            unheld += 1
    return refresh(keys)
