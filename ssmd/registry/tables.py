"""The tables that `sql/` creates, as SQLAlchemy knows them; a test compares them with a migrated database."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, UUID

metadata = sa.MetaData()

_TIMESTAMP = sa.TIMESTAMP(timezone=True)
_NOW = sa.text("now()")


def _id(kind: type[sa.Integer | sa.BigInteger] = sa.BigInteger) -> sa.Column[int]:
    return sa.Column("id", kind, sa.Identity(always=True), primary_key=True)


def _feed_id() -> sa.Column[int]:
    return sa.Column("feed_id", sa.Integer, sa.ForeignKey("feeds.id"), nullable=False)


def _time(name: str) -> sa.Column[object]:
    """A time that is there from the start: when the row was made, unless it says otherwise."""
    return sa.Column(name, _TIMESTAMP, nullable=False, server_default=_NOW)


def _json(name: str, empty: str) -> sa.Column[object]:
    return sa.Column(name, JSONB, nullable=False, server_default=sa.text(f"'{empty}'::jsonb"))


def _seconds(name: str, source: str) -> sa.Column[object]:
    """A timestamp that the database makes from nanoseconds."""
    return sa.Column(name, _TIMESTAMP, sa.Computed(f"to_timestamp({source} / 1000000000.0)", persisted=True))


feeds = sa.Table(
    "feeds",
    metadata,
    _id(sa.Integer),
    sa.Column("name", sa.String(32), nullable=False, unique=True),
    sa.Column("display_name", sa.String(128)),
    sa.Column("description", sa.String(256)),
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
    _time("known_from"),
    sa.Column("known_to", _TIMESTAMP),
    sa.UniqueConstraint(
        "feed_id",
        "effective_from",
        "known_to",
        name="feed_versions_feed_id_effective_from_key",
        postgresql_nulls_not_distinct=True,
    ),
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
    _time("known_from"),
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
    sa.Column("detail", sa.String(64), nullable=False, server_default=""),
    sa.UniqueConstraint(
        "feed_id",
        "day",
        "data_type",
        "issue_type",
        "detail",
        "connection",
        name="data_quality_issues_identity_key",
    ),
)

data_quality_batches = sa.Table(
    "data_quality_batches",
    metadata,
    sa.Column("batch", UUID(as_uuid=True), primary_key=True),
    sa.Column("recorded_at", _TIMESTAMP, nullable=False, server_default=_NOW),
    sa.Index("data_quality_batches_recorded_at_idx", "recorded_at"),
)

markets = sa.Table(
    "markets",
    metadata,
    _id(),
    _feed_id(),
    sa.Column("ticker", sa.String(128, collation="C"), nullable=False),
    sa.Column("event_ticker", sa.String(128, collation="C"), nullable=False, server_default=""),
    sa.Column("series_ticker", sa.String(128, collation="C"), nullable=False, server_default=""),
    sa.Column("kalshi_id", sa.String(128)),
    sa.Column("title", sa.Text, nullable=False, server_default=""),
    sa.Column("category", sa.String(128)),
    sa.Column("status", sa.String(32), nullable=False, server_default="active"),
    sa.Column("open_time", _TIMESTAMP),
    sa.Column("close_time", _TIMESTAMP),
    sa.Column("expiration_time", _TIMESTAMP),
    sa.Column("settlement_time", _TIMESTAMP),
    sa.Column("result", sa.String(32)),
    sa.Column("result_evidence", sa.String(16)),
    sa.Column("settlement_value", sa.String(32)),
    sa.Column("settlement_kept", JSONB(none_as_null=True)),
    sa.Column("settled_at", _TIMESTAMP),
    sa.Column("source_updated_at", _TIMESTAMP),
    sa.Column("listed_at", _TIMESTAMP),
    sa.Column("metadata_hash", sa.CHAR(32)),
    _time("observed_at"),
    _time("known_from"),
    sa.Column("known_to", _TIMESTAMP),
    sa.Column("created_at", _TIMESTAMP, nullable=False, server_default=_NOW),
    sa.Column("updated_at", _TIMESTAMP, nullable=False, server_default=_NOW),
    sa.Column("raw_metadata", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
    sa.UniqueConstraint("feed_id", "ticker", name="markets_feed_id_ticker_key"),
    sa.Index("idx_markets_status", "feed_id", "status", "ticker"),
    sa.Index("markets_event_ticker_idx", "feed_id", "event_ticker"),
    sa.Index("idx_markets_ticker", "ticker"),
    sa.Index("idx_markets_series", "feed_id", "series_ticker", "ticker"),
    sa.Index("idx_markets_category", "feed_id", "category", "ticker"),
    sa.Index("idx_markets_expiration", "expiration_time"),
)

market_series = sa.Table(
    "market_series",
    metadata,
    _id(),
    _feed_id(),
    sa.Column("ticker", sa.String(128, collation="C"), nullable=False),
    sa.Column("title", sa.Text, nullable=False, server_default=""),
    sa.Column("category", sa.String(128)),
    _time("known_from"),
    _time("updated_at"),
    sa.Column("source_updated_at", _TIMESTAMP),
    _json("raw_metadata", "{}"),
    sa.UniqueConstraint("feed_id", "ticker", name="market_series_feed_id_ticker_key"),
)

market_events = sa.Table(
    "market_events",
    metadata,
    _id(),
    _feed_id(),
    sa.Column("ticker", sa.String(128, collation="C"), nullable=False),
    sa.Column("series_ticker", sa.String(128, collation="C"), nullable=False, server_default=""),
    sa.Column("title", sa.Text, nullable=False, server_default=""),
    sa.Column("category", sa.String(128)),
    _time("known_from"),
    _time("updated_at"),
    sa.Column("source_updated_at", _TIMESTAMP),
    _json("raw_metadata", "{}"),
    sa.UniqueConstraint("feed_id", "ticker", name="market_events_feed_id_ticker_key"),
    sa.Index("market_events_series_ticker_idx", "feed_id", "series_ticker"),
)

market_history = sa.Table(
    "market_history",
    metadata,
    _id(),
    sa.Column("market_id", sa.BigInteger, sa.ForeignKey("markets.id"), nullable=False),
    sa.Column("field_name", sa.String(64), nullable=False),
    sa.Column("old_value", sa.Text),
    sa.Column("new_value", sa.Text),
    _time("changed_at"),
    _time("known_from"),
    sa.Column("known_to", _TIMESTAMP),
    sa.Column("evidence", sa.String(16)),
    sa.Index("idx_market_history_market", "market_id", "field_name", "changed_at"),
    sa.Index("idx_market_history_known", "known_from"),
)

market_syncs = sa.Table(
    "market_syncs",
    metadata,
    _id(),
    _feed_id(),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("started_at", _TIMESTAMP, nullable=False),
    sa.Column("completed_at", _TIMESTAMP),
    *(
        sa.Column(name, sa.Integer, nullable=False, server_default=sa.text("0"))
        for name in ("series", "events", "markets", "open_markets", "inserted", "changed")
    ),
    sa.Column("accepted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("updated_until", _TIMESTAMP),
    sa.Column("settled_until", _TIMESTAMP),
    sa.Column("error", sa.Text),
    sa.Index("market_syncs_feed_idx", "feed_id", "started_at"),
    sa.Index("market_syncs_running_idx", "feed_id", unique=True, postgresql_where=sa.text("status = 'running'")),
)

market_volatile = sa.Table(
    "market_volatile",
    metadata,
    sa.Column("feed_id", sa.Integer, sa.ForeignKey("feeds.id"), primary_key=True, autoincrement=False),
    sa.Column("fields", ARRAY(sa.Text), nullable=False),
)

market_journal = sa.Table(
    "market_journal",
    metadata,
    sa.Column("feed_id", sa.Integer, sa.ForeignKey("feeds.id"), primary_key=True, autoincrement=False),
    sa.Column("last_market_id", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("last_history_id", sa.BigInteger, nullable=False, server_default=sa.text("0")),
)

market_coverage = sa.Table(
    "market_coverage",
    metadata,
    sa.Column("market_id", sa.BigInteger, sa.ForeignKey("markets.id"), primary_key=True, autoincrement=False),
    sa.Column("first_heard_at", _TIMESTAMP, nullable=False),
    sa.Column("last_heard_at", _TIMESTAMP, nullable=False),
)

agent_feedback = sa.Table(
    "agent_feedback",
    metadata,
    _id(),
    sa.Column("agent_id", sa.String(64)),
    sa.Column("ticker", sa.String(128)),
    sa.Column("issue_type", sa.String(32), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("timestamp", _TIMESTAMP),
    sa.Column("evidence", JSONB(none_as_null=True)),
    sa.Column("status", sa.String(16), nullable=False, server_default="open"),
    sa.Column("priority", sa.String(16)),
    sa.Column("assigned_to", sa.String(64)),
    sa.Column("resolution", sa.Text),
    sa.Column("resolved_at", _TIMESTAMP),
    _time("created_at"),
    sa.Index("idx_agent_feedback_status", "status"),
    sa.Index("idx_agent_feedback_ticker", "ticker"),
)

schema_versions = sa.Table(
    "schema_versions",
    metadata,
    _id(sa.Integer),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("format", sa.String(32), nullable=False, server_default="capnp"),
    sa.Column("schema_definition", sa.Text, nullable=False),
    sa.Column("schema_hash", sa.String(64), nullable=False),
    sa.Column("status", sa.String(16), nullable=False, server_default="active"),
    sa.Column("effective_from", sa.Date, nullable=False),
    sa.Column("deprecated_at", sa.Date),
    _json("compatible_with", "[]"),
    sa.Column("breaking_changes", sa.Text),
    _time("created_at"),
    sa.UniqueConstraint("name", "version", name="schema_versions_name_version_key"),
)

schema_migrations = sa.Table(
    "schema_migrations",
    metadata,
    _id(sa.Integer),
    sa.Column("from_version_id", sa.Integer, sa.ForeignKey("schema_versions.id"), nullable=False),
    sa.Column("to_version_id", sa.Integer, sa.ForeignKey("schema_versions.id"), nullable=False),
    sa.Column("migration_type", sa.String(32), nullable=False),
    sa.Column("migration_script", sa.Text),
    sa.Column("executed_at", _TIMESTAMP),
    sa.Column("executed_by", sa.String(128)),
    sa.Column("status", sa.String(16), nullable=False, server_default="pending"),
    sa.UniqueConstraint("from_version_id", "to_version_id", name="schema_migrations_versions_key"),
)

environments = sa.Table(
    "environments",
    metadata,
    _id(sa.Integer),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("description", sa.Text),
    sa.Column("status", sa.String(16), nullable=False, server_default="active"),
    _time("created_at"),
)

environment_versions = sa.Table(
    "environment_versions",
    metadata,
    _id(sa.Integer),
    sa.Column("environment_id", sa.Integer, sa.ForeignKey("environments.id"), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("config_yaml", sa.Text, nullable=False),
    sa.Column("config_hash", sa.String(64), nullable=False),
    _time("created_at"),
    sa.Column("created_by", sa.String(128)),
    sa.Column("deployed_at", _TIMESTAMP),
    sa.Column("deployed_by", sa.String(128)),
    sa.Column("git_commit", sa.String(40)),
    sa.Column("valid_from", _TIMESTAMP),
    sa.Column("valid_to", _TIMESTAMP),
    sa.UniqueConstraint("environment_id", "version", name="environment_versions_environment_id_version_key"),
    sa.Index(
        "environment_versions_current_key",
        "environment_id",
        unique=True,
        postgresql_where=sa.text("valid_from IS NOT NULL AND valid_to IS NULL"),
    ),
)

deployment_log = sa.Table(
    "deployment_log",
    metadata,
    _id(),
    sa.Column("environment_id", sa.Integer, sa.ForeignKey("environments.id"), nullable=False),
    sa.Column("environment_version_id", sa.Integer, sa.ForeignKey("environment_versions.id")),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    _time("started_at"),
    sa.Column("completed_at", _TIMESTAMP),
    sa.Column("error_message", sa.Text),
    sa.Column("trigger", sa.String(32), nullable=False, server_default="manual"),
    sa.Column("triggered_by", sa.String(128)),
    sa.Index("idx_deployment_log_environment", "environment_id", "started_at"),
    sa.Index("idx_deployment_log_version", "environment_version_id", "started_at"),
)

keys = sa.Table(
    "keys",
    metadata,
    _id(sa.Integer),
    sa.Column("environment_id", sa.Integer, sa.ForeignKey("environments.id"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("key_type", sa.String(32), nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("required", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("fields", JSONB, nullable=False),
    sa.Column("rotation_days", sa.Integer),
    sa.Column("status", sa.String(16), nullable=False, server_default="not_set"),
    sa.Column("sealed_secret_ref", sa.String(256)),
    sa.Column("last_rotated", _TIMESTAMP),
    sa.Column("expires_at", _TIMESTAMP),
    _time("created_at"),
    _time("updated_at"),
    sa.UniqueConstraint("environment_id", "name", name="keys_environment_id_name_key"),
    sa.Index("idx_keys_environment", "environment_id"),
)

key_audit_log = sa.Table(
    "key_audit_log",
    metadata,
    _id(),
    sa.Column("key_id", sa.Integer, sa.ForeignKey("keys.id"), nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("actor", sa.String(128), nullable=False),
    sa.Column("details", JSONB(none_as_null=True)),
    _time("created_at"),
    sa.Column("event_id", UUID, nullable=False, unique=True, server_default=sa.func.gen_random_uuid()),
    sa.Index("idx_key_audit_key_id", "key_id"),
    sa.Index("idx_key_audit_created", "created_at"),
)

client_keys = sa.Table(
    "client_keys",
    metadata,
    sa.Column("id", sa.CHAR(8), primary_key=True),
    sa.Column("key_sha256", BYTEA, nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False),
    _time("created_at"),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("expires_at", _TIMESTAMP),
    sa.Column("revoked_at", _TIMESTAMP),
    sa.Column("revoked_by", sa.String(128)),
    sa.Column("last_used_at", _TIMESTAMP),
)
