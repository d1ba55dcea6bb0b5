"""Answers to questions in words: `GET /v1/query` and the action `query`; nothing is said that the data does not say."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

from ssmd.clock import NS_PER_S, now_ns
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.documents import MarketRow
from ssmd.gateway.hub import Hub
from ssmd.gateway.market_view import MarketView
from ssmd.gateway.problems import ApiProblem
from ssmd.gateway.questions.amounts import Range
from ssmd.gateway.questions.asked import Asked
from ssmd.gateway.questions.dates import Span
from ssmd.gateway.questions.filing import with_category, with_other_categories
from ssmd.gateway.questions.grammar import Reading, read
from ssmd.gateway.questions.live import fits, live_of, live_order, numbers_of
from ssmd.gateway.questions.matching import Candidate, belongs, candidate, has_strike, strike_of
from ssmd.gateway.questions.phrasing import EXAMPLES, interpretation, shown, suggestions
from ssmd.gateway.questions.ranking import Weighed, in_order, weigh
from ssmd.gateway.questions.selecting import filters_for, horizons
from ssmd.gateway.questions.status import STATUSES
from ssmd.gateway.questions.text import MAX_CHARS
from ssmd.gateway.questions.titles import as_title
from ssmd.gateway.routes import Ask, Route, whole, words
from ssmd.nearest import nearest
from ssmd.registry.interface import Market, MarketFilter

CANDIDATES = 2_000
FROM_BOARD = 200
LIMIT_DEFAULT, LIMIT_MAX = 20, 100
TITLE_CHARS = 300
ENOUGH = 0.6  # of the words of a question that names nothing else, a title must have this part
_ON_THE_LOOP = 50  # candidates that cost the event loop less than 5 ms
_AT_A_TIME = 100


class Answer(msgspec.Struct, frozen=True):
    """What was understood, and the markets for it, best first.

    `understood` false: nothing is claimed, `suggestions` say what can be asked. `total` counts all that was found;
    `complete` false: there may be more. `ignored`: words of the question that no such market mentions.
    """

    action: Literal["list_markets"]
    understood: bool
    interpretation: str
    filters: dict[str, Any]
    results: list[MarketRow]
    total: int
    complete: bool
    ignored: list[str]
    suggestions: list[str]


class _Found(NamedTuple):
    """What belongs, and whether all was looked at."""

    candidates: list[Candidate]
    complete: bool


class Questions:
    """Answers about one feed, from its metadata and what was heard live. `clock`: nanoseconds since the epoch."""

    def __init__(self, catalogue: Catalogue, hub: Hub, clock: Callable[[], int] = now_ns) -> None:
        self._catalogue = catalogue
        self._hub = hub
        self._clock = clock

    def routes(self) -> list[Route]:
        """`GET /v1/query`."""
        question = words("q", "A question in words, in English.", most=MAX_CHARS, required=True)
        limit = whole("limit", "Markets in the answer.", default=LIMIT_DEFAULT, most=LIMIT_MAX)
        return [
            Route(
                "/v1/query", self.query, "read:live", "Markets by a question in words", answer=Answer,
                parameters=(question, limit), tag="questions", problems=(503,),
                description=(
                    "A fixed grammar, no guessing: underlyings, categories, places, teams, dates (UTC; weeks begin on "
                    "Monday), states, prices, strikes, counts. A market that is named after a day belongs to that day, "
                    "unless the question says closing. `understood` is false for what is not a question about markets."
                ),
            )
        ]  # fmt: skip

    async def query(self, ask: Ask) -> object:
        """The answer to `q`."""
        return await self.answer(ask["q"], ask["limit"])

    async def for_stream(self, text: str) -> dict[str, Any]:
        """The answer to a WebSocket's question, as members of its message."""
        return msgspec.structs.asdict(await self.answer(text))

    async def answer(self, text: str, limit: int = LIMIT_DEFAULT) -> Answer:
        """Answer a question of at most 500 characters; RegistryUnavailable while the metadata is away."""
        if not text or len(text) > MAX_CHARS:
            raise ApiProblem(400, "bad_question", f"a question has 1 to {MAX_CHARS} characters", "Ask a shorter one.")
        now = datetime.fromtimestamp(self._clock() // NS_PER_S, UTC)
        storable = text.encode("utf-8", "replace").decode()  # no lone surrogates: words are repeated in the answer
        reading = await asyncio.to_thread(read, storable, now)
        limit = min(limit, reading.asked.limit or limit)
        if titled := await self._by_title(reading, as_title(storable), now, limit):
            return titled
        if reading.no_status:
            return _no_status(reading.no_status)
        reading = await self._filed(reading, storable)
        if reading.foreign or not (reading.named or reading.everyday or reading.market_words or reading.unknown):
            return _unknown(reading)
        asked = reading.asked
        if asked.tickers:
            return await self._by_ticker(reading, now, limit)
        found = await self._find(asked, now, limit)
        weighed = await self._weigh(found.candidates, asked.words)
        if len(weighed) <= _ON_THE_LOOP:
            chosen, asked, ignored = _by_words(reading, weighed)
        else:
            chosen, asked, ignored = await asyncio.to_thread(_by_words, reading, weighed)
        if not _is_understood(reading, ignored):
            return _unknown(reading)
        if asked.strike != Range():
            chosen, asked = _by_strike(chosen, asked)
        ranked = await self._in_order(chosen, asked, now)
        return self._said(reading, asked, ranked, found.complete, ignored, limit)

    async def _by_title(self, reading: Reading, title: str, now: datetime, limit: int) -> Answer | None:
        """The markets of which the whole question is the title; None when there are none."""
        if not title or reading.asked.tickers or reading.asked.series:
            return None
        asked = Asked(title=title)
        found = await self._find(asked, now, limit)
        if not found.candidates:
            return None
        ranked = await self._in_order(await self._weigh(found.candidates, ()), asked, now)
        asked = msgspec.structs.replace(asked, title=ranked[0].found.market.title[:TITLE_CHARS])
        return self._said(Reading(asked), asked, ranked, found.complete, (), limit)

    async def _filed(self, reading: Reading, text: str) -> Reading:
        """With the category of the registry that the question names, where the grammar has no word for it."""
        if reading.foreign or not (reading.unknown or reading.asked.scope.categories):
            return reading
        known = (await self._catalogue.market_words()).categories
        return with_other_categories(with_category(reading, text, known), known)

    async def _by_ticker(self, reading: Reading, now: datetime, limit: int) -> Answer:
        """Markets (or all of an event) that are named; near misses when there are none."""
        asked = msgspec.structs.replace(reading.asked, words=())
        named = await self._find(asked, now, limit)
        ranked = await self._in_order(await self._weigh(named.candidates, ()), asked, now)
        answer = self._said(reading, asked, ranked, named.complete, (), limit)
        if ranked:
            return answer
        near = [await self._near(ticker) for ticker in asked.tickers[:3]]
        said = [f"Did you mean {ticker}? GET /v1/markets/{ticker}" for ticker in near if ticker]
        lost = f"There is no market {' or '.join(map(shown, asked.tickers))} that this is true of"
        return msgspec.structs.replace(answer, interpretation=lost, suggestions=said or answer.suggestions)

    async def _near(self, ticker: str) -> str:
        heard = nearest(ticker, self._hub.board.updated_ns, 80.0)
        if heard:
            return heard
        start = ticker.partition("-")[0]
        listed = await self._catalogue.find_markets(MarketFilter(any_of=(start, start[:6])), CANDIDATES, "")
        return await asyncio.to_thread(nearest, ticker, [market.ticker for market in listed], 80.0)

    async def _find(self, asked: Asked, now: datetime, limit: int) -> _Found:
        """All candidates that belong, strikes and words aside."""
        if asked.needs_live and not (asked.scope or asked.words or asked.series or asked.tickers):
            return await self._from_board(asked)
        if asked.sort == "closing_soonest" and asked.close == Span():
            found: list[Candidate] = []
            for span in horizons(now):
                part = await self._from_registry(msgspec.structs.replace(asked, close=span, directed=True))
                found += part.candidates
                if len(found) >= limit or not part.complete:
                    return _Found(found, complete=False)
            return _Found(found, complete=True)
        found_all = await self._from_registry(asked)
        if found_all.candidates or not asked.words or asked.scope or asked.series or asked.filed:
            return found_all
        return await self._from_registry(asked, beginnings=True)  # no title has one of the words: mistyped?

    async def _from_registry(self, asked: Asked, *, beginnings: bool = False) -> _Found:
        titles = tuple(word[:4] if beginnings else word for word in asked.words if len(word) > 2)
        seen: dict[str, Market] = {}
        complete = True
        for wanted in filters_for(asked, titles):
            listed = await self._catalogue.find_markets(wanted, CANDIDATES, "")
            complete = complete and len(listed) < CANDIDATES
            room = CANDIDATES - len(seen)
            fresh = [market for market in listed if market.ticker not in seen]
            complete = complete and len(fresh) <= room
            seen |= {market.ticker: market for market in fresh[:room]}
            if len(seen) >= CANDIDATES:
                return _Found(await self._belonging(seen.values(), asked), complete=False)
        return _Found(await self._belonging(seen.values(), asked), complete)

    async def _from_board(self, asked: Asked) -> _Found:
        """For questions that only prices can answer: what was heard live, looked up in the metadata."""
        board = self._hub.board
        fitting = [t for t in {*board.quotes, *board.books} if fits(numbers_of(board, t, asked.side), asked)]
        fitting.sort(key=lambda ticker: live_order(numbers_of(board, ticker, asked.side), asked.sort))
        looked_up = [await self._catalogue.market(ticker) for ticker in fitting[:FROM_BOARD]]
        found = [market for market in looked_up if market is not None]
        return _Found(await self._belonging(found, asked), len(fitting) <= FROM_BOARD)

    async def _belonging(self, markets: Iterable[Market], asked: Asked) -> list[Candidate]:
        board = self._hub.board  # belongs to the event loop: looked at here, a little at a time
        live = []
        for market in markets:
            if market.listed:
                live.append((market, live_of(board, market, asked.side)))
            if len(live) % _AT_A_TIME == 0:
                await asyncio.sleep(0)

        def choose() -> list[Candidate]:
            found = [candidate(market, known) for market, known in live]
            return [one for one in found if belongs(one, asked, strikes=False)]

        return choose() if len(live) <= _ON_THE_LOOP else await asyncio.to_thread(choose)

    async def _weigh(self, candidates: list[Candidate], said: tuple[str, ...]) -> list[Weighed]:
        if len(candidates) <= _ON_THE_LOOP:
            return weigh(candidates, said)
        return await asyncio.to_thread(weigh, candidates, said)

    async def _in_order(self, chosen: list[Weighed], asked: Asked, now: datetime) -> list[Weighed]:
        def order() -> list[Weighed]:
            return in_order(chosen, asked, now)

        return order() if len(chosen) <= _ON_THE_LOOP else await asyncio.to_thread(order)

    def _said(
        self,
        reading: Reading,
        asked: Asked,
        ranked: list[Weighed],
        complete: bool,
        ignored: tuple[str, ...],
        limit: int,
    ) -> Answer:
        now = self._clock()
        rows = [MarketView(w.found.market.ticker, w.found.market, self._hub, now).row() for w in ranked[:limit]]
        return Answer(
            "list_markets", True, interpretation(reading, asked, ignored), asked.filters(), rows, len(ranked), complete,
            [shown(word) for word in ignored], suggestions(asked, [row.ticker for row in rows], len(ranked)),
        )  # fmt: skip


def _unknown(reading: Reading) -> Answer:
    words_said = ", ".join(map(shown, reading.unknown[:5]))
    about = f": I know no market about {words_said}" if words_said and not reading.foreign else ""
    return Answer(
        "list_markets", False, f"I don't know what is asked{about}", {}, [], 0, True, [],
        ["Questions are in English, about markets of this feed; for example:", *EXAMPLES],
    )  # fmt: skip


def _no_status(word: str) -> Answer:
    said = [f"{ours}: {', '.join(sorted(theirs))}" for ours, theirs in STATUSES.items()]
    return Answer(
        "list_markets", False, f"No market can have the status '{shown(word)}'", {}, [], 0, True, [],
        ["The statuses are (ours: the exchange's words):", *said],
    )  # fmt: skip


def _by_words(reading: Reading, weighed: list[Weighed]) -> tuple[list[Weighed], Asked, tuple[str, ...]]:
    """(the markets that have the words, the filters, the words that none has).

    A question that names something keeps its markets when none has the words; one that does not, loses them.
    """
    asked = reading.asked
    if not asked.words:
        return weighed, asked, ()
    most = max((len(w.has) for w in weighed), default=0)
    named = bool(asked.scope or asked.unwanted or asked.series or asked.filed)
    if not named and most < ENOUGH * len(asked.words):
        return [], asked, asked.words
    if most == 0:
        return weighed, msgspec.structs.replace(asked, words=()), asked.words
    has = frozenset(word for w in weighed for word in w.has)
    kept = [w for w in weighed if (w.has if named else len(w.has) >= ENOUGH * len(asked.words))]
    used = tuple(word for word in asked.words if word in has)
    return kept, msgspec.structs.replace(asked, words=used), tuple(word for word in asked.words if word not in has)


def _is_understood(reading: Reading, ignored: tuple[str, ...]) -> bool:
    """Is more of it known than not?"""
    asked = reading.asked
    matched = len(asked.words) - len(ignored)
    if asked.series:
        return True
    if ignored:
        known = reading.understood + matched + reading.market_words
        if reading.named or (asked.scope and matched):
            return len(ignored) <= 2 * known
        return len(ignored) < known if reading.everyday else matched > len(ignored)
    if reading.named or reading.everyday or reading.market_words:
        return True
    return any(not word.isdigit() for word in asked.words)


def _by_strike(chosen: list[Weighed], asked: Asked) -> tuple[list[Weighed], Asked]:
    """Those with the strike asked for; where none has the very number, all with strikes, the nearest first."""
    exact = [w for w in chosen if has_strike(w.found, asked.strike)]
    if exact or asked.strike.least is None or asked.strike.least != asked.strike.most:
        return exact, asked
    known = [w for w in chosen if strike_of(w.found, asked.strike) is not None]
    return known, msgspec.structs.replace(asked, nearest=bool(known))
