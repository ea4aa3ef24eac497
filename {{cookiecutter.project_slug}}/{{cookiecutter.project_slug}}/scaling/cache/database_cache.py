"""The cache in a table of the database, where all that is written at once goes in one statement."""

import base64
import logging
import pickle
import random
from contextlib import nullcontext
from datetime import UTC, datetime

from django.core.cache.backends import db
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.db import DatabaseError, connections, router, transaction
from django.utils import timezone

from . import UNREADABLE, CountedCache

COUNT_EVERY = 100  # entries written, or so: to count the rows takes longer than to write one

# By their keys, so that those who write the same rows do not wait for one another.
WRITE = """
    INSERT INTO {table} (cache_key, value, expires)
    SELECT key, value, %s FROM unnest(%s::text[], %s::text[]) AS new (key, value) ORDER BY key
    ON CONFLICT (cache_key) DO UPDATE SET value = EXCLUDED.value, expires = EXCLUDED.expires
"""

logger = logging.getLogger(__name__)


class DatabaseCache(CountedCache, db.DatabaseCache):
    def get_many(self, keys, version=None):
        try:
            return super().get_many(keys, version)
        except UNREADABLE as error:
            logger.info("The cache holds what this code cannot read, and it counts as missing: %r", error)
            return {}

    def set(self, key, value, timeout=DEFAULT_TIMEOUT, version=None):
        self.set_many({key: value}, timeout, version)

    def set_many(self, data, timeout=DEFAULT_TIMEOUT, version=None):
        return [] if self.write(data, timeout, version) else list(data)

    def add(self, key, value, timeout=DEFAULT_TIMEOUT, version=None):
        return self.write({key: value}, timeout, version, overwrite=False)

    def incr(self, key, delta=1, version=None):
        """Add to a number, one process after the other, and let it expire when it would have; Django's does neither."""
        connection = connections[router.db_for_write(self.cache_model_class)]
        table = connection.ops.quote_name(self._table)
        key_of_row = self.make_and_validate_key(key, version)
        select = f"SELECT value FROM {table} WHERE cache_key = %s AND expires > clock_timestamp() FOR UPDATE"  # noqa: S608
        update = f"UPDATE {table} SET value = %s WHERE cache_key = %s"  # noqa: S608
        with transaction.atomic(connection.alias), connection.cursor() as cursor:
            cursor.execute(select, [key_of_row])
            row = cursor.fetchone()
            if row is None:
                raise ValueError(f"Key {key!r} not found")
            number = pickle.loads(base64.b64decode(row[0])) + delta  # noqa: S301
            cursor.execute(update, [encoded(number, self.pickle_protocol), key_of_row])
        return number

    def write(self, data, timeout, version, overwrite=True):
        """Write entries, or only those that are new or have expired; tell whether all were written."""
        connection = connections[router.db_for_write(self.cache_model_class)]
        table, now = connection.ops.quote_name(self._table), timezone.now()
        end = self.get_backend_timeout(timeout)
        expires = datetime.max.replace(tzinfo=UTC, microsecond=0) if end is None else datetime.fromtimestamp(end, UTC)
        entries = {self.make_and_validate_key(key, version): value for key, value in data.items()}
        values = [encoded(value, self.pickle_protocol) for value in entries.values()]
        sql, parameters = WRITE.format(table=table), [expires, list(entries), values]
        if not overwrite:
            sql, parameters = f"{sql} WHERE {table}.expires < %s", [*parameters, now]
        with connection.cursor() as cursor:
            try:
                with transaction.atomic(connection.alias) if connection.in_atomic_block else nullcontext():
                    if random.random() * COUNT_EVERY < len(entries):  # noqa: S311
                        self.make_room(connection, cursor, table, now)
                    cursor.execute(sql, parameters)
            except DatabaseError:
                return False
            return cursor.rowcount == len(entries)

    def make_room(self, connection, cursor, table, now):
        cursor.execute(f"SELECT COUNT(*) FROM {table}")  # noqa: S608
        (count,) = cursor.fetchone()
        if count > self._max_entries:
            self._cull(connection.alias, cursor, now, count)


def encoded(value, protocol):
    return base64.b64encode(pickle.dumps(value, protocol)).decode()
