"""The tables that `sql/` creates, as SQLAlchemy knows them; a test compares them with a migrated database."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = sa.MetaData()

_TIMESTAMP = sa.TIMESTAMP(timezone=True)
_NOW = sa.text("now()")


def _id(kind: type[sa.Integer | sa.BigInteger] = sa.BigInteger) -> sa.Column[int]:
    return sa.Column("id", kind, sa.Identity(always=True), primary_key=True)


def _feed_id() -> sa.Column[int]:
    return sa.Column("feed_id", sa.Integer, sa.ForeignKey("feeds.id"), nullable=False)


def _seconds(name: str, source: str) -> sa.Column[object]:
    """A timestamp that the database makes from nanoseconds."""
    return sa.Column(name, _TIMESTAMP, sa.Computed(f"to_timestamp({source} / 1000000000.0)", persisted=True))


feeds = sa.Table(
    "feeds",
    metadata,
    _id(sa.Integer),
    sa.Column("name", sa.String(32), nullable=False, unique=True),
    sa.Column("display_name", sa.String(128)),
    sa.Column("feed_type", sa.String(32), nullable=False),
    sa.Column("status", sa.String(16), nullable=False, server_default="active"),
    sa.Column("created_at", _TIMESTAMP, nullable=False, server_default=_NOW),
    sa.Column("updated_at", _TIMESTAMP, nullable=False, server_default=_NOW),
)

feed_versions = sa.Table(
    "feed_versions",
    metadata,
    _id(sa.Integer),
    _feed_id(),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("effective_from", sa.Date, nullable=False),
    sa.Column("effective_to", sa.Date),
    sa.Column("protocol", sa.String(32), nullable=False),
    sa.Column("endpoint_template", sa.Text, nullable=False),
    sa.Column("rest_endpoint", sa.Text),
    sa.Column("auth_method", sa.String(32)),
    sa.Column("secret_ref", sa.String(128)),
    sa.Column("supports_orderbook", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("supports_trades", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("supports_historical", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("max_symbols_per_connection", sa.Integer),
    sa.Column("rate_limit_per_second", sa.Integer),
    sa.Column("parser_config", JSONB(none_as_null=True)),
    sa.Column("required_transport", ARRAY(sa.String(32))),
    sa.UniqueConstraint("feed_id", "effective_from", name="feed_versions_feed_id_effective_from_key"),
)

feed_calendars = sa.Table(
    "feed_calendars",
    metadata,
    _id(sa.Integer),
    _feed_id(),
    sa.Column("effective_from", sa.Date, nullable=False),
    sa.Column("effective_to", sa.Date),
    sa.Column("timezone", sa.String(64)),
    sa.Column("open_time", sa.Time),
    sa.Column("close_time", sa.Time),
    sa.Column("holiday_calendar", sa.String(64)),
    sa.Column("pauses", JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")),
    sa.UniqueConstraint("feed_id", "effective_from", name="feed_calendars_feed_id_effective_from_key"),
)

data_inventory = sa.Table(
    "data_inventory",
    metadata,
    _id(),
    _feed_id(),
    sa.Column("data_type", sa.String(32), nullable=False),
    sa.Column("date", sa.Date, nullable=False),
    sa.Column("storage_path", sa.Text, nullable=False),
    sa.Column("schema_version", sa.String(32)),
    sa.Column("symbol_count", sa.Integer),
    sa.Column("record_count", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("byte_size", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("first_ns", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("last_ns", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    _seconds("first_timestamp", "first_ns"),
    _seconds("last_timestamp", "last_ns"),
    sa.Column("status", sa.String(16), nullable=False, server_default="processing"),
    sa.Column("gap_count", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("quality_score", sa.Numeric(3, 2)),
    sa.Column("connector_version", sa.String(32)),
    sa.Column("processor_version", sa.String(32)),
    sa.Column("processed_at", _TIMESTAMP),
    sa.UniqueConstraint(
        "feed_id",
        "data_type",
        "date",
        "schema_version",
        name="data_inventory_day_key",
        postgresql_nulls_not_distinct=True,
    ),
    sa.Index("data_inventory_date_idx", "date"),
)

data_objects = sa.Table(
    "data_objects",
    metadata,
    _id(),
    sa.Column("inventory_id", sa.BigInteger, sa.ForeignKey("data_inventory.id"), nullable=False),
    sa.Column("bucket", sa.String(63, collation="C"), nullable=False),
    sa.Column("key", sa.Text(collation="C"), nullable=False),
    sa.Column("group_name", sa.String(32), nullable=False),
    sa.Column("sha256", sa.CHAR(64), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Column("symbols", sa.Integer),
    sa.Column("first_ns", sa.BigInteger, nullable=False),
    sa.Column("last_ns", sa.BigInteger, nullable=False),
    _seconds("first_timestamp", "first_ns"),
    _seconds("last_timestamp", "last_ns"),
    sa.Column("writer_version", sa.String(64), nullable=False, server_default=""),
    sa.Column("created_at", _TIMESTAMP, nullable=False, server_default=_NOW),
    sa.UniqueConstraint("bucket", "key", name="data_objects_bucket_key_key"),
    sa.Index("data_objects_inventory_id_idx", "inventory_id"),
)

data_gaps = sa.Table(
    "data_gaps",
    metadata,
    _id(),
    _feed_id(),
    sa.Column("inventory_id", sa.BigInteger, sa.ForeignKey("data_inventory.id")),
    sa.Column("connection", sa.String(128), nullable=False),
    sa.Column("sid", sa.BigInteger),
    sa.Column("from_ns", sa.BigInteger, nullable=False),
    sa.Column("to_ns", sa.BigInteger, nullable=False),
    _seconds("gap_start", "from_ns"),
    _seconds("gap_end", "to_ns"),
    sa.Column("reason", sa.String(32), nullable=False),
    sa.Column("gap_type", sa.String(32), sa.Computed("reason", persisted=True)),
    sa.Column("last_seq", sa.BigInteger),
    sa.Column("next_seq", sa.BigInteger),
    sa.Column("tickers", ARRAY(sa.Text)),
    sa.Column("resolved", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("resolved_at", _TIMESTAMP),
    sa.Column("notes", sa.Text),
    sa.Column("created_at", _TIMESTAMP, nullable=False, server_default=_NOW),
    sa.UniqueConstraint(
        "feed_id",
        "connection",
        "sid",
        "from_ns",
        "reason",
        name="data_gaps_identity_key",
        postgresql_nulls_not_distinct=True,
    ),
    sa.Index("data_gaps_time_idx", "feed_id", "from_ns", "to_ns"),
)

data_quality_issues = sa.Table(
    "data_quality_issues",
    metadata,
    _id(),
    _feed_id(),
    sa.Column("inventory_id", sa.BigInteger, sa.ForeignKey("data_inventory.id")),
    sa.Column("day", sa.Date, nullable=False),
    sa.Column("data_type", sa.String(32), nullable=False),
    sa.Column("issue_type", sa.String(64), nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("connection", sa.String(128), nullable=False, server_default=""),
    sa.Column("count", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    sa.Column("sample_data", JSONB(none_as_null=True)),
    sa.Column("detected_at", _TIMESTAMP, nullable=False, server_default=_NOW),
    sa.UniqueConstraint(
        "feed_id", "day", "data_type", "issue_type", "connection", name="data_quality_issues_identity_key"
    ),
)

markets = sa.Table(
    "markets",
    metadata,
    _id(),
    _feed_id(),
    sa.Column("ticker", sa.String(128, collation="C"), nullable=False),
    sa.Column("event_ticker", sa.String(128, collation="C"), nullable=False, server_default=""),
    sa.Column("kalshi_id", sa.String(128)),
    sa.Column("title", sa.Text, nullable=False, server_default=""),
    sa.Column("category", sa.String(128)),
    sa.Column("status", sa.String(32), nullable=False, server_default="active"),
    sa.Column("open_time", _TIMESTAMP),
    sa.Column("close_time", _TIMESTAMP),
    sa.Column("expiration_time", _TIMESTAMP),
    sa.Column("settlement_time", _TIMESTAMP),
    sa.Column("result", sa.String(32)),
    sa.Column("settled_at", _TIMESTAMP),
    sa.Column("created_at", _TIMESTAMP, nullable=False, server_default=_NOW),
    sa.Column("updated_at", _TIMESTAMP, nullable=False, server_default=_NOW),
    sa.Column("raw_metadata", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    sa.UniqueConstraint("feed_id", "ticker", name="markets_feed_id_ticker_key"),
    sa.Index("markets_status_idx", "feed_id", "status", "ticker"),
    sa.Index("markets_event_ticker_idx", "feed_id", "event_ticker"),
    sa.Index("markets_expiration_idx", "expiration_time"),
)
