"""Which markets are captured: what the exchange lists, written to the registry on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from collections.abc import Set as AbstractSet

import structlog

from ssmd import telemetry as metrics
from ssmd.connector.exchange import Exchange, MarketSource, Settings
from ssmd.errors import DataError, SsmdError, TransientError
from ssmd.market.subjects import encode_ticker
from ssmd.registry.interface import Market, Registry

LIST_EVERY_S = 60.0
ASK_AGAIN_S = 5.0
GONE_AFTER = 2
"""A market is given up when this many lists in a row lack it."""
DOUBT_S = 6 * 3600.0
"""A list of less than half the length of the one before is believed after this time only; an empty one never is.
Books of closed markets cost little; those of a venue that pauses, or that answers nonsense, would be missed."""
EAGER_DOUBTS = 3
"""A doubtful list is asked for again at once this often, then at the usual pace: it may be long all the same."""
ENDED_FOR_S = 300.0
"""For this long, what the exchange said of a market's end is stronger than a list, which may be older."""
MAX_ENDED = 100_000
PAGE = 1000
_SHOWN = 80

log = structlog.get_logger(component="connector")


class Markets:
    """The wanted tickers. `on_new` is told about each that was not wanted before, `on_gone` about those given up."""

    def __init__(
        self,
        settings: Settings,
        exchange: Exchange,
        registry: Registry,
        on_new: Callable[[list[str]], None],
        on_gone: Callable[[list[str]], None],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._settings = settings
        self._source = exchange.markets
        self._volatile = exchange.volatile
        self._registry = registry
        self._on_new = on_new
        self._on_gone = on_gone
        self._clock = clock
        self._always = frozenset(settings.tickers)
        self._last_count = 0
        self._doubted_since: float | None = None
        self._doubts = 0
        self._absent: dict[str, int] = {}
        self._ended: dict[str, float] = {}
        self._written: set[str] = set()
        self._newly_written: set[str] = set()
        self.tickers: frozenset[str] = self._always
        self.listed = exchange.markets is None
        """Is it known which markets there are? Not before the first list, or what the registry knew in its place."""
        self.left_out = 0
        """Listed markets that cannot be captured: their tickers fit into no subject (see `encode_ticker`)."""

    # -- what is listed -----------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Ask for the list again and again, until cancelled. Between two lists, the session hears of new markets."""
        if self._source is None:
            return
        listed_once = False
        while True:
            delay = ASK_AGAIN_S
            try:
                count, absent = await self._ask(self._source)
            except SsmdError as error:
                known = 0 if listed_once else await self._want_known()
                self.listed = listed_once = listed_once or known > 0
                log.warning("markets not listed", error=error.message, from_registry=known)
            else:
                self.listed = listed_once = True
                if self.believe(count, absent & self.tickers) or (count and self._doubts > EAGER_DOUBTS):
                    delay = LIST_EVERY_S
            await asyncio.sleep(delay)

    async def _ask(self, source: MarketSource) -> tuple[int, set[str]]:
        """How many are listed, and which wanted ones are not. Each page is wanted and written down as it comes.

        Nothing is done with the whole list at once: it may be long, and frames wait meanwhile.
        """
        count = 0
        absent = set(self.tickers)
        written: set[str] = set()
        left_out: list[str] = []
        changed: int | None = 0
        async for page in _pages(source.open_markets()):
            tickers = self._usable((market.ticker for market in page), left_out)
            count += len(tickers)
            absent.difference_update(tickers)
            self.want(tickers)
            found = None if changed is None else await self._remember(page)  # a database that is away is asked once
            changed = None if changed is None or found is None else changed + found
            if found is not None:
                written.update(tickers)
                self._newly_written.update(ticker for ticker in tickers if ticker not in self._written)
        if changed:
            log.info("markets", listed=count, changed=changed)
        if len(left_out) != self.left_out:
            first = [repr(ticker[:_SHOWN]) for ticker in left_out[:3]]
            log.error("markets left out, no subject can carry their tickers", count=len(left_out), first=first)
            self.left_out = len(left_out)
        self._written = written
        return count, absent

    def _usable(self, tickers: Iterable[str], left_out: list[str]) -> list[str]:
        """Those of `tickers` that can be captured; the others are added to `left_out`."""
        usable = []
        for ticker in tickers:
            try:
                if ticker not in self.tickers:
                    encode_ticker(ticker)
            except DataError:
                left_out.append(ticker)
            else:
                usable.append(ticker)
        return usable

    def believe(self, count: int, absent: AbstractSet[str]) -> bool:
        """Give up what this list of `count` and the one before lack; False when the list is not to be believed.

        Of a list that collapsed only what is new in it counts.
        """
        if self._is_doubtful(count, self._now()):
            return False
        self._last_count = count
        self._absent = {ticker: self._absent.get(ticker, 0) + 1 for ticker in absent - self._always}
        self._give_up([ticker for ticker, times in self._absent.items() if times >= GONE_AFTER])
        return True

    def _is_doubtful(self, count: int, now_s: float) -> bool:
        if count and count * 2 >= self._last_count:
            self._doubted_since, self._doubts = None, 0
            return False
        self._doubts += 1
        if self._doubted_since is None:
            self._doubted_since = now_s
            log.warning("list of markets collapsed, not believed", listed=count, before=self._last_count)
        if not count or now_s - self._doubted_since < DOUBT_S:
            return True
        log.warning("short list of markets believed in the end", listed=count, before=self._last_count)
        self._doubted_since, self._doubts = None, 0
        return False

    # -- what is heard ------------------------------------------------------------------------------------------

    def ended(self, tickers: Iterable[str]) -> None:
        """The exchange said that these are determined or settled: the session has given them up."""
        over = [ticker for ticker in tickers if ticker not in self._always]
        if not over:
            return
        now_s = self._now()
        if len(self._ended) + len(over) > MAX_ENDED:
            self._ended.clear()
        self._ended.update(dict.fromkeys(over, now_s))
        self._give_up([ticker for ticker in over if ticker in self.tickers])

    def _give_up(self, tickers: list[str]) -> None:
        if not tickers:
            return
        self.tickers -= frozenset(tickers)
        for ticker in tickers:
            self._absent.pop(ticker, None)
        metrics.CONNECTOR_DROPPED.labels(self._settings.feed).inc(len(tickers))
        log.info("markets given up", count=len(tickers), first=sorted(tickers)[:5])
        self._on_gone(sorted(tickers))

    def want(self, tickers: Iterable[str]) -> None:
        """Want these too, unless they are over."""
        now_s = self._now()
        for ticker in [ticker for ticker, at_s in self._ended.items() if now_s - at_s > ENDED_FOR_S]:
            del self._ended[ticker]
        selects, ended = self._settings.selects, self._ended
        new = {t for t in frozenset(tickers) - self.tickers if t not in ended and selects(t)}
        if new:
            self.tickers |= new
            self._on_new(sorted(new))

    def _now(self) -> float:
        return self._clock() if self._clock else asyncio.get_running_loop().time()

    # -- the registry -------------------------------------------------------------------------------------------

    async def _want_known(self) -> int:
        """Want the markets that the registry last knew as active, all of them; how many, 0 when it is away."""
        count, after = 0, ""
        try:
            while page := await asyncio.to_thread(self._registry.markets, self._settings.feed, "active", PAGE, after):
                tickers = [market.ticker for market in page]
                self.want(self._usable(tickers, []))
                count, after = count + len(tickers), tickers[-1]
        except TransientError:  # the registry tells of its troubles itself
            return 0
        return count

    async def _remember(self, markets: list[Market]) -> int | None:
        """Write markets down; how many rows changed, None when the registry is away."""
        try:
            return await asyncio.to_thread(self._registry.upsert_markets, self._settings.feed, markets, self._volatile)
        except TransientError:  # the registry tells of its troubles itself
            return None

    def take_written(self) -> set[str]:
        """The listed markets that the registry has, or has again, since the last call."""
        taken, self._newly_written = self._newly_written, set()
        return taken


async def _pages(markets: AsyncIterator[Market]) -> AsyncIterator[list[Market]]:
    page: list[Market] = []
    async for market in markets:
        page.append(market)
        if len(page) >= PAGE:
            yield page
            page = []
    if page:
        yield page
