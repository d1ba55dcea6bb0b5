"""Markets as exchanges list them, their history, and what agents report about them."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from ssmd.registry.tables.columns import NOW, TIMESTAMP, feed_id, json, metadata, row_id, time

markets = sa.Table(
    "markets",
    metadata,
    row_id(),
    feed_id(),
    sa.Column("ticker", sa.String(128, collation="C"), nullable=False),
    sa.Column("event_ticker", sa.String(128, collation="C"), nullable=False, server_default=""),
    sa.Column("series_ticker", sa.String(128, collation="C"), nullable=False, server_default=""),
    sa.Column("kalshi_id", sa.String(128)),
    sa.Column("title", sa.Text, nullable=False, server_default=""),
    sa.Column("category", sa.String(128)),
    sa.Column("status", sa.String(32), nullable=False, server_default="active"),
    sa.Column("open_time", TIMESTAMP),
    sa.Column("close_time", TIMESTAMP),
    sa.Column("expiration_time", TIMESTAMP),
    sa.Column("settlement_time", TIMESTAMP),
    sa.Column("result", sa.String(32)),
    sa.Column("result_evidence", sa.String(16)),
    sa.Column("settlement_value", sa.String(32)),
    sa.Column("settlement_kept", JSONB(none_as_null=True)),
    sa.Column("settled_at", TIMESTAMP),
    sa.Column("source_updated_at", TIMESTAMP),
    sa.Column("listed_at", TIMESTAMP),
    sa.Column("metadata_hash", sa.CHAR(32)),
    time("observed_at"),
    time("known_from"),
    sa.Column("known_to", TIMESTAMP),
    sa.Column("created_at", TIMESTAMP, nullable=False, server_default=NOW),
    sa.Column("updated_at", TIMESTAMP, nullable=False, server_default=NOW),
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
    row_id(),
    feed_id(),
    sa.Column("ticker", sa.String(128, collation="C"), nullable=False),
    sa.Column("title", sa.Text, nullable=False, server_default=""),
    sa.Column("category", sa.String(128)),
    time("known_from"),
    time("updated_at"),
    sa.Column("source_updated_at", TIMESTAMP),
    json("raw_metadata", "{}"),
    sa.UniqueConstraint("feed_id", "ticker", name="market_series_feed_id_ticker_key"),
)

market_events = sa.Table(
    "market_events",
    metadata,
    row_id(),
    feed_id(),
    sa.Column("ticker", sa.String(128, collation="C"), nullable=False),
    sa.Column("series_ticker", sa.String(128, collation="C"), nullable=False, server_default=""),
    sa.Column("title", sa.Text, nullable=False, server_default=""),
    sa.Column("category", sa.String(128)),
    time("known_from"),
    time("updated_at"),
    sa.Column("source_updated_at", TIMESTAMP),
    json("raw_metadata", "{}"),
    sa.UniqueConstraint("feed_id", "ticker", name="market_events_feed_id_ticker_key"),
    sa.Index("market_events_series_ticker_idx", "feed_id", "series_ticker"),
)

market_history = sa.Table(
    "market_history",
    metadata,
    row_id(),
    sa.Column("market_id", sa.BigInteger, sa.ForeignKey("markets.id"), nullable=False),
    sa.Column("field_name", sa.String(64), nullable=False),
    sa.Column("old_value", sa.Text),
    sa.Column("new_value", sa.Text),
    time("changed_at"),
    time("known_from"),
    sa.Column("known_to", TIMESTAMP),
    sa.Column("evidence", sa.String(16)),
    sa.Index("idx_market_history_market", "market_id", "field_name", "changed_at"),
    sa.Index("idx_market_history_known", "known_from"),
)

market_syncs = sa.Table(
    "market_syncs",
    metadata,
    row_id(),
    feed_id(),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("started_at", TIMESTAMP, nullable=False),
    sa.Column("completed_at", TIMESTAMP),
    *(
        sa.Column(name, sa.Integer, nullable=False, server_default=sa.text("0"))
        for name in ("series", "events", "markets", "open_markets", "inserted", "changed")
    ),
    sa.Column("accepted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("updated_until", TIMESTAMP),
    sa.Column("settled_until", TIMESTAMP),
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
    sa.Column("first_heard_at", TIMESTAMP, nullable=False),
    sa.Column("last_heard_at", TIMESTAMP, nullable=False),
)

agent_feedback = sa.Table(
    "agent_feedback",
    metadata,
    row_id(),
    sa.Column("agent_id", sa.String(64)),
    sa.Column("ticker", sa.String(128)),
    sa.Column("issue_type", sa.String(32), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("timestamp", TIMESTAMP),
    sa.Column("evidence", JSONB(none_as_null=True)),
    sa.Column("status", sa.String(16), nullable=False, server_default="open"),
    sa.Column("priority", sa.String(16)),
    sa.Column("assigned_to", sa.String(64)),
    sa.Column("resolution", sa.Text),
    sa.Column("resolved_at", TIMESTAMP),
    time("created_at"),
    sa.Index("idx_agent_feedback_status", "status"),
    sa.Index("idx_agent_feedback_ticker", "ticker"),
)
