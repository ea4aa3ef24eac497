"""Pages of large tables: COUNT(*) reads every row, and OFFSET every row before the page."""

import json
from math import ceil

from django.core.paginator import EmptyPage, InvalidPage, Page, Paginator
from django.utils.functional import cached_property

# Page numbers lead to so many rows: to skip 100,000 takes 10 ms in a narrow table that is in memory, and ever longer.
MAX_ROWS = 100_000
# What is estimated to be fewer rows is counted: 1 ms, where an index finds them.
EXACT_BELOW = 10_000


class UncountedPaginator(Paginator):
    """Pages that know whether another one follows, by fetching one row more, but not how many there are.

    `count` and `num_pages` are None. For ListView as `paginator_class`, with links to the previous and the next page.
    """

    count = num_pages = None

    def validate_number(self, number):
        """Return the number of a page that begins before MAX_ROWS; raise PageNotAnInteger, otherwise EmptyPage."""
        return self._validate_number(number, ceil(MAX_ROWS / self.per_page))

    def page(self, number):
        number = self.validate_number(number)
        bottom = (number - 1) * self.per_page
        rows = list(self.object_list[bottom : bottom + self.per_page + self.orphans + 1])
        if not rows and (number > 1 or not self.allow_empty_first_page):
            raise EmptyPage(self.error_messages["no_results"])
        return UncountedPage(rows, number, self)

    def get_page(self, number):
        """Return a page, for a number that leads to none the first one: which one is the last is not known."""
        try:
            return self.page(number)
        except InvalidPage:
            return self.page(1)


class UncountedPage(Page):
    def __init__(self, rows, number, paginator):
        self.follows = len(rows) > paginator.per_page + paginator.orphans
        super().__init__(rows[: paginator.per_page] if self.follows else rows, number, paginator)

    def has_next(self):
        return self.follows and self.number * self.paginator.per_page < MAX_ROWS

    def next_page_number(self):
        if not self.has_next():
            raise EmptyPage(self.paginator.error_messages["no_results"])
        return self.number + 1

    def end_index(self):
        return self.start_index() + len(self) - 1


class EstimatedPaginator(Paginator):
    """Pages of which there are about so many: for a ModelAdmin, along with `show_full_result_count = False`."""

    @cached_property
    def count(self):
        return estimated_count(self.object_list)


def estimated_count(queryset):
    """Return how many rows PostgreSQL expects, without reading any; fewer than EXACT_BELOW are counted.

    It knows the size of the table now, and the share of rows that a filter lets through from the last ANALYZE, which
    autovacuum runs when a tenth has changed. Filters on several columns that depend on each other mislead it.
    """
    plan = queryset.explain(format="json")
    if not plan:  # Django knows without asking that no row can match
        return 0
    expected = json.loads(plan)[0]["Plan"]["Plan Rows"]
    return expected if expected >= EXACT_BELOW else queryset.count()
