"""One sync of the security master: ask the exchange, store all of it or nothing, then tell what changed."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol, TypeAlias

import msgspec
import structlog

from ssmd.config.values import masked
from ssmd.errors import RefusedError, SsmdError, Unavailable
from ssmd.feeds.catalogue import FeedParts
from ssmd.feeds.kalshi.rest import PAGE, KalshiRest
from ssmd.market.events import Status
from ssmd.registry.market_syncs import Watermarks
from ssmd.registry.security_master import SecurityMaster, SyncResult
from ssmd.registry.sync_limits import Expected
from ssmd.registry.values import printable
from ssmd.secmaster.listing import Listing, Progress
from ssmd.secmaster.one_thread import OneThread
from ssmd.secmaster.parents import Known, Parents
from ssmd.secmaster.publishing import Teller, Told

Kind: TypeAlias = Literal["full", "incremental"]

FULL_EVERY = timedelta(hours=24)
OVERLAP = timedelta(minutes=10)
"""Asked again before a watermark: what changed while the last sync was reading its pages."""
SKEW = timedelta(minutes=5)
"""Two clocks may differ so much; a last full sync that is further ahead says nothing (a clock was put back)."""
MAX_MARKETS = 1_000_000
"""No exchange has more open markets."""
DEADLINE_S = 3_600.0
"""Within this time an exchange has told everything: 70,000 pages at the rate that we ask."""

SHOWN = 3

log = structlog.get_logger(component="secmaster")


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one sync did. `findings` say what was left undone; there are none when all is well.

    `series`, `events`, `markets` were listed by the exchange, `open_markets` of them open; `new` and `changed` are
    markets, `fields` the changes of single fields; `settled` settled in this sync; `unlisted` are no longer known to
    the exchange; `weaker` are settled, and a new answer with weaker evidence was not believed; `published` journal
    entries and `status_events` events were told.
    """

    feed: str
    kind: Kind
    series: int
    events: int
    markets: int
    open_markets: int
    new: int
    changed: int
    unchanged: int
    fields: int
    settled: int
    unlisted: int
    weaker: int
    published: int
    status_events: int
    seconds: float
    findings: list[str]


class Context(Known, Protocol):
    """What a sync asks of the registry beside its own transaction (`registry.sync_context.SyncContext`)."""

    def expected(self, feed: str) -> Expected:
        """What a sync is compared with."""
        ...

    def note_refusal(self, feed: str, kind: str, started_at: datetime, open_markets: int, reason: str) -> None:
        """Write into the book that the running sync was refused before it stored anything."""
        ...

    def statuses_since(self, feed: str, at: datetime) -> Mapping[str, int]:
        """How many markets have changed to each status word."""
        ...


class SecurityMasterSync:
    """Syncs one feed. `combos`: multivariate markets are wanted, too; `now` and `deadline_s` are for tests."""

    def __init__(
        self,
        parts: FeedParts,
        rest: KalshiRest,
        master: SecurityMaster,
        context: Context,
        teller: Teller,
        *,
        combos: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._parts = parts
        self._feed = parts.feed
        self._rest = rest
        self._master = master
        self._context = context
        self._teller = teller
        self._combos = combos
        self._now = now
        self._deadline_s = deadline_s

    async def sync(
        self, *, full: bool = False, accept: bool = False, progress: Progress = lambda _what, _count, _expected: None
    ) -> SyncReport:
        """Sync: in full when that was asked for, was never done, or was done longer ago than a day.

        Raises RefusedError when the exchange suddenly lists far fewer markets than before (unless `accept`), and
        Unavailable, RateLimited or DataError when it does not answer as it should: then nothing was changed.
        Journal or broker away is a finding: what was not told is told by the next sync.
        """
        began, malformed = time.monotonic(), self._rest.malformed
        marks = await asyncio.to_thread(self._master.watermarks, self._feed)
        expected = await asyncio.to_thread(self._context.expected, self._feed)
        kind = self._kind(marks, full=full)
        # The first sync takes every settled market that the exchange still lists (Kalshi: those of about 60 days).
        settled_since = _seconds(marks.settled - OVERLAP) if marks.settled else None
        async with (
            OneThread() as thread,
            thread.within(self._master.sync(self._feed, kind, self._parts.volatile)) as into,
        ):
            parents, before = Parents(self._feed, self._context), expected.previous if kind == "full" else None
            clock = _clock_of(into.started_at)
            listing = Listing(self._rest, parents, into, thread, progress, before, combos=self._combos, clock=clock)
            gone: set[str] = set()
            async with _deadline(self._deadline_s, self._feed):
                if kind == "full":
                    await listing.everything(settled_since)
                    gone = await self._follow_vanished(listing, into.started_at, expected, accept=accept)
                else:
                    assert marks.updated is not None
                    await self._probe(listing, into.started_at, expected.open_markets, accept=accept)
                    await listing.changes(_seconds(marks.updated - OVERLAP), settled_since)
            result = await thread.run(lambda: into.apply(accept=accept, gone=sorted(gone)))
        findings = _left_out(self._rest.malformed - malformed, result)
        told = await self._tell(findings)
        statuses = await asyncio.to_thread(self._context.statuses_since, self._feed, into.started_at)
        return SyncReport(
            feed=self._feed,
            kind=kind,
            series=result.series,
            events=result.events,
            markets=result.markets,
            open_markets=result.open_markets,
            new=result.inserted,
            changed=result.changed,
            unchanged=result.unchanged,
            fields=result.fields,
            settled=sum(count for word, count in statuses.items() if self._parts.status_of(word) is Status.SETTLED),
            unlisted=result.unlisted,
            weaker=result.weaker,
            published=told.entries,
            status_events=told.events,
            seconds=round(time.monotonic() - began, 3),
            findings=findings,
        )

    def _kind(self, marks: Watermarks, *, full: bool) -> Kind:
        recent = marks.last_full is not None and -SKEW <= self._now() - marks.last_full < FULL_EVERY
        return "incremental" if recent and marks.updated is not None and not full else "full"

    async def _probe(self, listing: Listing, started_at: datetime, known: int, *, accept: bool) -> None:
        """An incremental answer may rightly be empty; a list of open markets may not."""
        found, expected = await listing.probe(), min(PAGE, known)
        if found * 2 >= expected or accept:
            return
        reason = (
            f"the exchange suddenly lists only {found:,} open markets on the first page, where about {expected:,} were "
            f"expected (the last full sync of {self._feed} found {known:,}). A list of less than half is taken for a "
            "fault of the exchange"
        )
        await asyncio.to_thread(self._context.note_refusal, self._feed, "incremental", started_at, found, reason)
        again = f"ssmd market sync --feed {self._feed}"
        raise RefusedError(
            reason,
            f"Nothing was changed. See the exchange's status page, and run it again later: {again}. "
            f"If so few markets are right: {again} --full --accept",
        )

    async def _follow_vanished(
        self, listing: Listing, since: datetime, expected: Expected, *, accept: bool
    ) -> set[str]:
        """Markets that had no final result and are in no list now: learn what became of them; those known no more."""
        if listing.open_markets * 2 < max(expected.open_markets, 1) and not accept:
            return set()  # the list has collapsed, and will be refused; nothing to ask about
        known = await asyncio.to_thread(self._master.unlisted_candidates, self._feed, since, MAX_MARKETS)
        return await listing.named([ticker for ticker in known if ticker not in listing.listed])

    async def _tell(self, findings: list[str]) -> Told:
        try:
            return await self._teller.tell()
        except SsmdError as error:
            log.warning("changes not published", error=masked(error.message))
            findings.append(f"not all changes were published, the next sync will: {masked(error.message)}")
            return self._teller.told


def _left_out(malformed: int, result: SyncResult) -> list[str]:
    found = []
    if malformed:
        found.append(f"{malformed:,} objects of the exchange were left out: they are malformed (the log shows some)")
    if result.left_out:
        tickers = ", ".join(sorted(set(result.left_out_tickers))[:SHOWN])
        more = ", ..." if result.left_out > SHOWN else ""
        objects = "1 object was" if result.left_out == 1 else f"{result.left_out:,} objects were"
        found.append(f"{objects} left out, their tickers cannot be stored: {tickers}{more}")
    if result.without_times:
        tickers = ", ".join(sorted(set(result.without_times_tickers))[:SHOWN])
        more = ", ..." if result.without_times > SHOWN else ""
        plural = "" if result.without_times == 1 else "s"
        found.append(
            f"{result.without_times:,} object{plural} stored without a time that the exchange told: it is none, or out "
            f"of range (the raw object has it): {tickers}{more}"
        )
    if result.weaker:
        tickers = ", ".join(printable(ticker, 80) for ticker in result.weaker_tickers[:SHOWN])
        more = ", ..." if result.weaker > SHOWN else ""
        found.append(
            "new answers about settled markets were not believed, their evidence is weaker than what is known: "
            f"{tickers}{more}"
        )
    return found


def _clock_of(at: datetime) -> Callable[[], datetime]:
    """The clock that showed `at` a moment ago, by the time that passes here: another machine's, a little behind."""
    began = time.monotonic()
    return lambda: at + timedelta(seconds=time.monotonic() - began)


def _seconds(at: datetime) -> int:
    return max(0, int(at.timestamp()))


@asynccontextmanager
async def _deadline(seconds: float, feed: str) -> AsyncIterator[None]:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise Unavailable(
            f"the exchange of {feed} had not told everything after {seconds / 60:,.0f} minutes",
            "Nothing was changed. See its status page, and run it again later.",
        ) from error
