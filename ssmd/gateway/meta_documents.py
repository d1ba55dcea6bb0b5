"""The JSON documents of `/v1/meta/…`; /openapi.json is made from these types."""

from datetime import date, time
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, field

from ssmd.gateway.documents import Moment
from ssmd.registry.condition import Reason, Word

Day: TypeAlias = date
DataType: TypeAlias = Literal["raw", "normalized"]
DayStatus: TypeAlias = Literal["complete", "partial", "failed", "processing"]
Score: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Sha256: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """`stale`: the database is away, and this is what it said at `as_known`, at most an hour ago."""

    stale: bool = False
    as_known: Moment | None = None


class SelfLink(msgspec.Struct, frozen=True):
    """Where to read on."""

    self_: str = field(name="self")


class FeedLinks(msgspec.Struct, frozen=True):
    """The paths of a feed."""

    self_: str = field(name="self")
    calendar: str
    inventory: str
    gaps: str
    condition: str


class DayLinks(msgspec.Struct, frozen=True):
    """The paths of a day."""

    self_: str = field(name="self")
    condition: str
    gaps: str


class EnvironmentLinks(msgspec.Struct, frozen=True):
    """The paths of an environment."""

    self_: str = field(name="self")
    history: str


class FeedRow(msgspec.Struct, frozen=True):
    """A feed, and the version of it that holds (null: none does)."""

    name: str
    display_name: str | None
    description: str | None
    feed_type: str
    status: str
    version: str | None
    protocol: str | None
    endpoint: str | None
    links: FeedLinks = field(name="_links")


class FeedPage(Remembered, frozen=True, kw_only=True):
    """All feeds, by name."""

    feeds: list[FeedRow]


class FeedVersionDocument(msgspec.Struct, frozen=True):
    """How a feed is reached and what it can do, from `effective_from` up to and without `effective_to`.

    `known_from` and `known_to` tell since and until when ssmd took that for true.
    """

    version: str
    effective_from: Day
    effective_to: Day | None
    protocol: str
    endpoint: str
    rest_endpoint: str | None
    auth_method: str
    supports_orderbook: bool
    supports_trades: bool
    supports_historical: bool
    max_symbols_per_connection: int | None
    rate_limit_per_second: int | None
    parser_config: dict[str, Any] | None
    required_transport: list[str]
    known_from: Moment
    known_to: Moment | None


class CalendarDocument(Remembered, frozen=True, kw_only=True):
    """When a venue is open. No times: always. `pauses` are weekly, in `timezone`; `recorded`: is there a calendar?"""

    feed: str
    as_of: Day
    recorded: bool
    always_open: bool
    timezone: str | None
    open_time: time | None
    close_time: time | None
    holiday_calendar: str | None
    pauses: list[dict[str, str]]


class FeedDocument(Remembered, frozen=True, kw_only=True):
    """A feed as it was on a day, as it was known at a time; `current` is the version that held on it."""

    name: str
    display_name: str | None
    description: str | None
    feed_type: str
    status: str
    as_of: Day
    current: FeedVersionDocument | None
    versions: list[FeedVersionDocument]
    links: FeedLinks = field(name="_links")


class InventoryRowDocument(msgspec.Struct, frozen=True):
    """One day of one kind of data. Times are receive times.

    `quality_score` is that of the last verification or compaction, null when the day changed since. `known_from`: when
    the day was first recorded; `changed_since`: with `known_at`, something of it was recorded or judged later, and
    this is what is known today.
    """

    feed: str
    date: Day
    data_type: DataType
    schema_version: str | None
    storage_path: str
    status: DayStatus
    symbol_count: int | None
    record_count: int
    byte_size: int
    first_timestamp: Moment | None
    last_timestamp: Moment | None
    gap_count: int
    quality_score: Score | None
    verified_at: Moment | None
    known_from: Moment
    changed_since: bool
    links: DayLinks = field(name="_links")


class InventoryPage(Remembered, frozen=True, kw_only=True):
    """Rows by date, feed and kind."""

    from_: Day = field(name="from")
    to: Day
    inventory: list[InventoryRowDocument]
    next_cursor: str | None


class ObjectGroup(msgspec.Struct, frozen=True):
    """The objects of one kind and group (raw: trades, orderbook, …; normalized: an event type)."""

    data_type: DataType
    group: str
    objects: int
    records: int
    bytes: int


class InventoryDayDocument(Remembered, frozen=True, kw_only=True):
    """What is held of one day."""

    feed: str
    date: Day
    rows: list[InventoryRowDocument]
    objects: list[ObjectGroup]
    links: DayLinks = field(name="_links")


class GapRow(msgspec.Struct, frozen=True):
    """A time in which frames may be missing.

    `sid` null: all subscriptions of the connection. `ticker_count` null: all markets of the subscription; of more than
    a hundred `tickers` the first are shown. `resolved_at`: when it was filled from elsewhere.
    """

    from_: Moment = field(name="from")
    to: Moment
    seconds: float
    reason: str
    connection: str
    sid: int | None
    last_seq: int | None
    next_seq: int | None
    tickers: list[str] | None
    ticker_count: int | None
    recorded_at: Moment
    resolved_at: Moment | None
    notes: str | None


class GapPage(Remembered, frozen=True, kw_only=True):
    """Gaps that touch the time asked for, by start."""

    feed: str
    from_: Moment = field(name="from")
    to: Moment
    gaps: list[GapRow]
    next_cursor: str | None


class SchemaRow(msgspec.Struct, frozen=True):
    """A registered schema; `compatible_with` are the versions whose data it reads, besides its own."""

    name: str
    version: str
    format: str
    hash: Sha256
    status: str
    effective_from: Day
    deprecated_at: Day | None
    compatible_with: list[str]
    breaking_changes: str | None
    registered_at: Moment
    links: SelfLink = field(name="_links")


class SchemaPage(Remembered, frozen=True, kw_only=True):
    """Schemas, by name and number; with `as_of`, of each name the one that held on that day."""

    schemas: list[SchemaRow]


class SchemaDocument(Remembered, frozen=True, kw_only=True):
    """One version with its text. `holds`: is it the version of its name that holds on the day asked for (today)?"""

    name: str
    version: str
    format: str
    hash: Sha256
    status: str
    effective_from: Day
    deprecated_at: Day | None
    compatible_with: list[str]
    breaking_changes: str | None
    registered_at: Moment
    as_of: Day
    holds: bool
    text: str


class EnvironmentRow(msgspec.Struct, frozen=True):
    """An environment, and the version of it in force (null: none is)."""

    name: str
    status: str
    description: str | None
    version: int | None
    versions: int
    deployed_at: Moment | None
    deployed_by: str | None
    links: EnvironmentLinks = field(name="_links")


class EnvironmentPage(Remembered, frozen=True, kw_only=True):
    """All environments, by name."""

    environments: list[EnvironmentRow]


class EnvironmentVersionRow(msgspec.Struct, frozen=True):
    """A version; it held from `valid_from` up to `valid_to` (null: it still does, or never did)."""

    version: int
    config_hash: Sha256
    created_at: Moment
    created_by: str | None
    deployed_at: Moment | None
    deployed_by: str | None
    git_commit: str | None
    valid_from: Moment | None
    valid_to: Moment | None


class DeploymentRow(msgspec.Struct, frozen=True):
    """A line of the deployment log. `error` is shown to keys with the scope admin: it may name servers."""

    id: int
    version: int | None
    action: str
    status: str
    started_at: Moment
    completed_at: Moment | None
    trigger: str
    triggered_by: str | None
    error: str | None


class EnvironmentHistory(Remembered, frozen=True, kw_only=True):
    """All versions, the first one first, and the deployments, the latest first (at most a thousand of each)."""

    environment: str
    versions: list[EnvironmentVersionRow]
    deployments: list[DeploymentRow]


class EnvironmentDocument(Remembered, frozen=True, kw_only=True):
    """An environment's version with its text; passwords in it are masked, values of keys are never in it."""

    name: str
    version: int
    config_hash: Sha256
    config_yaml: str
    created_at: Moment
    created_by: str | None
    deployed_at: Moment | None
    deployed_by: str | None
    git_commit: str | None
    valid_from: Moment | None
    valid_to: Moment | None
    links: EnvironmentLinks = field(name="_links")


class SyncDocument(msgspec.Struct, frozen=True):
    """A sync of the security master: what it read, and what was new or changed."""

    kind: str
    status: str
    started_at: Moment
    completed_at: Moment | None
    series: int
    events: int
    markets: int
    open_markets: int
    inserted: int
    changed: int


class SyncPage(Remembered, frozen=True, kw_only=True):
    """Syncs, the latest first."""

    feed: str
    syncs: list[SyncDocument]


class DayConditionRow(msgspec.Struct, frozen=True):
    """A day's condition. `verified`: its objects were read back and agree with the inventory.

    available: nothing is known to be wrong · degraded: something is, see the reasons · missing: there is no data ·
    open: today, still being recorded · not_yet: a day to come. Reasons of weight `bad` made it so; a `note` did not.
    """

    date: Day
    condition: Word
    verified: bool
    quality_score: Score | None
    record_count: int
    reasons: list[Reason]


class ConditionDocument(Remembered, frozen=True, kw_only=True):
    """The condition of each day of a range, and how many days have which.

    `condition` is the one of the range: the worst of its past days (missing only when all of them are), else open or
    not_yet.
    """

    feed: str
    from_: Day = field(name="from")
    to: Day
    condition: Word
    counts: dict[str, int]
    first_day: Day | None
    last_day: Day | None
    days: list[DayConditionRow]
