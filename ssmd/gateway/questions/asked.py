"""What a question asks for, as filters; and how they are written in an answer."""

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from ssmd.gateway.questions.amounts import Range
from ssmd.gateway.questions.dates import Span
from ssmd.gateway.questions.places import Place, Team
from ssmd.gateway.questions.topic import Topic
from ssmd.gateway.questions.vocabulary import Category


class Scope(NamedTuple):
    """Names that markets belong to; between kinds all must hold, within a kind one of them."""

    categories: tuple[str, ...] = ()
    topics: tuple[Topic, ...] = ()
    places: tuple[Place, ...] = ()
    teams: tuple[Team, ...] = ()

    def __bool__(self) -> bool:
        return any(self)

    def filters(self) -> dict[str, Any]:
        """As in an answer."""
        return {
            **_some("category", list(self.categories)),
            **_some("underlying", [topic.name for topic in self.topics]),
            **_some("location", [place.name for place in self.places]),
            **_some("team", [team.name for team in self.teams]),
        }


class Asked(msgspec.Struct, frozen=True):
    """A question's filters. `words` occur in a title or ticker; `strike` is the number that a market compares with."""

    scope: Scope = Scope()
    unwanted: Scope = Scope()
    tickers: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    status: str = ""
    not_status: str = ""
    result: str = ""
    close: Span = Span()
    opened: Span = Span()
    settled: Span = Span()
    directed: bool = True  # the dates belong to a verb; else also to the day in a market's name
    price: Range = Range()
    side: str = ""
    volume: Range = Range()
    spread: Range = Range()
    open_interest: Range = Range()
    strike: Range = Range()
    nearest: bool = False  # no market has the strike: those with the nearest ones
    words: tuple[str, ...] = ()
    sort: str = ""
    count: bool = False
    limit: int | None = None
    title: str = ""
    filed: str = ""  # a category by the exchange's own name
    elsewhere: tuple[str, ...] = ()  # categories in which underlyings of the one asked for may be filed too

    def filters(self) -> dict[str, Any]:
        """As in an answer: only what was asked for."""
        found: dict[str, Any] = {
            **_some("ticker", list(self.tickers)),
            **_some("series", list(self.series)),
            **self.scope.filters(),
        }
        found |= {"title": self.title} if self.title else {}
        found |= {"category": self.filed} if self.filed else {}
        found |= {name: value for name, value in (("status", self.status), ("result", self.result)) if value}
        for name, span in (("close", self.close), ("open", self.opened), ("settled", self.settled)):
            found |= _span(name, span)
        for name in ("price", "volume", "spread", "open_interest"):
            found |= _range(name, getattr(self, name))
        if self.side:
            found["side"] = self.side
        if self.strike != Range():
            found |= _strike(self.strike, self.nearest)
        if self.words:
            found["words"] = list(self.words)
        exclude = self.unwanted.filters() | ({"status": self.not_status} if self.not_status else {})
        found |= {"exclude": exclude} if exclude else {}
        found |= {"sort": self.sort} if self.sort else {}
        found |= {"limit": self.limit} if self.limit else {}
        return found | ({"count": True} if self.count else {})

    @property
    def needs_live(self) -> bool:
        """Only live data can answer it."""
        numbers = (self.price, self.volume, self.spread, self.open_interest)
        return any(number != Range() for number in numbers) or self.sort in LIVE_SORTS


LIVE_SORTS = ("most_likely", "least_likely", "volume", "spread", "widest_spread")


def moment(at: datetime) -> str:
    """`2026-11-22T18:00:00Z`."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _some(name: str, values: list[str]) -> dict[str, Any]:
    return {name: values[0] if len(values) == 1 else values} if values else {}


def _span(name: str, span: Span) -> dict[str, Any]:
    ends = ((f"{name}_after", span.after), (f"{name}_before", span.before))
    return {key: moment(at) for key, at in ends if at is not None}


def _plain(number: float) -> float | int:
    return int(number) if number == int(number) else number


def _range(name: str, numbers: Range) -> dict[str, Any]:
    keys = (f"{name}_above", f"{name}_below", f"{name}_min", f"{name}_max")
    return {key: _plain(number) for key, number in zip(keys, numbers, strict=True) if number is not None}


def _strike(numbers: Range, nearest: bool) -> dict[str, Any]:
    if numbers.least is None or numbers.least != numbers.most:
        return _range("strike", numbers)
    return {"strike_nearest" if nearest else "strike": _plain(numbers.least)}


def categories_of(named: list[Category], topics: tuple[Topic, ...], teams: tuple[Team, ...]) -> tuple[str, ...]:
    """The categories that were named; else those of what was."""
    if named:
        return tuple(dict.fromkeys(category.name for category in named))
    sports = ["sports"] if teams else []
    return tuple(dict.fromkeys([*(topic.category for topic in topics), *sports]))
