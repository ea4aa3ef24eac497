import random
import time

from django.core.management.commands import migrate
from django.db import OperationalError, connections

TRIES = 30  # with the waits, about two minutes
PAUSE = 3  # seconds on average: what queued behind the lock goes first

LOCK_NOT_AVAILABLE, DEADLOCK = "55P03", "40P01"

INVALID_INDEXES = """
    SELECT quote_ident(nspname) || '.' || quote_ident(relname)
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE NOT indisvalid AND NOT indexrelid IN (SELECT index_relid FROM pg_stat_progress_create_index)
"""


class Command(migrate.Command):
    """Django's, which goes on where it stopped when a table that it needs was locked for COMMAND_LOCK."""

    def handle(self, *arguments, **options):
        connection = connections[options["database"]]
        invalid_before = invalid_indexes(connection)
        for tries_left in reversed(range(TRIES)):
            try:
                # What a CREATE INDEX CONCURRENTLY leaves behind would be in the way of the next one.
                for index in invalid_indexes(connection) - invalid_before:
                    connection.cursor().execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
                return super().handle(*arguments, **options)
            except OperationalError as error:
                if getattr(error.__cause__, "sqlstate", None) not in (LOCK_NOT_AVAILABLE, DEADLOCK) or not tries_left:
                    raise
                self.stderr.write(f"{error}\nTries again, {tries_left} times at most.")
            time.sleep(random.uniform(0, 2 * PAUSE))  # noqa: S311


def invalid_indexes(connection):
    """Return the names of the indexes that PostgreSQL began to build, and does not any more."""
    with connection.cursor() as cursor:
        cursor.execute(INVALID_INDEXES)
        return {name for (name,) in cursor}
