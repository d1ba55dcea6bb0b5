"""What the metadata database says, asked from the event loop: never waits long, knows whether the database is there."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any, TypeVar

import msgspec

from ssmd.clock import now_ns
from ssmd.gateway.hot import Hot, Known
from ssmd.market.events import Gap
from ssmd.registry.interface import (
    InventoryRow,
    Market,
    MarketFilter,
    MarketWords,
    ObjectRecord,
    Registry,
    RegistryUnavailable,
)
from ssmd.registry.patient import PatientRegistry

ANSWER_S = 3.0
LOOKUP_S = 0.5
CONCURRENT = 4  # threads that a silent database may hold
REST_S = 10.0
"""So long nobody waits for a database that was silent, unless it answers a look that is taken meanwhile."""
GAPS_FRESH_NS = 10_000_000_000

T = TypeVar("T")


class Catalogue:
    """The registry of one feed; `available` and `changed_ns` tell its state. Questions raise RegistryUnavailable."""

    def __init__(
        self, feed: str, registry: Registry, clock: Callable[[], int] = now_ns, hot: Hot | None = None
    ) -> None:
        self.feed = feed
        self.available = False
        self.changed_ns = clock()
        self.error = "not asked yet"
        self._registry = PatientRegistry(registry)
        self._clock = clock
        self._hot = hot or Hot(None, clock)
        self._busy = 0
        self._turns = asyncio.Semaphore(CONCURRENT)
        self._gaps: tuple[int, date, list[Gap]] | None = None
        self._look: asyncio.Task[None] | None = None
        self._rests_until = 0.0
        self._words: tuple[int, MarketWords] | None = None

    async def ping(self) -> bool:
        """Does the database answer?"""
        with contextlib.suppress(RegistryUnavailable):  # noted in `available` and `error`
            await self._ask(self._registry.ping, rested=True)
        return self.available

    async def find_markets(self, wanted: MarketFilter, limit: int, after: str) -> list[Market]:
        """The markets that `wanted` asks for, by ticker, from the first after `after`, without their raw objects."""
        return (await self.known_markets(wanted, limit, after)).value

    async def known_markets(self, wanted: MarketFilter, limit: int, after: str) -> Known[list[Market]]:
        """As `find_markets`; of first pages that anybody may ask for, the last answer while the database is away."""

        async def ask() -> list[Market]:
            return await self._ask(lambda: self._registry.find_markets(self.feed, wanted, limit, after))

        if after or wanted.words or wanted.any_of:
            return Known(await ask(), self._clock())
        question = msgspec.json.encode(("markets", self.feed, wanted, limit)).decode()
        return await self._hot.read(question, list[Market], ask)

    async def market(self, ticker: str) -> Market | None:
        """One market, None when the exchange never listed it."""
        return (await self.known_market(ticker)).value

    async def known_market(self, ticker: str) -> Known[Market | None]:
        """As `market`; the last answer while the database is away."""

        async def ask() -> Market | None:
            return await self._ask(lambda: self._registry.market(self.feed, ticker))

        return await self._hot.read(f"market {self.feed} {ticker}", Market | None, ask)

    async def market_words(self) -> MarketWords:
        """The statuses and categories of the feed's markets, at most ten seconds old."""
        now = self._clock()
        if self._words is None or now - self._words[0] > GAPS_FRESH_NS:
            self._words = now, await self._ask(lambda: self._registry.market_words(self.feed))
        return self._words[1]

    async def gaps(self, day: date) -> list[Gap]:
        """The recorded gaps of a UTC day, at most ten seconds old."""
        now = self._clock()
        if self._gaps is None or self._gaps[1] != day or now - self._gaps[0] > GAPS_FRESH_NS:
            self._gaps = now, day, await self._ask(lambda: self._registry.gaps(self.feed, day))
        return self._gaps[2]

    async def gaps_of_days(self, days: Sequence[date]) -> list[Gap]:
        """The recorded gaps that touch any of some UTC days in a row, each once."""
        if len(days) == 1:
            return await self.gaps(days[0])

        return await self._ask(lambda: self._registry.gaps(self.feed, days[0], days[-1]))

    async def inventory(self, first: date, last: date) -> list[InventoryRow]:
        """What is archived of some UTC days."""
        return await self._ask(lambda: self._registry.inventory(self.feed, first, last))

    async def last_object(self, day: date) -> ObjectRecord | None:
        """The object of a UTC day that reaches furthest; None when there is none."""
        objects = await self._ask(lambda: self._registry.objects(self.feed, day))
        return max(objects, key=lambda record: record.last_ns, default=None)

    async def unlisted(self, tickers: Iterable[str]) -> list[str]:
        """Those of `tickers` that the database does not know; all of them while it is away."""
        asked = list(tickers)
        if not asked or not self.available:
            return asked

        try:
            return await self._ask(lambda: self._registry.unknown_tickers(self.feed, asked), LOOKUP_S)
        except RegistryUnavailable:
            return asked

    async def ask(self, call: Callable[[], T]) -> T:
        """Any other question to the database, within the same limits."""
        return await self._ask(call)

    async def _ask(self, call: Callable[[], T], timeout_s: float | None = None, *, rested: bool = False) -> T:
        """Run `call` in a thread, after at most `CONCURRENT` others. A thread that is given up goes on.

        While the database is away, nobody waits for a turn; while it is silent, only who is `rested` asks at all.
        """
        limit_s = ANSWER_S if timeout_s is None else timeout_s
        loop = asyncio.get_running_loop()
        if loop.time() < self._rests_until and not rested:
            raise self._failed(self.error or "the database did not answer a moment ago")
        deadline = loop.time() + limit_s
        if self._turns.locked() and not self.available:
            raise self._failed(f"{self._busy} earlier questions to the database are not answered yet")
        try:
            async with asyncio.timeout_at(deadline):
                await self._turns.acquire()
        except TimeoutError:
            raise self._failed(f"{self._busy} earlier questions to the database are not answered yet") from None
        self._busy += 1
        thread = asyncio.create_task(asyncio.to_thread(call))
        thread.add_done_callback(self._returned)
        done, _ = await asyncio.wait({thread}, timeout=deadline - loop.time())
        if not done:
            self._rest()
            raise self._failed(f"the database did not answer within {limit_s} s")
        try:
            result = thread.result()
        except RegistryUnavailable as error:
            raise self._failed(error.message) from error
        self._answered()
        return result

    def _answered(self) -> None:
        self._rests_until = 0.0
        if not self.available:
            self.available, self.changed_ns, self.error = True, self._clock(), ""

    def _rest(self) -> None:
        """Spare the next ones the waiting, until the database answers a look: one slow question holds nobody up."""
        self._rests_until = asyncio.get_running_loop().time() + REST_S
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._look_again())

    async def _look_again(self) -> None:
        try:
            await asyncio.to_thread(self._registry.ping)
        except RegistryUnavailable as error:
            self.error = error.message
            self._rests_until = 0.0  # it fails at once, which costs nobody time
            return
        self._answered()

    def _returned(self, thread: "asyncio.Task[Any]") -> None:
        self._busy -= 1
        self._turns.release()
        if not thread.cancelled():
            thread.exception()  # seen here when nobody waits any longer

    def _failed(self, reason: str) -> RegistryUnavailable:
        if self.available:
            self.available, self.changed_ns = False, self._clock()
        self.error = reason
        return RegistryUnavailable(f"metadata of {self.feed} is not available: {reason}", "Live data is still served.")
