"""The pages as HTML: every value escaped, no script, relative links only, readable without a network."""

from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ssmd import __version__
from ssmd.quality.outcome import ExpectationOutcome, QualityRun, Sample, SuiteOutcome
from ssmd.quality.reports.assets import assets
from ssmd.quality.reports.layout import suite_page
from ssmd.quality.reports.matrix import matrix
from ssmd.quality.reports.summary import MARKS, WORDS, DaySummary, Level, level_of, summarize, summarize_suite
from ssmd.quality.reports.texts import visible

TEMPLATES = Path(__file__).parent / "templates"
LEVEL_MARKS = {"passed": "✓", "warning": "!", "failed": "✗", "info": "i", "not_run": "–"}
LEVEL_WORDS = {"passed": "passed", "warning": "warning", "failed": "failed", "info": "note", "not_run": "did not run"}
_ORDER: dict[Level, int] = {"failed": 0, "not_run": 1, "warning": 2, "info": 3, "passed": 4}
MOST_IN_A_NAME = 200


class Neighbours(NamedTuple):
    """The days with reports before and after a day; None at the ends."""

    before: date | None
    after: date | None


class FeedCard(NamedTuple):
    """A feed on the first page: its newest day, how many days there are, or None when nothing of it can be read."""

    feed: str
    days: int
    newest: DaySummary | None


def root_page(feeds: Sequence[FeedCard]) -> bytes:
    """The page that lists the feeds."""
    return _page("root.html", "", {"feeds": feeds})


def index_page(feed: str, shown: Sequence[DaySummary], months: Sequence[tuple[date, int]]) -> bytes:
    """The newest days of a feed, and links to the pages of its months (with the number of their days)."""
    values = {"feed": feed, "table": matrix(shown), "months": months, "newest": max(shown, key=_day, default=None)}
    return _page("index.html", "../", values)


def month_page(feed: str, month: date, shown: Sequence[DaySummary]) -> bytes:
    """All days of a month."""
    return _page("month.html", "../../../", {"feed": feed, "month": month, "table": matrix(shown)})


def day_page(run: QualityRun, neighbours: Neighbours) -> bytes:
    """All suites of a day, expectation by expectation."""
    summary = summarize(run, 0)
    values = {
        "feed": run.feed, "run": run, "summary": summary, "neighbours": neighbours,
        "suites": [_suite(suite) for suite in run.suites],
        "levels": {name: sum(getattr(suite, name) for suite in summary.suites)
                   for name in ("passed", "warnings", "failed", "not_run", "infos")},
    }  # fmt: skip
    return _page("day.html", "../../../../", values)


def suite_document(run: QualityRun, suite: SuiteOutcome, content: str, problem: str) -> bytes:
    """A suite's Data Docs; `content` is their sanitized HTML, "" when there are none, `problem` says why."""
    values = {
        "feed": run.feed, "run": run, "suite": suite, "summary": summarize_suite(suite), "problem": problem,
        "content": Markup(content),  # noqa: S704 sanitized
    }  # fmt: skip
    return _page("suite.html", "../../../../", values)


def _page(template: str, root: str, values: dict[str, Any]) -> bytes:
    return _templates().get_template(template).render(root=root, **values).encode(errors="replace")


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.filters.update(shown=visible, number=_number, clock=_clock, address=_address, day_path=_day_path)
    made.globals.update(
        asset={name: its.key for name, its in assets().items()}, version=__version__, marks=MARKS, words=WORDS,
        level_marks=LEVEL_MARKS, level_words=LEVEL_WORDS,
    )  # fmt: skip
    return made


# --- what templates show ----------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """One expectation of a suite, the `n`-th of it."""

    n: int
    level: Level
    outcome: ExpectationOutcome
    samples: dict[str, Any] | None


def _suite(suite: SuiteOutcome) -> dict[str, Any]:
    lines = [
        Line(n, level_of(outcome), outcome, _samples(outcome.samples)) for n, outcome in enumerate(suite.outcomes, 1)
    ]
    return {
        "of": suite, "summary": summarize_suite(suite), "page": suite_page(suite.suite),
        "lines": sorted(lines, key=lambda line: _ORDER[line.level]),
    }  # fmt: skip


def _samples(samples: Sequence[Sample]) -> dict[str, Any] | None:
    """The table of failing rows: their columns, and the objects of the archive that they point to."""
    if not samples:
        return None
    columns = list(dict.fromkeys(name for sample in samples for name in sample.values))
    return {
        "columns": columns,
        "rows": [{"cells": [sample.values.get(name) for name in columns], "sample": sample} for sample in samples],
        "raw": sorted({sample.raw_key for sample in samples} - {""}),
        "gaps": sorted({sample.gap_key for sample in samples} - {""}),
        "has_raw": any(sample.raw_key for sample in samples),
        "has_gaps": any(sample.gap_key for sample in samples),
    }  # fmt: skip


def _day(summary: DaySummary) -> date:
    return summary.day


def _number(value: float) -> str:
    return f"{value:,}"


def _clock(moment: str) -> str:
    """`14:02:11` out of an ISO time; what is none is shown as it is."""
    date_part, _, rest = moment.partition("T")
    return rest[:8] if date_part and len(rest) >= 8 else visible(moment, MOST_IN_A_NAME)


def _address(key: str) -> str:
    """An object's key as part of a relative URL."""
    return quote(key.encode(errors="replace"))


def _day_path(day: date) -> str:
    return f"{day.year:04}/{day.month:02}/{day.day:02}"
