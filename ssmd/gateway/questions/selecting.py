"""What the database is asked for a question: enough filters to stay small; exact is what `matching` says afterwards."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import product

from ssmd.gateway.questions.amounts import Range
from ssmd.gateway.questions.asked import Asked
from ssmd.gateway.questions.dates import Span
from ssmd.gateway.questions.titles import beginnings
from ssmd.gateway.questions.topic import Topic
from ssmd.gateway.questions.vocabulary import CATEGORIES, TOPICS
from ssmd.registry.interface import MarketFilter

_FILED = {category.name: category.filed_under for category in CATEGORIES}
_LISTED_AS: dict[str, tuple[str | None, ...]] = {
    "": ("active", None),
    "active": ("active", "open"),
    "unopened": ("initialized", "unopened"),
    "paused": ("inactive", "paused", "active"),  # active: what was heard live may not be synced yet
    "closed": ("closed", "disputed", "active"),
    "settled": ("finalized", "determined", "settled", "amended", "active"),
}
_NAMED_DAYS = timedelta(days=3)
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_MARGIN = timedelta(days=2)  # a market named after a day may close in the night after it
_SETTLES_MOSTLY = timedelta(days=1)
_SETTLES_WITHIN = timedelta(days=14)
_HORIZONS = tuple(timedelta(hours=hours) for hours in (1, 6, 24, 72, 168, 720, 8_760))


def filters_for(asked: Asked, words: tuple[str, ...]) -> Iterator[MarketFilter]:
    """The filters to try, the likeliest markets first. `words`: of titles, one of which must occur; () for any."""
    scope = asked.scope
    if asked.title:
        yield from (MarketFilter(status=status, words=beginnings(asked.title)) for status in _LISTED_AS[""])
        return
    names = _names(asked) or words
    filed: list[str | None] = [None]
    if scope.categories and not (scope.topics or scope.teams or scope.places or words):
        filed = [name for category in scope.categories for name in _FILED[category]]
    if asked.filed:
        filed = [asked.filed]
    closes = _closes(asked)
    codes = [code for topic in TOPICS if topic.category in scope.categories for code in _written(topic)]
    for status in _LISTED_AS[asked.status]:
        if asked.not_status == "active" and status == "active":
            continue
        for other in asked.elsewhere:
            yield MarketFilter(status=status, category=other, any_of=tuple(codes), strikes=asked.strike != Range())
        for day in _days_in_names(asked):
            yield MarketFilter(status=status, words=(day,), any_of=names, strikes=asked.strike != Range())
        for category, close in product(filed, closes):
            yield MarketFilter(
                status=status, category=category, any_of=names, result=asked.result or None,
                close_after=close.after, close_before=close.before, strikes=asked.strike != Range(),
            )  # fmt: skip


def horizons(now: datetime) -> Iterator[Span]:
    """Ever longer times from now: for what closes next."""
    after = now
    for length in _HORIZONS:
        yield Span(after, now + length)
        after = now + length
    yield Span(after, None)


def _names(asked: Asked) -> tuple[str, ...]:
    """Of which one must occur in a title or ticker."""
    scope = asked.scope
    if asked.series:
        return asked.series
    if asked.tickers:
        return asked.tickers
    found: list[str] = []
    for topic in scope.topics:
        found += _written(topic)
        found += topic.titles
    for team in scope.teams:
        found += [team.name, *([team.city] if team.city else [])]
    if not found:
        for place in scope.places:
            found += place.says
            found += [code for code in place.codes if len(code) > 2]
    return tuple(dict.fromkeys(found))


def _written(topic: Topic) -> Iterator[str]:
    """How an underlying's codes stand in tickers; short ones only where a name begins."""
    for code in topic.series:
        whole = len(code) >= 4 or (len(code) == 3 and topic.category == "sports")
        yield from (code,) if whole else (f"KX{code}", f"-{code}")


def _days_in_names(asked: Asked) -> list[str]:
    """`-26AUG10` for a question about a day or a few: such markets may close at any time."""
    after, before = asked.close
    if asked.directed or after is None or before is None or before - after > _NAMED_DAYS:
        return []
    days = [after + timedelta(days=n) for n in range((before - after).days)]
    return [f"-{day:%y}{_MONTHS[day.month - 1]}{day:%d}" for day in days]


def _closes(asked: Asked) -> list[Span]:
    """The bounds on the time of closing that surely hold; in parts, the likeliest first.

    What settled on a day has mostly closed on that day or the day before.
    """
    after, before = asked.close
    if not asked.directed and asked.close != Span():
        after, before = _moved(after, -_MARGIN), _moved(before, _MARGIN)
    if asked.settled.before is not None and before is None:
        before = asked.settled.before
    if asked.settled.after is None or after is not None:
        return [Span(after, before)]
    near = _moved(asked.settled.after, -_SETTLES_MOSTLY)
    return [Span(near, before), Span(_moved(asked.settled.after, -_SETTLES_WITHIN), near)]


def _moved(at: datetime | None, by: timedelta) -> datetime | None:
    try:
        return None if at is None else at + by
    except OverflowError:
        return None
