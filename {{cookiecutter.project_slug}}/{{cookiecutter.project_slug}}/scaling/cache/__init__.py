"""Cached values that expire one by one and are computed by one caller at a time, on any of Django's cache backends.

Call cached(), and in templates the tag `fragment`.
"""

import base64
import hashlib
import logging
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
from django.core.cache.backends import db
from django.db import connections, models, router, transaction
from django.utils.functional import Promise

{% if cookiecutter.use_replica %}
from ..db.replicas import value_to_keep
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

logger = logging.getLogger(__name__)


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


class DatabaseCache(CountedCache, db.DatabaseCache):
    def get_many(self, keys, version=None):
        try:
            return super().get_many(keys, version)
        except UNREADABLE as error:
            logger.info("The cache holds what this code cannot read, and it counts as missing: %r", error)
            return {}

    def incr(self, key, delta=1, version=None):
        """Add to a number and let it expire when it would have, one process after the other; Django's does neither."""
        alias = router.db_for_write(self.cache_model_class)
        table = connections[alias].ops.quote_name(self._table)
        stored_key = self.make_and_validate_key(key, version=version)
        select = f"SELECT value FROM {table} WHERE cache_key = %s AND expires > clock_timestamp() FOR UPDATE"  # noqa: S608
        update = f"UPDATE {table} SET value = %s WHERE cache_key = %s"  # noqa: S608
        with transaction.atomic(alias), connections[alias].cursor() as cursor:
            cursor.execute(select, [stored_key])
            found = cursor.fetchone()
            if found is None:
                raise ValueError(f"Key {key!r} not found")
            number = pickle.loads(base64.b64decode(found[0])) + delta  # noqa: S301
            cursor.execute(update, [base64.b64encode(pickle.dumps(number)).decode(), stored_key])
        return number


def cached(name, ttl, compute, *vary_on, flush=False):
    """Return what compute() returned in the last `ttl` seconds, give or take a fifth, or what it returns now.

    There is one value, which must be picklable, for each `name` and `vary_on`. Callers that find it expired get the
    old one while one of them computes; if there is none they wait, WAIT_SECONDS at most, and then compute themselves.

    In a transaction the value is computed without a lock, which would hold up others until the commit, and cached at
    the commit: it may rest on rows that are rolled back. Raises what compute() raises.
    """
    key = make_key(name, *vary_on)

    def refresh():
        value = compute()
        if isinstance(value, models.QuerySet):
            len(value)  # its rows are read now, not when it is stored
        lifetime = ttl * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
        store = partial(cache.set, key, (time.time() + lifetime, value), lifetime + STALE_SECONDS)
        if transaction.get_connection().in_atomic_block:
            # robust: should the cache fail after the commit, whatever else waits for the commit still runs.
            transaction.on_commit(store, robust=True)
        else:  # where on_commit() would connect to the database first
            store()
        return value
{% if cookiecutter.use_replica %}

    # From the primary: it is kept for longer than a replica may lag.
    refresh, ttl = value_to_keep(refresh, ttl)
{% endif %}

    if flush:
        return refresh()
    entry = cache.get(key)
    if _is_fresh(entry):
        return entry[1]
    if transaction.get_connection().in_atomic_block:
        return refresh()
    return _refresh_once(key, refresh)


def make_key(name, *vary_on):
    """Return a hash of what a value varies on: a full database cache deletes by the order of keys, so at random.

    A saved row counts by its primary key and its `cache_key`, if it has one; a query set, page, list or tuple by its
    members; all anonymous users as one; everything else by type and value: 1, "1" and True are three keys.
    """
    return hashlib.sha256(repr([str(name), *map(_identity, vary_on)]).encode()).hexdigest()


def flush_requested(request):
    """Whether the page is asked for with ?flush by a member of the staff: its cached parts are then computed anew."""
    return "flush" in request.GET and hasattr(request, "user") and request.user.is_staff


def ttls(request):
    """Context processor: the TTLs of the settings, in seconds."""
    return {name: getattr(settings, name) for name in ("SHORT_TTL", "MIDDLE_TTL", "LONG_TTL", "FOREVER_TTL")}


def _identity(value):
    """Return what is the same in every process, and of no other value; isinstance() sees through SimpleLazyObject."""
    if value is None:
        return None
    if isinstance(value, Enum):
        # Choices are what a row from the database has in their place: plain text, or a number.
        kind = value.__class__
        return _identity(value.value) if issubclass(kind, SCALARS) else (kind.__module__, kind.__qualname__, value.name)
    if isinstance(value, Promise):  # a translation in the language of now
        return ("str", str(value))
    for kind in SCALARS:
        if isinstance(value, kind):
            return (kind.__name__, str(value))
    if isinstance(value, models.Model):
        if value._state.adding or value.pk is None:
            raise ValueError(f"A cache key cannot vary on {value!r}: it is not saved.")
        model = value._meta.concrete_model._meta.label_lower
        return ("row", model, _identity(value.pk), _identity(getattr(value, "cache_key", None)))
    if isinstance(value, (Sequence, models.QuerySet)):
        return [_identity(member) for member in value]
    if getattr(value, "is_anonymous", False) is True:
        return ("anonymous",)
    raise TypeError(
        f"A cache key cannot vary on {value!r:.100}, which is a {type(value).__name__}. It takes None, text, bytes,"
        " numbers, dates and times, UUIDs, members of enums, saved rows, request.user, query sets, lists, tuples and"
        " pages of these: give it .all() of a manager, sorted() of a set, and a list of what a generator yields."
    )


def _is_fresh(entry):
    return entry is not None and time.time() < entry[0]


def _refresh_once(key, refresh):
    lock = f"{key}:lock"
    deadline = time.monotonic() + WAIT_SECONDS
    unheld = 0
    # Twice neither free nor held: the cache takes no writes, so nobody can be computing for others.
    while unheld < 2 and time.monotonic() < deadline:
        if cache.add(lock, True, LOCK_SECONDS):
            try:
                entry = cache.get(key)  # another caller may have finished since the first look
                return entry[1] if _is_fresh(entry) else refresh()
            finally:
                cache.delete(lock)
        found = cache.get_many([key, lock])
        if key in found:
            return found[key][1]
        if lock in found:
            time.sleep(POLL_SECONDS)
        else:
            unheld += 1
    return refresh()
