"""Tables of any length as CSV, for spreadsheets, in the memory of a thousand rows."""

import csv
import io
import re
from decimal import Decimal

from django.db.models.sql import Query
from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header

CHUNK_ROWS = 1000

# The beginning of a cell, if a character follows that makes it a formula; the last four are full-width. Spreadsheets of
# many countries split at semicolons, some at tabs, and count quotes otherwise then: cells begin within our texts, too.
FORMULA = re.compile(r'((?:^|[;\t\r\n])(?:[^\S\t\r\n]|")*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])')


def csv_response(queryset, filename, columns):
    """Return a response that streams `columns`, a dict of headings and of fields as in values_list().

    There is a row for each object, in the order of the primary keys: a field of a to-many relation, or a filter on one
    without distinct(), would repeat them, and lose some. Each thousand are a query of their own, so neither a
    transaction, which a slow reader would keep open, nor a server-side cursor, which PgBouncer does not have, is
    needed; rows may change between two of them.
    """
    query = getattr(queryset, "query", None)
    has_rows_of_its_own = isinstance(query, Query) and not (query.combinator or isinstance(query.group_by, tuple))
    if not has_rows_of_its_own or query.is_sliced or query.distinct_fields:
        raise TypeError(
            "csv_response() needs a query set of a model's rows that can be filtered further: no slice, no union, no"
            " values() before annotate(), no distinct() of fields, no raw SQL."
        )
    rows = queryset.order_by("pk").values_list("pk", *columns.values())
    rows.query.standard_ordering = True  # reverse() outlasts order_by()
    first = list(rows[:CHUNK_ROWS])  # what is wrong fails now: a response that has begun could only break off
    chunks = chunks_by_primary_key(rows, first)
    return StreamingHttpResponse(
        csv_texts(columns, chunks),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": content_disposition_header(True, filename)},
    )


def chunks_by_primary_key(rows, chunk):
    while chunk:
        yield [row for _, *row in chunk]
        chunk = list(rows.filter(pk__gt=chunk[-1][0])[:CHUNK_ROWS])


def csv_texts(headings, chunks):
    """Yield the heading, then each chunk as one text: a piece for every row would be a system call for every row."""
    yield "\ufeff" + csv_text([headings])  # without the mark, Excel does not expect UTF-8
    for chunk in chunks:
        yield csv_text(chunk)


def csv_text(rows):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(map(harmless, row) for row in rows)
    return text.getvalue()


def harmless(value):
    """Put an apostrophe before what a spreadsheet would run; a negative number is none."""
    if value is None or isinstance(value, (int, float, Decimal)):
        return value
    return FORMULA.sub(r"\1'", str(value))
