"""Days × suites: the table of a feed's index and of its months, also with the days on which nothing ran."""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from ssmd.quality.reports.summary import DaySummary, SuiteSummary

A_DAY = timedelta(days=1)


class Row(NamedTuple):
    """A day, with `cells` in the order of the columns (None: no such suite that day).

    `summary` None: no check ran on the `days` days that end with `day`.
    """

    day: date
    summary: DaySummary | None
    cells: list[SuiteSummary | None]
    days: int = 1

    @property
    def first(self) -> date:
        """The first of its days."""
        return self.day - (self.days - 1) * A_DAY


class Matrix(NamedTuple):
    """Columns are (suite, title); rows are newest first, and no day between them is left out."""

    columns: list[tuple[str, str]]
    rows: list[Row]


def matrix(summaries: Iterable[DaySummary]) -> Matrix:
    """The table of these days and of those between them; columns as the newest day orders them, older ones after."""
    newest_first = sorted(summaries, key=lambda summary: summary.day, reverse=True)
    columns: dict[str, str] = {}
    for summary in newest_first:
        for suite in summary.suites:
            columns.setdefault(suite.suite, suite.title or suite.suite)
    rows: list[Row] = []
    for summary in newest_first:
        silent = (rows[-1].day - summary.day).days - 1 if rows else 0
        if silent:
            rows.append(Row(rows[-1].day - A_DAY, None, [], silent))
        rows.append(Row(summary.day, summary, _cells(summary, list(columns))))
    return Matrix(list(columns.items()), rows)


def _cells(summary: DaySummary, suites: Sequence[str]) -> list[SuiteSummary | None]:
    found = {suite.suite: suite for suite in summary.suites}
    return [found.get(suite) for suite in suites]
