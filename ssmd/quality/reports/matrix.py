"""Days × suites: the table of a feed's index and of its months, also with the days on which nothing ran."""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from ssmd.quality.reports.summary import DaySummary, SuiteSummary


class Row(NamedTuple):
    """A day; `summary` None: no check ran. `cells` are in the order of the columns, None: no such suite that day."""

    day: date
    summary: DaySummary | None
    cells: list[SuiteSummary | None]


class Matrix(NamedTuple):
    """Columns are (suite, title); rows are days without a hole, newest first."""

    columns: list[tuple[str, str]]
    rows: list[Row]


def matrix(summaries: Iterable[DaySummary]) -> Matrix:
    """The table of these days and of those between them; columns as the newest day orders them, older ones after."""
    by_day = {summary.day: summary for summary in summaries}
    newest_first = sorted(by_day.values(), key=lambda summary: summary.day, reverse=True)
    columns: dict[str, str] = {}
    for summary in newest_first:
        for suite in summary.suites:
            columns.setdefault(suite.suite, suite.title or suite.suite)
    rows = [_row(day, by_day.get(day), list(columns)) for day in _days(newest_first)]
    return Matrix(list(columns.items()), rows)


def _days(newest_first: Sequence[DaySummary]) -> list[date]:
    if not newest_first:
        return []
    newest, oldest = newest_first[0].day, newest_first[-1].day
    return [newest - timedelta(days=n) for n in range((newest - oldest).days + 1)]


def _row(day: date, summary: DaySummary | None, suites: Sequence[str]) -> Row:
    found = {} if summary is None else {suite.suite: suite for suite in summary.suites}
    return Row(day, summary, [found.get(suite) for suite in suites])
