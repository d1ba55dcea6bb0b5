"""What a sync asks of the exchange, handed to the registry page by page while the next page is on its way."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Protocol, TypeVar

import structlog

from ssmd.feeds.kalshi.rest import KalshiRest
from ssmd.feeds.kalshi.rest_answers import NotListed, QueryRefused
from ssmd.registry.interface import ListedEvent, Market, Series
from ssmd.registry.market_syncs import SyncCounts
from ssmd.registry.values import storable
from ssmd.secmaster.one_thread import OneThread
from ssmd.secmaster.parents import Parents

MAX_TICKER = 128
"""No event that the registry can hold has a longer one, in characters."""
NO_COMBOS = "exclude"
EVENT_STATUSES = ("unopened", "open", "closed")
MARKET_STATUSES = ("unopened", "open", "closed")
"""What a full sync lists; settled markets come by the time of their settlement."""
PAUSED = "paused"
"""In the exchange's specification, but not among the words that its own text names."""

Page = TypeVar("Page")
Progress = Callable[[str, int, int | None], None]
"""Called with `series`, `events` or `markets`, how many of them came so far, and how many are expected, if any are."""

log = structlog.get_logger(component="secmaster")


class Sink(Protocol):
    """Where pages go (a sync of `registry.security_master`); called in its thread, one call at a time."""

    def add_series(self, listed: Sequence[Series]) -> None:
        """Take series."""
        ...

    def add_events(self, listed: Sequence[ListedEvent]) -> None:
        """Take events."""
        ...

    def add_markets(self, listed: Sequence[Market], asked_at: datetime | None = None) -> None:
        """Take markets that were asked for at a time; of two answers about one market the later one holds."""
        ...


class Listing:
    """One sync's questions. `combos`: multivariate markets (tickers `KXMVE…`) are wanted, too.

    `clock` is the registry's, or somewhat behind: what others have learnt before a page was asked for is older than it.
    """

    def __init__(
        self,
        rest: KalshiRest,
        parents: Parents,
        sink: Sink,
        thread: OneThread,
        progress: Progress,
        expected: SyncCounts | None = None,
        *,
        combos: bool,
        clock: Callable[[], datetime],
    ) -> None:
        self._rest = rest
        self._parents = parents
        self._sink = sink
        self._thread = thread
        self._progress = progress
        self._expected = expected
        self._filter = None if combos else NO_COMBOS
        self._combos = combos
        self._clock = clock
        self._counts = {"series": 0, "events": 0, "markets": 0}
        self.listed: set[str] = set()
        """Tickers of the markets that came, as the registry writes them."""
        self.open_markets = 0
        """How many came in the list of open ones."""

    async def everything(self, settled_since_s: int | None) -> None:
        """All series; events and markets that are not settled; what settled since (Unix seconds; None: ever)."""
        await self._series(await self._rest.series(include_product_metadata=True))
        for status in EVENT_STATUSES:
            await self._events(self._rest.event_pages(status=status))
        for status in MARKET_STATUSES:
            before = self._counts["markets"]
            await self._markets(self._rest.market_pages(status, mve_filter=self._filter))
            if status == "open":
                self.open_markets = self._counts["markets"] - before
        try:
            await self._markets(self._rest.market_pages(PAUSED, mve_filter=self._filter))
        except QueryRefused as error:
            log.info("paused markets cannot be listed", error=error.message)
        await self._settled(settled_since_s)

    async def changes(self, updated_since_s: int, settled_since_s: int | None) -> None:
        """What was updated, created or settled after these times (Unix seconds)."""
        since = updated_since_s
        await self._series(await self._rest.series(include_product_metadata=True, min_updated_ts=since))
        await self._events(self._rest.event_pages(min_updated_ts=since))
        # This filter goes with no other one, and only without combos: those come by the time of their creation.
        await self._markets(self._rest.market_pages(mve_filter=NO_COMBOS, min_updated_ts=since))
        if self._combos:
            await self._markets(self._rest.market_pages(mve_filter="only", min_created_ts=since))
        await self._settled(settled_since_s)

    async def probe(self) -> int:
        """Take the first page of open markets; how many it holds."""
        async with aclosing(self._rest.market_pages("open", mve_filter=self._filter)) as pages:
            asked_at = self._clock()
            page: list[Market] = await anext(pages, [])
        await self._add_markets(page, asked_at)
        return len(page)

    async def named(self, tickers: Sequence[str]) -> set[str]:
        """Ask for these markets; those of them that the exchange no longer knows, not even as long settled."""
        asked = [ticker for ticker in tickers if "," not in ticker]  # the exchange separates them by commas
        left = set(asked)
        async with aclosing(_one_ahead(self._rest.market_pages(tickers=asked), self._clock)) as pages:
            async for asked_at, page in pages:
                left -= {market.ticker for market in page}
                await self._add_markets(page, asked_at)
        if left:
            asked_at = self._clock()
            try:
                older = [market async for market in self._rest.historical_markets(sorted(left))]
            except NotListed as error:  # an exchange without that page has forgotten nothing on it
                log.info("no historical markets", error=error.message)
                older = []
            left -= {market.ticker for market in older}
            await self._add_markets(older, asked_at)
        return left

    async def _settled(self, since_s: int | None) -> None:
        await self._markets(self._rest.market_pages("settled", mve_filter=self._filter, min_settled_ts=since_s))

    async def _series(self, listed: Sequence[Series]) -> None:
        self._parents.learn_series(listed)
        await self._thread.run(lambda: self._sink.add_series(listed))
        self._count("series", listed)

    async def _events(self, pages: AsyncGenerator[list[ListedEvent], None]) -> None:
        async with aclosing(_one_ahead(pages, self._clock)) as ahead:
            async for _, page in ahead:
                await self._take_events(page)
                self._count("events", page)

    async def _markets(self, pages: AsyncGenerator[list[Market], None]) -> None:
        async with aclosing(_one_ahead(pages, self._clock)) as ahead:
            async for asked_at, page in ahead:
                await self._add_markets(page, asked_at)

    async def _add_markets(self, page: Sequence[Market], asked_at: datetime) -> None:
        missing = await asyncio.to_thread(self._parents.missing, page)
        await self._ask_events([ticker for ticker in missing if "," not in ticker and len(ticker) <= MAX_TICKER])
        await self._thread.run(lambda: self._sink.add_markets(self._parents.adopted(page), asked_at))
        self.listed.update(storable(market.ticker) for market in page)
        self._count("markets", page)

    async def _ask_events(self, tickers: Sequence[str]) -> None:
        """Events that no list has named: those of settled markets, of combos, and of markets listed this minute."""
        combos = [ticker for ticker in tickers if ticker.startswith("KXMVE")]
        others = [ticker for ticker in tickers if not ticker.startswith("KXMVE")]
        if others:
            await self._events(self._rest.event_pages(others))
        if combos:
            try:
                await self._events(self._rest.event_pages(combos, multivariate=True))
            except (NotListed, QueryRefused) as error:  # their markets are there without series and category
                log.warning("events of combos cannot be listed", error=error.message)

    async def _take_events(self, listed: Sequence[ListedEvent]) -> None:
        await asyncio.to_thread(self._parents.learn_events, listed)
        await self._thread.run(lambda: self._sink.add_events(listed))

    def _count(self, what: str, listed: Sequence[object]) -> None:
        self._counts[what] += len(listed)
        self._progress(what, self._counts[what], getattr(self._expected, what, None))


async def _one_ahead(
    pages: AsyncGenerator[Page, None], clock: Callable[[], datetime]
) -> AsyncGenerator[tuple[datetime, Page], None]:
    """The same pages, and when each was asked for: while the one before it was worked on."""

    async def following() -> tuple[datetime, Page] | None:
        asked_at = clock()
        page = await anext(pages, None)
        return None if page is None else (asked_at, page)

    coming = asyncio.create_task(following())
    try:
        while (answer := await coming) is not None:
            coming = asyncio.create_task(following())
            yield answer
    finally:
        coming.cancel()
        await asyncio.wait({coming})
        if not coming.cancelled():
            coming.exception()  # told already, or of no interest to one who has stopped reading
        await pages.aclose()
