"""Which of the markets that belong come first: words by BM25, slips of the keyboard forgiven, then what trades."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ssmd.gateway.questions.amounts import Range
from ssmd.gateway.questions.asked import Asked
from ssmd.gateway.questions.matching import Candidate, series_of, strike_of, time_of
from ssmd.gateway.questions.status import STATUSES
from ssmd.nearest import likeness

K1, B = 1.2, 0.75
_ALIKE = 82.0
_IN_SERIES_CHARS = 4
_NEVER = datetime.max.replace(tzinfo=UTC)
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)


class Weighed(NamedTuple):
    """A market with its score, and which of the words of the question it has."""

    found: Candidate
    score: float
    has: frozenset[str]


def weigh(candidates: Sequence[Candidate], words: Sequence[str]) -> list[Weighed]:
    """The BM25 score of each for the words; a word that stands in no title counts as the title word most like it."""
    if not words or not candidates:
        return [Weighed(found, 0.0, frozenset()) for found in candidates]
    texts = [Counter(_terms(found)) for found in candidates]
    frequency = Counter(term for text in texts for term in text)
    meant = {word: _meant(word, frequency) for word in words}
    average = sum(map(len, texts)) / len(texts)
    weighed = []
    for found, text in zip(candidates, texts, strict=True):
        score, has = 0.0, set()
        for word, (term, worth) in meant.items():
            if count := text.get(term, 0):
                has.add(word)
                rarity = math.log(1 + (len(texts) - frequency[term] + 0.5) / (frequency[term] + 0.5))
                score += worth * rarity * count * (K1 + 1) / (count + K1 * (1 - B + B * len(text) / average))
            elif _in_series(word, found):
                has.add(word)
                score += 1.0
        weighed.append(Weighed(found, score, frozenset(has)))
    return weighed


def _in_series(word: str, found: Candidate) -> bool:
    """Series are words written together: KXMVENFLSINGLEGAME, KXBTC15M."""
    if re.fullmatch(r"\d+m", word):
        return f"{word.upper()}" in series_of(found.market) or f" {word[:-1]} min" in " ".join(found.words)
    return len(word) >= _IN_SERIES_CHARS and word.upper() in series_of(found.market)


def _terms(found: Candidate) -> list[str]:
    market = found.market
    names = f"{market.ticker} {market.event_ticker} {market.series_ticker}".lower().replace("-", " ").split()
    return [*map(_stem, found.words), *names]


def _stem(word: str) -> str:
    """Plural as singular."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _meant(word: str, terms: Counter[str]) -> tuple[str, float]:
    """(the term of the titles that a word means, what it is worth)."""
    stem = _stem(word)
    if stem in terms or len(stem) < 4:
        return stem, 1.0
    best, most = stem, _ALIKE
    for term in terms:
        if abs(len(term) - len(stem)) <= 2 and term[0] == stem[0] and (alike := likeness(stem, term)) > most:
            best, most = term, alike
    return best, most / 100


def in_order(weighed: Sequence[Weighed], asked: Asked, now: datetime) -> list[Weighed]:
    """Sorted as asked; without a wish by score, then what trades now, then what closes next."""
    sorts: dict[str, Callable[[Weighed], Any]] = {
        "most_likely": lambda w: -(_or(w.found.live.price, -1.0)),
        "least_likely": lambda w: _or(w.found.live.price, 2.0),
        "volume": lambda w: -(_or(w.found.live.volume, -1.0)),
        "spread": lambda w: _or(w.found.live.spread, 9.0),
        "widest_spread": lambda w: -(_or(w.found.live.spread, -1.0)),
        "closing_soonest": lambda w: time_of(w.found.market.close_time) or _NEVER,
        "newest": lambda w: _backwards(w.found.market.open_time),
        "recently_settled": lambda w: _backwards(w.found.market.settled_at),
    }
    by_sort = sorts.get(asked.sort)

    def order(w: Weighed) -> tuple[object, ...]:
        market = w.found.market
        closes = time_of(market.close_time) or _NEVER
        trades = w.found.live.status in STATUSES["active"]
        tail = (not trades, closes < now, abs((closes - now).total_seconds()), market.ticker)
        distance = _distance(w.found, asked)
        if by_sort is not None:
            return (by_sort(w), -round(w.score, 6), distance, *tail)
        return (-round(w.score, 6), distance, *tail)

    return sorted(weighed, key=order)


def _distance(found: Candidate, asked: Asked) -> float:
    """How far its strike is from the one asked for."""
    target = next((number for number in asked.strike if number is not None), None)
    if target is None or asked.strike == Range():
        return 0.0
    strike = strike_of(found, asked.strike)
    return math.inf if strike is None else abs(strike - target)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _backwards(text: str | None) -> float:
    return -(time_of(text) or _BEFORE_ALL).timestamp()
