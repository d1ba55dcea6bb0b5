"""What services write to and ask of the metadata database; synchronous, called through `asyncio.to_thread`.

Two implementations: `postgres.PostgresRegistry` and, for tests and a stack without a database, `memory.MemoryRegistry`.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Protocol

import msgspec

from ssmd.errors import ConfigError, Unavailable
from ssmd.market.events import Gap


class RegistryUnavailable(Unavailable):
    """The database did not answer."""


class RegistryRefused(ConfigError):
    """The database answered, and refuses the login or has not the tables of this version.

    For a command this is the end; a running service tries again (`patient.PatientRegistry`).
    """


class NotKnown(ConfigError):
    """The registry has nothing by a name, or had not at the time that was asked for. `near` is the nearest name."""

    def __init__(self, message: str, hint: str = "", near: str = "") -> None:
        super().__init__(message, hint)
        self.near = near


class ObjectRecord(msgspec.Struct, frozen=True):
    """One archived object, as its manifest describes it. Times are receive times in nanoseconds."""

    bucket: str
    key: str
    data_type: str  # 'raw' or 'normalized'
    group: str  # raw: one of feeds.interface.GROUPS; normalized: an event type
    day: date
    sha256: str
    bytes: int
    records: int
    first_ns: int
    last_ns: int
    schema_version: str | None = None  # None for raw
    symbols: int | None = None
    writer_version: str = ""


class Issue(msgspec.Struct, frozen=True):
    """A counted kind of problem on one day; `sample` is at most 1 KiB of the offending bytes, made printable.

    `issue_type` is one of `values.ISSUE_TYPES`, `detail` the finer word of who found it (see `values.issue_type_of`).
    """

    feed: str
    day: date
    data_type: str
    issue_type: str
    severity: str  # 'error', 'warning', 'info': what is for information does not lower a day's score
    count: int
    sample: str = ""
    connection: str = ""
    detail: str = ""


class InventoryRow(msgspec.Struct, frozen=True):
    """One day of one kind of data (a row of `data_inventory`)."""

    feed: str
    data_type: str
    day: date
    storage_path: str
    schema_version: str | None
    symbol_count: int | None
    record_count: int
    byte_size: int
    first_ns: int
    last_ns: int
    status: str  # 'processing', 'complete', 'partial', 'failed'
    gap_count: int
    quality_score: float | None = None  # 0.00 to 1.00 as last stored; None: the day has changed since, or never was
    verified_at: str | None = None  # when the status was given; None while the day is processing


class Market(msgspec.Struct, frozen=True):
    """A market as the exchange's REST API lists it; `raw` is the whole object. Times are the exchange's own text."""

    ticker: str
    event_ticker: str
    title: str
    status: str  # the exchange's word: active, closed, determined, finalized, ...
    open_time: str | None
    close_time: str | None
    result: str
    raw: dict[str, Any]
    series_ticker: str = ""
    category: str = ""
    expiration_time: str | None = None
    settlement_time: str | None = None  # when settlement is expected
    settled_at: str | None = None
    settlement_value: str = ""
    updated_time: str | None = None  # the exchange's time of the last change that is not trading
    listed: bool = True  # False: the exchange listed it once, and no longer knows it


class HeardMarket(msgspec.Struct, frozen=True):
    """An active, listed market, and when frames of it came first and last (None: never). Times are UTC and aware."""

    ticker: str
    open_time: datetime | None
    known_from: datetime
    first_heard: datetime | None
    last_heard: datetime | None


class Series(msgspec.Struct, frozen=True):
    """A series of events as the exchange lists it."""

    ticker: str
    title: str
    category: str
    updated_time: str | None
    raw: dict[str, Any]


class ListedEvent(msgspec.Struct, frozen=True):
    """An event (a question with one or more markets) as the exchange lists it."""

    ticker: str
    series_ticker: str
    title: str
    category: str
    updated_time: str | None
    raw: dict[str, Any]


class MarketFilter(msgspec.Struct, frozen=True):
    """Which markets are looked for: those that belong to all that is given.

    `words` must all occur, and of `any_of` at least one, anywhere in title, ticker, event or series, in any case.
    `close_after` is inclusive, `close_before` exclusive; both are aware. `listed` None: also what has vanished.
    `strikes`: with the members of the raw objects that say the strike (`STRIKE_FIELDS`), else with none.
    """

    status: str | None = None
    category: str | None = None
    series_ticker: str | None = None
    event_ticker: str | None = None
    result: str | None = None
    words: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    close_after: datetime | None = None
    close_before: datetime | None = None
    listed: bool | None = True
    strikes: bool = False


class MarketWords(msgspec.Struct, frozen=True):
    """The exchange's own words that its markets have, each once and sorted; those for nothing are left out."""

    statuses: tuple[str, ...]
    categories: tuple[str, ...]


STRIKE_FIELDS = ("strike_type", "floor_strike", "cap_strike")


class FeedVersion(msgspec.Struct, frozen=True):
    """How to reach a feed on a date."""

    feed: str
    version: str
    ws: str
    rest: str


class Registry(Protocol):
    """The metadata of all feeds. Every method raises RegistryUnavailable when the database is away."""

    def feed_version(self, feed: str, on: date) -> FeedVersion:
        """The feed's endpoints on a day; ConfigError with near misses when the feed is unknown."""
        ...

    def record_objects(self, feed: str, objects: Sequence[ObjectRecord]) -> None:
        """Add objects and recount their days' inventory rows, in one transaction.

        An object already known is left as it is. A day that changes is 'processing' again, without a score.
        """
        ...

    def replace_objects(self, feed: str, remove_keys: Sequence[tuple[str, str]], add: Sequence[ObjectRecord]) -> None:
        """Compaction: forget (bucket, key) objects and add others, in one transaction."""
        ...

    def record_gaps(self, gaps: Sequence[Gap]) -> None:
        """Add gaps (idempotent: feed, connection, sid, from, reason identify one).

        A day that gains a gap loses its score, and is no longer 'complete' but 'partial'.
        """
        ...

    def record_issues(self, issues: Sequence[Issue], batch: str | None = None) -> None:
        """Add to the counts of (feed, day, data type, issue type, detail, connection).

        `batch` is a UUID that names these issues: for a week, the same batch again changes nothing.
        """
        ...

    def replace_issues(self, feed: str, day: date, data_type: str, issues: Sequence[Issue]) -> None:
        """Put these issues in the place of all that the day has of this data type; repeating it changes nothing."""
        ...

    def objects(self, feed: str, day: date, data_type: str | None = None) -> list[ObjectRecord]:
        """The objects of a day, sorted by bucket and key."""
        ...

    def inventory(self, feed: str, first: date, last: date) -> list[InventoryRow]:
        """The day rows, sorted by day and data type."""
        ...

    def set_day_condition(
        self, feed: str, day: date, data_type: str, status: str, quality_score: float | None = None
    ) -> None:
        """Store the verdict on a day: 'complete', 'partial', 'failed' (or 'processing': none yet), and its score."""
        ...

    def set_day_score(self, feed: str, day: date, data_type: str, quality_score: float | None) -> None:
        """Store the score of a day alone; its status stays, and when that was given."""
        ...

    def gaps(self, feed: str, day: date, last: date | None = None) -> list[Gap]:
        """Gaps that touch a UTC day, or any of the days up to `last`, each once, sorted by start."""
        ...

    def issues(self, feed: str, day: date) -> list[Issue]:
        """Counted problems of a day."""
        ...

    def upsert_markets(self, feed: str, markets: Sequence[Market], volatile: frozenset[str] = frozenset()) -> int:
        """Insert or update markets by (feed, ticker), with their history; how many were new or changed.

        Fields of the raw objects that are `volatile` change with trading: alone, they change nothing here. Empty
        series, category and updated time leave what is known. A settlement changes by better evidence only.
        A market whose ticker cannot be stored (empty, longer than 128 characters) is left out, logged and counted.
        """
        ...

    def markets(self, feed: str, status: str | None = None, limit: int = 1000, after: str = "") -> list[Market]:
        """Listed markets sorted by ticker, from the first after `after`."""
        ...

    def market(self, feed: str, ticker: str) -> Market | None:
        """One market, `listed` or not."""
        ...

    def unknown_tickers(self, feed: str, tickers: Sequence[str]) -> list[str]:
        """Those of `tickers` that are no market of the feed, listed or not, in their order."""
        ...

    def find_markets(self, feed: str, wanted: MarketFilter, limit: int = 1000, after: str = "") -> list[Market]:
        """The markets that `wanted` asks for, sorted by ticker, from the first after `after`; `raw` is left empty."""
        ...

    def market_words(self, feed: str) -> MarketWords:
        """The statuses and categories that markets of the feed have."""
        ...

    def record_heard(self, feed: str, tickers: Sequence[str], at: datetime) -> None:
        """A connector received frames of these markets; unknown ones are passed over. `at` is aware.

        Cheap to repeat: a market heard less than 60 s before is not written again.
        """
        ...

    def never_heard(self, feed: str, limit: int = 1000) -> list[Market]:
        """Active, listed markets from which no frame was ever received, sorted by ticker."""
        ...

    def heard_markets(self, feed: str, limit: int = 1000, after: str = "") -> list[HeardMarket]:
        """Active, listed markets sorted by ticker, from the first after `after`, heard or not."""
        ...

    def ping(self) -> None:
        """Return when the database answers."""
        ...

    def close(self) -> None:
        """Close the pool."""
        ...
