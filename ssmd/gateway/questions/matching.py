"""Does a market belong to what was asked for? By its own text, exactly, whatever the database preselected."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from ssmd.gateway.questions.amounts import Range
from ssmd.gateway.questions.asked import Asked, Scope
from ssmd.gateway.questions.dates import Span
from ssmd.gateway.questions.places import Place, Team
from ssmd.gateway.questions.status import STATUSES
from ssmd.gateway.questions.text import title_words
from ssmd.gateway.questions.titles import is_title
from ssmd.gateway.questions.topic import Topic
from ssmd.gateway.questions.vocabulary import CATEGORIES, TOPICS
from ssmd.registry.interface import Market

_FILED = {category.name: frozenset(name.lower() for name in category.filed_under) for category in CATEGORIES}
_ALL_FILED = frozenset[str]().union(*_FILED.values())
_ELECTION_WORDS = frozenset(
    [
        "election",
        "elections",
        "electoral",
        "nominee",
        "nomination",
        "primary",
        "primaries",
        "president",
        "presidential",
        "senate",
        "governor",
        "mayor",
        "house",
        "ballot",
        "vote",
        "votes",
        "midterm",
        "midterms",
        "runoff",
        "win",
        "race",
    ]
)
_DAY_IN_TICKER = re.compile(r"-(\d\d)(JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)(\d\d)")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_STRIKE = re.compile(r"-(?:[TB](-?\d+(?:\.\d+)?)|(\d+\.\d+))$")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_NO_STRIKE = re.compile(
    r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? \d{1,2}(?:,? 20\d\d)?\b|\b20\d\d\b"
    r"|\b\d+[ -]?(?:min|minute|hour|day|week|month|year)s?\b|\bs&p 500\b|\b\d{1,2}(?::\d\d)? ?[ap]m\b",
    re.IGNORECASE,
)
_LEAGUE_CHARS = 3
_ALMOST = 0.99 - 1e-6
_EDGE = timedelta(microseconds=1)


class Live(NamedTuple):
    """What is known of a market now. Prices in dollars, volume in contracts; None where nothing was heard."""

    status: str
    result: str
    price: float | None = None
    volume: float | None = None
    spread: float | None = None
    open_interest: float | None = None


class Candidate(NamedTuple):
    """A market, the words of its title, and what is known of it now."""

    market: Market
    words: tuple[str, ...]
    live: Live


def candidate(market: Market, live: Live) -> Candidate:
    """With its words."""
    return Candidate(market, _words(market.title), live)


@lru_cache(maxsize=16_384)
def _words(title: str) -> tuple[str, ...]:
    return tuple(title_words(title[:1_000]))


def belongs(found: Candidate, asked: Asked, *, strikes: bool = True) -> bool:
    """Is all true that was asked for? Words are left to the ranking."""
    market, live = found.market, found.live
    return (
        _named(market, asked)
        and (not asked.title or is_title(found.words, asked.title))
        and (not asked.filed or market.category == asked.filed)
        and in_scope(found, asked.scope)
        and not _unwanted(found, asked.unwanted)
        and (not asked.status or live.status in STATUSES[asked.status])
        and (not asked.not_status or live.status not in STATUSES[asked.not_status])
        and (not asked.result or live.result == asked.result)
        and _closes(market, asked)
        and inside(asked.opened, market.open_time)
        and inside(asked.settled, market.settled_at)
        and _is_in(asked.price, live.price)
        and _is_in(asked.volume, live.volume)
        and _is_in(asked.spread, live.spread)
        and _is_in(asked.open_interest, live.open_interest)
        and (not strikes or asked.strike == Range() or has_strike(found, asked.strike))
    )


def _named(market: Market, asked: Asked) -> bool:
    if asked.tickers and not any(
        market.ticker == name or market.event_ticker == name or market.ticker.startswith(f"{name}-")
        for name in asked.tickers
    ):  # fmt: skip
        return False
    return not asked.series or series_of(market) in asked.series or any(
        series_of(market).startswith(name) for name in asked.series
    )  # fmt: skip


def in_scope(found: Candidate, scope: Scope) -> bool:
    """Is it about one of each kind of names?"""
    if scope.categories and not any(_filed(found, name, scope) for name in scope.categories):
        return False
    if scope.topics and not any(is_about(found, topic) for topic in scope.topics):
        return False
    if scope.places and not any(_is_in_place(found, place) for place in scope.places):
        return False
    return not scope.teams or any(_plays(found, team) for team in scope.teams)


def _unwanted(found: Candidate, scope: Scope) -> bool:
    return (
        any(_filed(found, name, scope) and found.market.category for name in scope.categories)
        or any(is_about(found, topic) for topic in scope.topics)
        or any(_is_in_place(found, place) for place in scope.places)
        or any(_plays(found, team) for team in scope.teams)
    )


def _filed(found: Candidate, name: str, scope: Scope) -> bool:
    """Is it in a category? A market whose category is not known yet is, when an underlying says so."""
    filed = found.market.category.lower()
    if filed not in _ALL_FILED:
        # a category of which the vocabulary knows nothing contradicts no underlying
        return bool(scope.topics or scope.teams) or any(
            is_about(found, topic) for topic in TOPICS if topic.category == name
        )
    also = {other.lower() for topic in scope.topics if topic.category == name for other in topic.filed_under}
    if filed not in _FILED[name] | also:
        return False
    if name == "elections" and filed == "politics" and not scope.topics:
        return bool(_ELECTION_WORDS & set(found.words))
    return True


def series_of(market: Market) -> str:
    """The series; where it is not known, the ticker's beginning."""
    return (market.series_ticker or market.ticker.partition("-")[0]).upper()


def is_about(found: Candidate, topic: Topic) -> bool:
    """By series or by title. Leagues stand anywhere in a series: KXMVENFLSINGLEGAME is about the NFL."""
    tokens = _codes(series_of(found.market), "" if found.market.series_ticker else found.market.ticker)
    if any(token.startswith(topic.series) for token in tokens) or _says(found.words, topic.titles):
        return True
    if topic.category != "sports":
        return False
    return any(len(code) >= _LEAGUE_CHARS and code in token for code in topic.series for token in tokens)


@lru_cache(maxsize=16_384)
def _codes(series: str, ticker: str) -> tuple[str, ...]:
    """What may begin with an underlying's code: KXBTC15M says BTC15M, and TEST-BTC15M says TEST and BTC15M.

    `ticker`: where the series is not known; its second part counts too, unless it is a date.
    """
    tokens = series.replace("_", "-").split("-")
    following = ticker.upper().split("-")[1:2]
    tokens += [token for token in following if token[:2].isalpha()]
    return tuple(token.removeprefix("KX") for token in tokens)


def _is_in_place(found: Candidate, place: Place) -> bool:
    series = series_of(found.market)
    if place.codes and found.market.category.lower() in ("", "climate and weather"):
        bare = series.removeprefix("KX").removesuffix("M")
        if bare.endswith(place.codes) or bare.startswith(tuple(f"{code}SNOW" for code in place.codes)):
            return True
    return _says(found.words, place.says)


def _plays(found: Candidate, team: Team) -> bool:
    if _says(found.words, (team.name.lower(),)):
        return True
    if not team.city or not _says(found.words, (team.city.lower().replace(".", ""), team.city.lower())):
        return False
    return not team.league or team.league in series_of(found.market)


def _says(words: tuple[str, ...], phrases: tuple[str, ...]) -> bool:
    """Does one of the phrases stand in the words? Its last word may be plural."""
    text = f" {' '.join(words)} "
    return any(f" {phrase} " in text or f" {phrase}s " in text for phrase in map(_folded, phrases))


@lru_cache(maxsize=4_096)
def _folded(phrase: str) -> str:
    return " ".join(title_words(phrase))


def time_of(text: str | None) -> datetime | None:
    """A stored time."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def inside(span: Span, text: str | None) -> bool:
    """Is a stored time inside? None is not, unless nothing is asked."""
    if span == Span():
        return True
    at = time_of(text)
    if at is None:
        return False
    return (span.after is None or at >= span.after) and (span.before is None or at < span.before)


def _closes(market: Market, asked: Asked) -> bool:
    """By the time of closing. Where no verb says closing, a market that is named after a day is of that day."""
    if asked.close == Span():
        return True
    day = None if asked.directed else day_of(market)
    if day is None:
        return inside(asked.close, market.close_time)
    after, before = asked.close
    return (after is None or day + timedelta(days=1) - _EDGE >= after) and (before is None or day < before)


def day_of(market: Market) -> datetime | None:
    """The day in a ticker such as KXHIGHNY-26NOV22-T52."""
    match = _DAY_IN_TICKER.search(market.ticker)
    if match is None:
        return None
    try:
        return datetime(2000 + int(match[1]), _MONTHS.index(match[2]) + 1, int(match[3]), tzinfo=UTC)
    except ValueError:
        return None


def _is_in(numbers: Range, value: float | None) -> bool:
    return numbers == Range() or (value is not None and numbers.holds(value))


def strike_of(found: Candidate, wanted: Range) -> float | None:
    """The number that a market compares with, of several the nearest to `wanted`; None when it is not known.

    By the exchange's own words, else by its ticker, else by its title.
    """
    target = next((number for number in wanted if number is not None), None)
    if target is None:
        return None
    return min(_strikes(found.market), key=lambda number: abs(number - target), default=None)


def _strikes(market: Market) -> list[float]:
    told = [market.raw.get(name) for name in ("floor_strike", "cap_strike")]
    numbers = [float(number) for number in told if isinstance(number, int | float)]
    if not numbers and (match := _STRIKE.search(market.ticker)):
        numbers = [float(match[1] or match[2])]
    if not numbers:
        plain = _NO_STRIKE.sub(" ", market.title[:1_000])
        numbers = [float(match.replace(",", "")) for match in _NUMBER.findall(plain)]
    # `above 69499.99` is the exchange's way to say `69500 or above`
    return [*numbers, *(float(ceil(number)) for number in numbers if number >= 10 and number % 1 >= _ALMOST)]


def has_strike(found: Candidate, wanted: Range) -> bool:
    """Is its strike one that is asked for? `above 100` and `below 100` include the strike 100 itself."""
    above, below, least, most = wanted
    inclusive = Range(least=above if least is None else least, most=below if most is None else most)
    return _is_in(inclusive, strike_of(found, wanted))
