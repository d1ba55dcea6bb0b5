"""A market's trades in a range of time, each once: what memory still holds, and before that the archive.

Each answer says what it does not know: recorded gaps, what the archiver has not stored yet, objects that are damaged.
"""

import asyncio
import bisect
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Literal, NamedTuple, TypeAlias

import structlog

from ssmd.clock import NS_PER_DAY, NS_PER_S, day_of, day_start_ns, now_ns
from ssmd.gateway.archived_trades import AHEAD_NS, ArchivedTrades, Hole, Step, Walk, days_between, time_of
from ssmd.gateway.catalogue import Catalogue
from ssmd.gateway.hub import Hub
from ssmd.gateway.outside import Outside
from ssmd.gateway.problems import ApiProblem
from ssmd.market.events import Trade
from ssmd.middleware.storage.interface import StorageUnavailable
from ssmd.registry.interface import RegistryUnavailable

AT_ONCE = 2
WAIT_S = 10.0
READ_S = 20.0
SKEW_NS = NS_PER_S
"""Messages received so soon after a (re)connection may have been published before it: clocks differ."""

EVERYTHING = 1 << 62
HOLES_SHOWN = 100

Place: TypeAlias = tuple[int, int, int, str]
"""Where a trade stands in the order of trades: its time, its receive time, its number there, its identity."""

SourceName: TypeAlias = Literal["memory", "archive", "archive+memory"]

log = structlog.get_logger()


class Range(NamedTuple):
    """Times of trades, the end not included, and in which order; only those beyond `after`, when it is given."""

    start_ns: int
    end_ns: int
    newest_first: bool = False
    after: Place | None = None


class Found(NamedTuple):
    """Trades in order. `reached_ns`: the answer covers the range up to there (newest first: down to there) and not on.

    None: it covers all of it.
    """

    trades: list[Trade]
    reached_ns: int | None
    source: SourceName
    holes: list[Hole]


class TradeHistory:
    """Reads for the HTTP API; two requests at a time read the archive, so that the live stream keeps its time."""

    def __init__(
        self, hub: Hub, catalogue: Catalogue, archive: ArchivedTrades | None, clock: Callable[[], int] = now_ns
    ) -> None:
        self._hub = hub
        self._catalogue = catalogue
        self._archive = archive
        self._clock = clock
        self._turns = asyncio.Semaphore(AT_ONCE)

    def memory_since(self, ticker: str) -> int:
        """Every trade of `ticker` received at this time or later is in memory; far away while the broker is away."""
        if not self._hub.connected:
            return EVERYTHING
        return max(self._hub.changed_ns + SKEW_NS, self._hub.board.trades_since(ticker))

    def last(self, ticker: str, limit: int) -> list[Trade]:
        """The last trades that memory holds, newest first."""
        return sorted(self._hub.board.trades(ticker, limit), key=place_of, reverse=True)

    async def find(self, ticker: str, span: Range, enough: Callable[[list[Trade]], bool]) -> Found:
        """The trades of a range, until `enough` (told of all that come next in order) says so.

        ApiProblem 503 when the archive is away and memory has nothing, is busy, or is too slow to get anywhere; 413
        when nothing fits into what one request may read.
        """
        since = self.memory_since(ticker)
        gathered = Gathered(span, enough)
        gathered.add(Step(self._hub.board.trades(ticker, EVERYTHING), since + AHEAD_NS if span.newest_first else 0))
        holes: list[Hole] = []
        from_memory = bool(gathered.count)
        read = 0
        if span.start_ns - AHEAD_NS < since and not gathered.enough:
            read = await self._read(ticker, span, since, gathered, holes)
        if read or gathered.count > 1_000:
            await asyncio.to_thread(gathered.finish)
        else:
            gathered.finish()
        from_archive = gathered.count > 0 and read > 0
        source: SourceName = "memory" if not read else "archive+memory" if from_memory and from_archive else "archive"
        return Found(gathered.settled, gathered.reached_ns, source, holes)

    async def holes(self, ticker: str, start_ns: int, end_ns: int, known: Iterable[Hole]) -> list[Hole]:
        """`known` and the recorded gaps that touch the ticker, as far as they lie in the time from start to end."""
        end_ns = min(end_ns, self._clock())
        if start_ns >= end_ns:
            return []
        found = list(known)
        if not self._hub.connected:
            found.append(Hole(self._hub.changed_ns, self._clock(), "live_stream_away"))
        try:
            gaps = await self._catalogue.gaps_of_days(days_between(start_ns, end_ns - 1))
            mine = [gap for gap in gaps if gap.tickers is None or ticker in gap.tickers]
            found += [Hole(gap.from_ns, gap.to_ns, gap.reason) for gap in mine]
        except RegistryUnavailable:
            found.append(Hole(start_ns, end_ns, "gaps_not_known"))
        inside = {
            Hole(max(start_ns, hole.from_ns), min(end_ns, hole.to_ns), hole.reason)
            for hole in found
            if hole.from_ns < end_ns and (hole.to_ns > start_ns or hole.from_ns >= start_ns)
        }
        return sorted(inside)

    async def _read(self, ticker: str, span: Range, since: int, gathered: "Gathered", holes: list[Hole]) -> int:
        """Go on in the archive; how many objects were read."""
        start_ns, end_ns = span.start_ns, span.end_ns
        if self._archive is None:
            holes.append(Hole(start_ns, since, "no_archive"))
            return 0
        walk, slow = Walk(), False
        async with _Turn(self._turns):
            try:
                async with asyncio.timeout(READ_S):
                    steps = self._archive.steps(ticker, start_ns, end_ns, since, walk, newest_first=span.newest_first)
                    async with aclosing(steps):
                        async for step in steps:
                            await asyncio.to_thread(gathered.add, step)
                            if gathered.enough:
                                break
                    holes += await self._unarchived(span, since, walk)
            except TimeoutError:
                walk.exhausted = slow = True
                log.warning("archive slow", feed=self._hub.feed, ticker=ticker, objects=walk.objects)
            except StorageUnavailable as error:
                log.warning("archive away", feed=self._hub.feed, error=error.message)
                if not gathered.count:
                    raise _away() from error
                holes.append(Hole(start_ns, min(since, end_ns), "archive_away"))
        holes += walk.holes
        if walk.exhausted and not gathered.enough:
            gathered.stop()
            if not gathered.progressed:
                raise _too_slow() if slow else _too_much()
        return walk.objects

    async def _unarchived(self, span: Range, since: int, walk: Walk) -> list[Hole]:
        """What is neither in memory nor in the archive, and the days of which the archive has nothing at all."""
        assert self._archive is not None
        now = self._clock()
        today = day_of(now)
        holes = []
        if span.end_ns > now - 2 * NS_PER_DAY:
            through = await self._archive.through(today)
            if through < min(since, span.end_ns):
                holes.append(Hole(through, min(since, now), "not_archived_yet"))
        empty = sorted(day for day in walk.empty if day < today)
        if empty:
            try:
                rows = await self._catalogue.inventory(empty[0], empty[-1])
                stored = {row.day for row in rows if row.data_type == "normalized" and row.record_count}
                reason = "nothing_archived"
            except RegistryUnavailable:
                stored, reason = set(), "archive_not_known"
            starts = [day_start_ns(day) for day in empty if day not in stored]
            holes += [Hole(start, start + NS_PER_DAY, reason) for start in starts]
        return holes


class Gathered:
    """Trades as they come, put in order: `settled` are those before which nothing can come any more."""

    def __init__(self, span: Range, enough: Callable[[list[Trade]], bool]) -> None:
        self.settled: list[Trade] = []
        self.enough = False
        self.count = 0
        self.reached_ns: int | None = None  # where it stopped
        self._span = span
        self._asks = enough
        self._settled: set[str] = set()
        self._waiting: dict[str, tuple[Place, Trade]] = {}
        self._frontier: int | None = None

    @property
    def progressed(self) -> bool:
        """Did it come any further than where it began?"""
        if self._frontier is None:
            return False
        return self._frontier < self._span.end_ns if self._span.newest_first else self._frontier > self._span.start_ns

    def add(self, step: Step) -> None:
        """Take the trades of a step that are new and in the range, and settle what its frontier allows."""
        span = self._span
        for trade in step.trades:
            place = place_of(trade)
            name = place[-1]
            if not span.start_ns <= place[0] < span.end_ns or name in self._settled:
                continue
            known = self._waiting.get(name)
            if known is None or place < known[0]:  # of one that two connections received, the first
                self._waiting[name] = place, trade
            self.count += known is None
        self._frontier = step.frontier_ns
        self._settle(step.frontier_ns)

    def stop(self) -> None:
        """Nothing more is read: what is settled is the answer."""
        self.reached_ns = self._frontier

    def finish(self) -> None:
        """Everything was read (or enough, or `stop` was called before)."""
        if self.enough:
            self.reached_ns = self._frontier
        elif self.reached_ns is None:
            self._settle(-EVERYTHING if self._span.newest_first else EVERYTHING)
        self.settled.sort(key=place_of, reverse=self._span.newest_first)

    def _settle(self, frontier_ns: int) -> None:
        newest_first = self._span.newest_first
        waiting = sorted(self._waiting.items(), key=lambda item: item[1][0])
        if newest_first:
            cut = bisect.bisect_right(waiting, frontier_ns, key=lambda item: item[1][0][0])
            ready, self._waiting = waiting[cut:][::-1], dict(waiting[:cut])
        else:
            cut = bisect.bisect_left(waiting, frontier_ns, key=lambda item: item[1][0][0])
            ready, self._waiting = waiting[:cut], dict(waiting[cut:])
        self._settled.update(name for name, _ in ready)
        trades = [trade for _, (place, trade) in ready if self._beyond(place)]
        if trades:
            self.settled += trades
            self.enough = self._asks(trades) or self.enough

    def _beyond(self, place: Place) -> bool:
        after = self._span.after
        if after is None:
            return True
        return place < after if self._span.newest_first else place > after


def archived_trades(feed: str, outside: Outside) -> ArchivedTrades | None:
    """The archive of a feed's trades; None in an environment without storage."""
    return None if outside.storage is None else ArchivedTrades(feed, outside.storage, outside.normalized_bucket)


class _Turn:
    """One of the few requests that read the archive at a time; ApiProblem 503 when none gets free soon."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns = turns

    async def __aenter__(self) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                await self._turns.acquire()
        except TimeoutError as error:
            detail = f"{AT_ONCE} other requests are reading the archive"
            raise ApiProblem(
                503, "archive_busy", detail, "Ask again in a few seconds.", headers={"Retry-After": "5"}
            ) from error

    async def __aexit__(self, *_: object) -> None:
        self._turns.release()


def identity(trade: Trade) -> str:
    """What makes a trade the same when it comes twice: its id, or where the exchange gave none all that it says."""
    return (
        trade.trade_id or f"{trade.exchange_ns} {trade.received_ns} {trade.price} {trade.size} {trade.side} {trade.seq}"
    )


def place_of(trade: Trade) -> Place:
    """Where it stands in the order of trades."""
    return time_of(trade), trade.received_ns, trade.seq, identity(trade)


def _away() -> ApiProblem:
    step = "Ask again in a few seconds; without start the last trades come from memory."
    return ApiProblem(503, "archive_away", "the archive does not answer", step, headers={"Retry-After": "5"})


def _too_slow() -> ApiProblem:
    detail = f"the archive did not answer within {READ_S:g} s"
    step = "Ask again in a few seconds, for a shorter time; without start the last trades come from memory."
    return ApiProblem(503, "archive_slow", detail, step, headers={"Retry-After": "5"})


def _too_much() -> ApiProblem:
    detail = "the trades of this time are among more than one request may read of the archive"
    step = "Ask for a shorter time, or a shorter interval; ask again when the day is compacted."
    return ApiProblem(413, "too_much_to_read", detail, step)
