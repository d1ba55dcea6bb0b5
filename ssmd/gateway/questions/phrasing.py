"""How an answer is put in words: what was understood, and what can be asked next."""

from datetime import datetime

from ssmd.gateway.questions.amounts import Range
from ssmd.gateway.questions.asked import Asked, Scope
from ssmd.gateway.questions.dates import Span
from ssmd.gateway.questions.grammar import Reading

EXAMPLES = (
    "What prediction markets about Bitcoin are trading today?",
    "Which weather markets close tomorrow?",
    "How many NFL markets are open?",
    "Crypto markets with a price above 60 cents",
    "What settled yesterday?",
    "price of KX… (a market's ticker)",
)
_SHOWN_CHARS = 40
_ORDERS = {
    "most_likely": "most likely first",
    "least_likely": "least likely first",
    "volume": "most traded first",
    "spread": "tightest spread first",
    "widest_spread": "widest spread first",
    "closing_soonest": "what closes next first",
    "newest": "newest first",
    "recently_settled": "last settled first",
}


def interpretation(reading: Reading, asked: Asked, ignored: tuple[str, ...]) -> str:
    """`Searching for active markets related to Bitcoin`."""
    verb = "Counting" if asked.count else "Searching for"
    parts = [verb, *([asked.status] if asked.status else []), "markets"]
    if asked.tickers or asked.series:
        parts = [verb, " and ".join(asked.tickers) or f"markets of series {' and '.join(asked.series)}"]
    parts += [f"titled '{shown(asked.title, 200)}'"] if asked.title else []
    parts += [f"of category {shown(asked.filed)}"] if asked.filed else []
    parts += _subject(asked)
    if asked.result:
        parts.append(f"that resolved {asked.result}")
    for how, span in (("closing", asked.close), ("opened", asked.opened), ("settled", asked.settled)):
        parts += _when(how, span)
    side = "NO price" if asked.side == "no" else "price"
    for name, numbers in (
        (side, asked.price), ("volume", asked.volume), ("spread", asked.spread), ("open interest", asked.open_interest)
    ):  # fmt: skip
        parts += _bounds(name, numbers)
    if asked.strike != Range():
        parts += _strikes(asked)
    if unwanted := _names(asked.unwanted):
        parts.append(f"without {unwanted}")
    if asked.not_status:
        parts.append(f"that are not {asked.not_status}")
    said = " ".join(parts) + (f", {_ORDERS[asked.sort]}" if asked.sort else "")
    notes = [f"'{shown(typed)}' is read as '{meant}'" for typed, meant in reading.corrected.items()]
    notes += reading.notes
    notes += [f"no such market mentions {', '.join(map(shown, ignored))}"] if ignored else []
    return "; ".join([said, *notes])


def _subject(asked: Asked) -> list[str]:
    parts = [f"related to {names}"] if (names := _names(asked.scope)) else []
    return parts + ([f"mentioning {', '.join(map(shown, asked.words))}"] if asked.words else [])


def _names(scope: Scope) -> str:
    topics = [label(topic.says[0]) for topic in scope.topics]
    named = [
        *[team.name for team in scope.teams],
        *(topics if not scope.teams else []),
        *[p.name for p in scope.places],
    ]
    return " and ".join(named or [label(category) for category in scope.categories])


def label(phrase: str) -> str:
    """As a title: `Bitcoin`, `S&P 500`; short words as abbreviations."""
    words = phrase.rstrip("?").split()
    return " ".join(
        word.upper() if len(word) <= 3 and word not in ("of", "and", "the") else word.title() for word in words
    )


def _when(verb: str, span: Span) -> list[str]:
    if span == Span():
        return []
    after, before = (_day(at) if at is not None else "" for at in span)
    if after and before:
        return [f"{verb} from {after} to {before}"]
    return [f"{verb} from {after}"] if after else [f"{verb} before {before}"]


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}" if (at.hour, at.minute, at.second) == (0, 0, 0) else f"{at:%Y-%m-%dT%H:%MZ}"


def _bounds(name: str, numbers: Range) -> list[str]:
    words = zip(("above", "below", "of at least", "of at most"), numbers, strict=True)
    told = [f"{word} {number:g}" for word, number in words if number is not None]
    return [f"with {name} {' and '.join(told)}"] if told else []


def _strikes(asked: Asked) -> list[str]:
    """`above 100` is said as it is meant: the strike 100 is the market of it."""
    above, below, least, most = asked.strike
    if least is not None and least == most:
        return [f"with the strikes nearest to {least:g}" if asked.nearest else f"with strike {least:.12g}"]
    told = [f"{number:.12g} or above" for number in (above, least) if number is not None]
    told += [f"{number:.12g} or below" for number in (below, most) if number is not None]
    return [f"with a strike of {' and '.join(told)}"]


def shown(word: str, most: int = _SHOWN_CHARS) -> str:
    """A word of the question as it may be repeated."""
    return word if len(word) <= most else f"{word[:most]}…"


def suggestions(asked: Asked, tickers: list[str], total: int) -> list[str]:
    """What can be asked next."""
    name = _names(asked.scope) or shown(asked.filed)
    subject = f"{name} markets" if name else "markets"
    found: list[str] = []
    if total == 0:
        if asked.needs_live:
            found.append(
                f"Without a price: '{subject}' (prices are known only of what was heard since the gateway started)"
            )
        if asked.status == "closed":
            found.append(f"What has closed is soon settled: 'settled {subject}'")
        if asked.status or asked.close != Span() or asked.words or asked.strike != Range():
            found.append(f"More: 'all {subject}'")
        return [*found, "All markets: GET /v1/markets"]
    if not asked.status:
        found.append(f"Only what trades now: 'open {subject}'")
    if asked.close == Span() and asked.settled == Span() and not asked.tickers:
        found.append(f"To narrow down: '{subject} closing this week'")
    if tickers:
        found.append(f"For one market: GET /v1/markets/{tickers[0]}")
    return found
