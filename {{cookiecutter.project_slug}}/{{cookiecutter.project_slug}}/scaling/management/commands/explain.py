import json
import re
import sys
from itertools import count

from django.core.management.base import BaseCommand, CommandError
from django.db import Error, connection, transaction


class Command(BaseCommand):
    help = "Show how PostgreSQL, from 16 on, would run a statement of the log, whatever its parameters are."

    def add_arguments(self, parser):
        parser.add_argument("sql", nargs="?", help="a statement or its line of the log; by default standard input")

    def handle(self, sql, **options):
        statement = numbered(logged(sql or sys.stdin.read()))
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION READ ONLY")  # EXPLAIN runs nothing, but a second statement would run
                cursor.execute(f"EXPLAIN (GENERIC_PLAN) {statement}")
                return "\n".join(line for (line,) in cursor)
        except Error as error:
            raise CommandError(error) from None


def logged(text):
    """Return the SQL in a line of the log, which is JSON; other text is SQL itself."""
    return json.loads(text)["sql"] if text.lstrip().startswith("{") else text


def numbered(sql):
    """Return SQL with PostgreSQL's own placeholders, $1 and so on, in place of Python's."""
    numbers = count(1)
    return re.sub("%[s%]", lambda found: f"${next(numbers)}" if found[0] == "%s" else "%", sql)
