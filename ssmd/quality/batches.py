"""Where the batches of a day come from: each is made when a suite first asks for it, and says why when it cannot be."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeAlias

import msgspec
import pandas as pd

from ssmd.archive import layout
from ssmd.archive.layout import ParquetDay, TickerObject
from ssmd.clock import now_ns
from ssmd.errors import ConfigError, DataError, TransientError
from ssmd.feeds.catalogue import FeedParts
from ssmd.market.subjects import check_feed
from ssmd.middleware.storage.interface import Storage
from ssmd.quality import facts, markets, objects, rows, understood, volume
from ssmd.quality.export import export, fetch
from ssmd.quality.exported import Exported, read_exported
from ssmd.quality.gaps import KnownGap, gap_objects, join_gaps
from ssmd.quality.rawscan import RawFacts, scan
from ssmd.registry.assessment import BEGINNING, all_rows, facts_of
from ssmd.registry.interface import ObjectRecord, Registry

EVENT_BATCHES = ("trade", "orderbook", "ticker", "status")
HEARD_BATCHES = ("trade", "orderbook", "ticker")
"""Those whose rows say that a market was heard."""
OBJECT_BATCHES = {f"{name}_objects": name for name in EVENT_BATCHES}
_RAW_COLUMNS = {
    "raw_connections": (
        "connection", "frames", "first_n", "last_n", "missing", "missing_numbers", "repeated", "first_ns", "last_ns",
    ),
    "raw_sequences": (
        "connection", "sid", "frames", "first_seq", "last_seq", "missing", "missing_unrecorded", "missing_numbers",
        "repeated", "first_ns", "last_ns",
    ),
    "raw_problems": ("key", "kind", "frames", "connection", "n", "received_ns", "example"),
    "raw_types": ("type", "frames", "problems", "share", "kinds"),
    "raw_trades": ("ticker", "raw_trades", "normalized_trades", "lost", "surplus"),
}  # fmt: skip

_LATER_S = 5.0
"""On a day that is not over, an object whose row is absent is looked for once more after so long."""

_TOLD = frozenset(("parse_error", "missing_field", "inconsistent", "internal_error"))
"""Issue types about single frames."""


class NotThere(Exception):
    """A batch cannot be made; the message says why, and nothing is judged."""


class Sql(msgspec.Struct, frozen=True):
    """A batch that stays in the database: its address (with its password) and the question that gives its rows."""

    url: str
    query: str


Batch: TypeAlias = Iterable[pd.DataFrame] | Sql
OpenLister: TypeAlias = Callable[[], AbstractAsyncContextManager[volume.Lister]]


class Day(msgspec.Struct, frozen=True):
    """The day that is looked at, and everything that is asked about it.

    `registry` None: it is away. `database_url` is where SQL can be asked, `lister` opens the exchange's REST (None:
    neither is to be asked; `no_lister` says why). `selects` says which markets the environment captures, `synced` when
    the last sync of the security master that succeeded had begun (None: none did). `work` is a folder for temporary
    files, `pause` waits.
    """

    feed: str
    day: date
    today: date
    storage: Storage
    raw_bucket: str
    normalized_bucket: str
    parts: FeedParts
    work: Path
    registry: Registry | None = None
    database_url: Callable[[], str] | None = None
    lister: OpenLister | None = None
    no_lister: str = "no address of the exchange is known"
    selects: Callable[[str], bool] = lambda _ticker: True
    synced: Callable[[], datetime | None] = lambda: None
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    @property
    def running(self) -> bool:
        """Is it not over? Its archive grows, then, while it is looked at."""
        return self.day >= self.today


class Batches:
    """The batches of one day, each made once."""

    def __init__(self, day: Day) -> None:
        self.day = day
        self._files: dict[tuple[str, date], list[Path]] = {}
        self._through: dict[tuple[str, date], int] = {}
        self._raw: RawFacts | None = None
        self._gaps: list[KnownGap] | None = None
        self._objects: dict[date, list[ObjectRecord]] = {}
        self._by_ticker: dict[tuple[str, date], dict[str, int]] = {}

    async def batch(self, name: str) -> Batch:
        """The batch. NotThere says why there is none; DataError: it is damaged; StorageUnavailable."""
        if name in EVENT_BATCHES:
            return rows.pieces(name, await self.files(name))
        if name in OBJECT_BATCHES:
            return await self._object_batch(OBJECT_BATCHES[name])
        if name == "raw_objects":
            found = (await self.raw()).objects
            if not found:
                raise NotThere("the raw archive has nothing of the day")
            return [pd.DataFrame(found)]
        if name in _RAW_COLUMNS and name != "raw_trades":
            scanned = await self.raw()
            if not scanned.objects:
                raise NotThere("the raw archive has nothing of the day")
            found = getattr(scanned, name.removeprefix("raw_"))
            if name == "raw_problems":
                found = [*found, *await self._told_problems({row["kind"] for row in found})]
            return [facts.frame(found, _RAW_COLUMNS[name])]
        make = {
            "gaps": self._gap_batch, "capture": self._capture_batch, "markets": self._market_batch,
            "coverage": self._coverage_batch, "volume": self._volume_batch, "drift": self._drift_batch,
            "raw_trades": self._raw_trade_batch,
        }[name]  # fmt: skip
        return await make()

    async def files(self, event_type: str, day: date | None = None, *, make: bool = True) -> list[Path]:
        """The day's Parquet files here; NotThere when the archive has nothing of this type (or, unmade, no export)."""
        on = day or self.day.day
        if (event_type, on) not in self._files:
            self._files[event_type, on] = await self._fetched(ParquetDay(self.day.feed, event_type, on), make)
        return self._files[event_type, on]

    async def _fetched(self, its: ParquetDay, make: bool) -> list[Path]:
        storage, bucket = self.day.storage, self.day.normalized_bucket
        if make:
            exported, _ = await export(storage, bucket, its, work=self.day.work)
        else:
            known = await read_exported(storage, bucket, its)
            if known is None:
                raise NotThere(f"{its.day} was not exported")
            exported = known
        try:
            return await self._files_of(its, exported)
        except DataError as error:
            if make:
                raise
            raise NotThere(f"the export of {its.day} cannot be used: {error.message}") from error

    async def _files_of(self, its: ParquetDay, exported: Exported) -> list[Path]:
        if not exported.rows:
            raise NotThere(f"the normalized archive has no {its.type} of {its.day}")
        self._through[its.type, its.day] = exported.last_ns
        found = []
        for number, part in enumerate(exported.parts):
            path = self.day.work / f"{its.type}-{its.day}-{number:05d}.parquet"
            found.append(await fetch(self.day.storage, self.day.normalized_bucket, part, path))
        return found

    async def raw(self) -> RawFacts:
        """The day's raw archive, read once."""
        if self._raw is None:
            day = self.day
            known = objects.Recorded(await self._rows("raw"), partial(self._rows_again, "raw"))
            gaps = [its.gap for its in await self.gaps()]
            self._raw = await scan(day.storage, day.raw_bucket, day.feed, day.day, day.parts, known, gaps)
        return self._raw

    async def _told_problems(self, seen: set[str]) -> list[dict[str, object]]:
        """What the capture itself could not use, of kinds that only the state of a connection shows."""
        day = self.day
        if day.registry is None:
            return []
        issues = await asyncio.to_thread(day.registry.issues, day.feed, day.day)
        told = [issue for issue in issues if issue.data_type == "raw" and issue.severity != "info"]
        return [
            {
                "key": "", "kind": issue.detail, "frames": issue.count, "connection": issue.connection,
                "example": issue.sample,
            }
            for issue in told
            if issue.issue_type in _TOLD and issue.detail not in seen
        ]  # fmt: skip

    async def gaps(self) -> list[KnownGap]:
        """The recorded gaps that touch the day, from both places that know them."""
        if self._gaps is None:
            day, stored = self.day, None
            if day.registry is not None:
                stored = await asyncio.to_thread(day.registry.gaps, day.feed, day.day)
            objects = await gap_objects(day.storage, day.raw_bucket, day.feed, day.day, day.day, stored, day.today)
            self._gaps = join_gaps(objects.gaps, stored, now_ns())
        return self._gaps

    async def rows_by_ticker(self, event_type: str, day: date | None = None) -> dict[str, int]:
        """How many rows of a type each market has; none when there are none."""
        on = day or self.day.day
        if (event_type, on) not in self._by_ticker:
            try:
                files = await self.files(event_type, on, make=day is None)
            except NotThere:
                files = []
            self._by_ticker[event_type, on] = await asyncio.to_thread(facts.rows_by_ticker, files)
        return self._by_ticker[event_type, on]

    async def _recorded(self, day: date) -> list[ObjectRecord]:
        if day not in self._objects:
            self._objects[day] = await asyncio.to_thread(self._registry().objects, self.day.feed, day)
        return self._objects[day]

    async def _rows(self, data_type: str) -> dict[str, ObjectRecord] | None:
        """The day's rows of the inventory by key; None when the database is away."""
        if self.day.registry is None:
            return None
        return {its.key: its for its in await self._recorded(self.day.day) if its.data_type == data_type}

    async def _rows_again(self, data_type: str, keys: Collection[str]) -> Mapping[str, ObjectRecord]:
        """The rows of objects that were there without one: of a day that is not over, the row comes after the object.

        What still has none is asked for twice, with a pause between; of an ended day nothing is asked again.
        """
        found: dict[str, ObjectRecord] = {}
        for seconds in (0.0, _LATER_S) if self.day.running else ():
            if seconds:
                await self.day.pause(seconds)
            self._objects.pop(self.day.day, None)
            found = await self._rows(data_type) or {}
            if found.keys() >= set(keys):
                break
        return {key: found[key] for key in keys if key in found}

    def _registry(self) -> Registry:
        if self.day.registry is None:
            raise NotThere("the database is away")
        return self.day.registry

    async def _gap_batch(self) -> Batch:
        return [facts.gap_rows(await self.gaps(), self.day.day)]

    async def _capture_batch(self) -> Batch:
        day, registry = self.day, self._registry()
        held = await asyncio.to_thread(all_rows, registry, day.feed)
        known = await asyncio.to_thread(facts_of, registry, day.feed, day.day, day.today, held)
        found = facts.capture_rows(known)
        if found.empty:
            raise NotThere("the inventory has nothing of the day")
        return [found]

    async def _market_batch(self) -> Batch:
        registry = self._registry()
        if not await asyncio.to_thread(registry.markets, self.day.feed, None, 1):
            raise NotThere("the security master has no market. Run: ssmd market sync")
        if self.day.database_url is not None:
            return Sql(self.day.database_url(), markets.QUERY.format(feed=check_feed(self.day.feed)))
        return await asyncio.to_thread(lambda: list(markets.market_pages(registry, self.day.feed)))

    async def _coverage_batch(self) -> Batch:
        day, registry = self.day, self._registry()
        heard: dict[str, int] = {}
        for event_type in HEARD_BATCHES:
            for ticker, count in (await self.rows_by_ticker(event_type)).items():
                heard[ticker] = heard.get(ticker, 0) + count
        if not heard:
            raise NotThere("no market was heard on the day")

        files = [file for kind in HEARD_BATCHES if await self.rows_by_ticker(kind) for file in await self.files(kind)]

        def make() -> pd.DataFrame:
            synced = day.synced() if day.running else None  # before the markets: a sync may end meanwhile
            known = (market for page in markets.heard_pages(registry, day.feed) for market in page)
            found = facts.coverage_rows(
                known, heard, lambda ticker: registry.market(day.feed, ticker) is not None, day.selects, day.day
            )
            if not found["listed"].any():
                raise NotThere("the security master knows none of these markets. Run: ssmd market sync")
            if day.running:
                facts.leave_out_new(found, files, synced)
            return found

        return [await asyncio.to_thread(make)]

    async def _object_batch(self, event_type: str) -> Batch:
        day = self.day
        known = objects.Recorded(await self._rows("normalized"), partial(self._rows_again, "normalized"))
        found = await objects.object_rows(day.storage, day.normalized_bucket, day.feed, event_type, day.day, known)
        if not found:
            raise NotThere(f"the normalized archive has no {event_type} of {day.day}")
        return [facts.frame(found, objects.COLUMNS)]

    async def _raw_trade_batch(self) -> Batch:
        if self.day.running:
            raise NotThere("the day is not over: the stream may be ahead of the raw archive, or behind it")
        raw = await self.raw()
        if not raw.objects:
            raise NotThere("the raw archive has nothing of the day")
        if not all(row["readable"] for row in raw.objects):
            raise NotThere("the raw archive cannot be read whole")
        found = understood.trade_rows(raw.trades, await self.rows_by_ticker("trade"))
        return [facts.frame(found, _RAW_COLUMNS["raw_trades"])]

    async def _volume_batch(self) -> Batch:
        day = self.day
        counts = await self._markets_of_trades()
        if not any(counts.values()):
            raise NotThere("the normalized archive has no trade of the day")
        if day.lister is None:
            raise NotThere(day.no_lister)
        files = await self.files("trade") if await self.rows_by_ticker("trade") else []
        if day.running and not files:
            raise NotThere("the day is not over: none of its trades is in the normalized archive yet")
        first_ns, last_ns = facts.captured((await self.raw()).spans.values(), day.day)
        if day.running:  # raw may be ahead; the stream is archived in its order, so that all before its end is there
            last_ns = min(last_ns, self._through["trade", day.day])
        gaps = [its.gap for its in await self.gaps()]
        try:
            async with day.lister() as lister:
                compared = await volume.volume_rows(
                    lister, day.parts.listed_trade, files, counts, (first_ns, last_ns), gaps, day.day
                )
        except (volume.NotAsked, TransientError, ConfigError) as error:
            raise NotThere(str(error)) from error
        return [compared]

    async def _markets_of_trades(self) -> dict[str, int]:
        """All markets heard on the day, and their trades, whoever knows of more: what is lost here is asked about."""
        day = self.day
        counts = dict.fromkeys((*await self.rows_by_ticker("orderbook"), *await self.rows_by_ticker("ticker")), 0)
        recorded = [] if day.registry is None else await self._recorded(day.day)
        prefix = layout.normalized_day_prefix(day.feed, "trade", day.day)
        stored = {}
        for record in recorded:
            if record.key.startswith(prefix) and isinstance(its := layout.parse_normalized(record.key), TickerObject):
                stored[its.ticker] = record.records
        for found in (await self.rows_by_ticker("trade"), (await self.raw()).trades, stored):
            for ticker, count in found.items():
                counts[ticker] = max(count, counts.get(ticker, 0))
        return counts

    async def _drift_batch(self) -> Batch:
        previous = await self._previous_day()
        figures, span = facts.object_figures(await self._recorded(self.day.day))
        before, before_span = facts.object_figures(await self._recorded(previous))
        if min(span, before_span) < facts.MIN_SPAN_NS:
            raise NotThere(f"less than a minute was captured of {self.day.day} or of {previous}")
        quotes, quotes_before = await self._quote_figures(None), await self._quote_figures(previous)
        if quotes and quotes_before:
            figures |= quotes
            before |= quotes_before
        ours = {kind: await self.rows_by_ticker(kind) for kind in HEARD_BATCHES}
        theirs = {kind: await self.rows_by_ticker(kind, previous) for kind in HEARD_BATCHES}
        both = [kind for kind in HEARD_BATCHES if theirs[kind]]
        figures |= facts.market_figures({kind: ours[kind] for kind in both})
        before |= facts.market_figures({kind: theirs[kind] for kind in both})
        return [facts.drift_rows(figures, before, previous)]

    async def _quote_figures(self, day: date | None) -> facts.Figures:
        """Of a day before this one only when its export is there: what is old is not made again for this."""
        try:
            files = await self.files("ticker", day, make=day is None)
        except NotThere:
            return {}
        return await asyncio.to_thread(facts.quote_figures, files)

    async def _previous_day(self) -> date:
        """The last day before this one of which there is raw data."""
        registry, last = self._registry(), self.day.day - timedelta(days=1)
        held = await asyncio.to_thread(registry.inventory, self.day.feed, BEGINNING, last)
        days = [row.day for row in held if row.data_type == "raw" and row.record_count]
        if not days:
            raise NotThere("there is no archived day before this one")
        return max(days)
