"""Tables of any length as CSV, for spreadsheets, in the memory of a thousand rows."""

import csv
import io

from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header

CHUNK_ROWS = 1000
# A text that begins with one of these, the full-width ones included, is a formula to a spreadsheet.
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def csv_response(queryset, filename, columns):
    """Return a response that streams `columns`, a dict of headings and of fields as in values_list().

    There is a row for each object, in the order of the primary keys: a field of a to-many relation would repeat them,
    and lose some. Each thousand are a query of their own, so neither a transaction, which a slow reader would keep
    open, nor a server-side cursor, which PgBouncer does not have, is needed; rows may change between two of them.
    """
    chunks = chunks_by_primary_key(queryset, columns.values())
    return StreamingHttpResponse(
        csv_texts(columns, chunks),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": content_disposition_header(True, filename)},
    )


def chunks_by_primary_key(queryset, fields):
    queryset = queryset.order_by("pk").values_list("pk", *fields)
    chunk = list(queryset[:CHUNK_ROWS])
    while chunk:
        yield [row for _, *row in chunk]
        chunk = list(queryset.filter(pk__gt=chunk[-1][0])[:CHUNK_ROWS])


def csv_texts(headings, chunks):
    """Yield the heading, then each chunk as one text: a piece for every row would be a system call for every row."""
    yield "\ufeff" + csv_text([headings])  # without the mark, Excel does not expect UTF-8
    for chunk in chunks:
        yield csv_text(chunk)


def csv_text(rows):
    text = io.StringIO()
    csv.writer(text).writerows(map(harmless, row) for row in rows)
    return text.getvalue()


def harmless(value):
    """Put an apostrophe before a text that a spreadsheet would run; a negative number is none."""
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(FORMULA) else value
