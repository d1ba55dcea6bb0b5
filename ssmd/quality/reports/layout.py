"""Where the pages lie in the bucket of reports: keys, made and read in one place."""

import re
from datetime import date

from ssmd.errors import DataError

ASSETS = "_assets"
ROOT_INDEX = "index.html"
PAGES_OF_A_DAY = ("index", "run", "summary")
"""Names that no suite may have: its page would lie in the place of another."""

_FEED = re.compile(r"[a-z][a-z0-9-]{0,31}")
_SUITE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_RUN = re.compile(r"([a-z][a-z0-9-]{0,31})/(\d{4})/(\d{2})/(\d{2})/run\.json")


def feed_prefix(feed: str) -> str:
    """Everything of a feed lies below; DataError when it is no feed's name."""
    if not _FEED.fullmatch(feed):
        raise DataError(f"{feed[:80]!r} is not a feed's name")
    return f"{feed}/"


def day_prefix(feed: str, day: date) -> str:
    """Everything of a day lies below."""
    return f"{feed_prefix(feed)}{day.year:04}/{day.month:02}/{day.day:02}/"


def month_key(feed: str, month: date) -> str:
    """The page of the month that `month` lies in."""
    return f"{feed_prefix(feed)}{month.year:04}/{month.month:02}/index.html"


def suite_page(suite: str) -> str:
    """The name of a suite's page beside the page of its day; DataError when the suite cannot have one."""
    if not _SUITE.fullmatch(suite) or suite in PAGES_OF_A_DAY:
        raise DataError(f"{suite[:80]!r} is not a suite's name: use a-z, 0-9, '-' and '_', and not {PAGES_OF_A_DAY}")
    return f"{suite}.html"


def day_of_run(key: str) -> tuple[str, date] | None:
    """Feed and day of a stored run; None when `key` is something else."""
    found = _RUN.fullmatch(key)
    if found is None:
        return None
    try:
        return found[1], date(int(found[2]), int(found[3]), int(found[4]))
    except ValueError:
        return None
