"""From a question to what it asks for: the parts of the grammar in their order, and what they did not understand."""

import re
from datetime import datetime
from typing import Any

import msgspec

from ssmd.gateway.questions.amounts import About, Amount, Range, find_amounts
from ssmd.gateway.questions.asked import Asked, Scope, categories_of
from ssmd.gateway.questions.dates import Dated, Span, find_dates
from ssmd.gateway.questions.entities import PHRASE_WORDS, Entity, find_entities
from ssmd.gateway.questions.periods import MONTHS, WEEKDAYS
from ssmd.gateway.questions.places import PLACES, Place, Team
from ssmd.gateway.questions.status import Life, find_count, find_life, find_no_status, find_sort, is_past
from ssmd.gateway.questions.text import Text, find_tickers, fold, spell, words_of
from ssmd.gateway.questions.topic import Topic
from ssmd.gateway.questions.vocabulary import TOPICS, Category
from ssmd.gateway.questions.words import COMMON_WORDS, FOREIGN_WORDS, FUNCTION_WORDS, MARKET_WORDS, SPORT_WORDS

_GRAMMAR_WORDS = frozenset(
    [
        "opened",
        "closes",
        "closing",
        "closed",
        "close",
        "expire",
        "expires",
        "expiring",
        "expired",
        "expiry",
        "settle",
        "settles",
        "settled",
        "settling",
        "resolve",
        "resolved",
        "resolves",
        "resolving",
        "active",
        "trading",
        "available",
        "tradable",
        "upcoming",
        "paused",
        "halted",
        "suspended",
        "finalized",
        "determined",
        "ending",
        "ended",
        "unsettled",
        "unresolved",
        "yesterday",
        "tomorrow",
        "today",
        "tonight",
        "weekend",
        "quarter",
        "christmas",
        "thanksgiving",
        "halloween",
        "cents",
        "percent",
        "probability",
        "price",
        "prices",
        "volume",
        "spread",
        "highest",
        "lowest",
        "tightest",
        "widest",
        "cheapest",
        "newest",
        "latest",
        "soonest",
        "likely",
        "unlikely",
        "least",
        "between",
        "except",
        "excluding",
        "without",
        "number",
        "count",
        "million",
        "thousand",
        "dollars",
        "degrees",
        "before",
        "after",
        "until",
        "during",
        "within",
        "since",
    ]
)
_DATE_WORDS = frozenset([*MONTHS, *WEEKDAYS])
_KNOWN = (
    PHRASE_WORDS
    | _GRAMMAR_WORDS
    | _DATE_WORDS
    | FUNCTION_WORDS
    | MARKET_WORDS
    | SPORT_WORDS
    | COMMON_WORDS
    | FOREIGN_WORDS
)
_TARGETS = frozenset(
    word for word in PHRASE_WORDS | _GRAMMAR_WORDS | _DATE_WORDS | {"market", "markets", "contract", "contracts"}
    if len(word) >= 5
)  # fmt: skip

_TOP = re.compile(r"\b(?:top|first|best|leading)\s+(?P<count>\d{1,3})\b(?!\s*(?:%|cents?|percent))")
_MINUTES = re.compile(r"\b(?P<count>\d{1,3}) ?(?:minutes?|mins?)\b")  # what is left over: `15 minute markets`
_SIDE_NO = re.compile(
    r"\bno (?=(?:side|price|prices|contract|contracts|bid|ask|shares)\b)|\b(?:buy|buying|price of) no\b"
)
_BY_NAME = {topic.name: topic for topic in TOPICS}
_PLACE_BY_NAME = {place.name: place for place in PLACES}


class Reading(msgspec.Struct, frozen=True):
    """What was made of a question.

    `unknown`: words that no part of the grammar knows; they may stand in titles. `understood`: words that it knows.
    `named`: it names something (an underlying, a category, a ticker, ...) in words that mean nothing else.
    `market_words`: it speaks of markets, prices, their state. `foreign`: it is in another language. `no_status`: its
    word for a status that there is not.
    """

    asked: Asked
    unknown: tuple[str, ...] = ()
    understood: int = 0
    named: bool = False
    everyday: bool = False
    market_words: bool = False
    foreign: bool = False
    corrected: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    no_status: str = ""


def read(question: str, now: datetime) -> Reading:
    """Understand a question as it is meant at `now` (aware, UTC). Never fails: what is not understood is said."""
    tickers, series, rest = find_tickers(question)
    folded, corrected = spell(fold(rest), _KNOWN, _TARGETS)
    text = Text(folded)
    named = find_entities(text)
    past = is_past(text)
    dates = find_dates(text, now, past=past)
    limit = _limit(text)
    sort = find_sort(text)
    counted = find_count(text)
    life = find_life(text, dated=bool(dates))
    no_status = find_no_status(text)
    wanted = _scope(named.wanted)
    amounts = find_amounts(text, _about(wanted))
    side = _side(text)
    asked = _with_dates(Asked(tickers=tuple(tickers), series=tuple(series)), dates, life)
    unknown, market_words = _rest(text)
    asked = msgspec.structs.replace(
        asked, scope=wanted, unwanted=_narrowed(_scope(named.unwanted)), status=life.status,
        not_status=life.not_status, result=life.result, sort=sort, count=counted, limit=limit, side=side, words=unknown,
        **_numbers(amounts),
    )  # fmt: skip
    spoken = market_words or bool(life.status or life.not_status or life.dates or sort or amounts or counted)
    return Reading(
        asked, unknown, text.used + len(tickers) + len(series),
        named=bool(tickers or series or ((named.wanted or named.unwanted) and not named.everyday)),
        everyday=named.everyday, market_words=spoken, foreign=_foreign(question, folded),
        corrected=corrected, notes=tuple(dated.note for dated in dates if dated.note), no_status=no_status,
    )  # fmt: skip


def _scope(entities: tuple[Entity, ...]) -> Scope:
    topics = [entity for entity in entities if isinstance(entity, Topic)]
    categories = [entity for entity in entities if isinstance(entity, Category)]
    places = tuple(entity for entity in entities if isinstance(entity, Place))
    teams = tuple(entity for entity in entities if isinstance(entity, Team))
    for team in teams:
        if team.league and not any(topic.name == team.league for topic in topics):
            topics.append(_BY_NAME[team.league])
    special = tuple(_specific(topics))
    return Scope(categories_of(_plain(categories, special, teams), special, teams), special, places, teams)


def _plain(categories: list[Category], topics: tuple[Topic, ...], teams: tuple[Team, ...]) -> list[Category]:
    """Without the wider of two categories that an underlying or the other names anyway."""
    names = {category.name for category in categories}
    implied = {topic.category for topic in topics} | ({"sports"} if teams else set())
    if names <= {"financials", "commodities", "economics", "elections", "politics", "companies"} and implied:
        return []
    if {"politics", "elections"} <= names:
        return [category for category in categories if category.name == "elections"]
    return categories


def _specific(topics: list[Topic]) -> list[Topic]:
    """Without those that a narrower one of the same question says already: `NFL football` is about the NFL."""
    return [
        topic for topic in topics
        if not any(other is not topic and set(other.series) < set(topic.series) for other in topics)
    ]  # fmt: skip


def _narrowed(unwanted: Scope) -> Scope:
    """What is excluded, said by its narrowest name: no category beside an underlying or team."""
    if unwanted.topics or unwanted.teams or unwanted.places:
        topics = () if unwanted.teams else unwanted.topics
        return unwanted._replace(categories=(), topics=topics)
    return unwanted


def _about(scope: Scope) -> About:
    in_percent = any(topic.category == "economics" or topic.name == "US10Y" for topic in scope.topics)
    percent_scores = any(topic.name == "ROTTEN TOMATOES" for topic in scope.topics)
    return About(
        subject=bool(scope), measured=any(topic.measured for topic in scope.topics) or percent_scores,
        in_percent=in_percent or percent_scores,
    )  # fmt: skip


def _with_dates(asked: Asked, dates: list[Dated], life: Life) -> Asked:
    """The dates go to what the verb says; those of `trading today` say only that it trades."""
    spans = [dated.span for dated in dates if not (life.traded_today and dated.today and life.dates is None)]
    if not spans:
        return asked
    span = Span(
        max((s.after for s in spans if s.after is not None), default=None),
        min((s.before for s in spans if s.before is not None), default=None),
    )
    kind = life.dates or "close"
    field = {"close": "close", "open": "opened", "settled": "settled"}[kind]
    return msgspec.structs.replace(asked, directed=life.dates is not None, **{field: span})


def _numbers(amounts: list[Amount]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for amount in amounts:
        exactly = amount.range.least is not None and amount.range.least == amount.range.most
        if amount.measure == "strike" and exactly and "strike" in found:
            continue  # a number beside a comparison
        found[amount.measure] = found.get(amount.measure, Range()).joined(amount.range)
    return found


def _limit(text: Text) -> int | None:
    """`top 5`."""
    for match in text.find(_TOP):
        text.use(match.start(), match.end())
        return int(match["count"]) or None
    return None


def _side(text: Text) -> str:
    for match in text.find(_SIDE_NO):
        text.use(match.start(), match.end())
        return "no"
    return ""


def _rest(text: Text) -> tuple[tuple[str, ...], bool]:
    """(words that nobody knows, does the question speak of markets)."""
    unknown: list[str] = []
    market_words = any(word in MARKET_WORDS for word in words_of(text.whole))
    for match in list(text.find(_MINUTES)):
        text.use(match.start(), match.end())
        unknown.append(f"{match['count']}m")
    for word in words_of(text.left):
        bare = word.strip("'.&")
        if not bare or bare in FUNCTION_WORDS or bare in MARKET_WORDS:
            continue
        if len(bare) == 1 and not bare.isdigit() and bare.isascii():
            continue
        unknown.append(bare)
    return tuple(dict.fromkeys(unknown)), market_words


def _foreign(question: str, folded: str) -> bool:
    """Is it in another language? By its letters, or by its common words."""
    letters = [char for char in question if char.isalpha()]
    latin = sum(char < "\u0250" for char in letters)
    if letters and latin * 2 < len(letters):
        return True
    words = words_of(folded)
    strange = sum((word in FOREIGN_WORDS and word not in _ENGLISH) or not word.isascii() for word in words)
    english = sum(word in FUNCTION_WORDS or word in MARKET_WORDS for word in words if word not in FOREIGN_WORDS)
    return strange >= 2 and strange > english


_ENGLISH = (FUNCTION_WORDS | MARKET_WORDS | PHRASE_WORDS) - {"el", "la"}
