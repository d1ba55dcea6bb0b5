"""The tables that `sql/` creates, as SQLAlchemy knows them; a test compares them with a migrated database."""

from ssmd.registry.tables.capture import (
    data_gaps,
    data_inventory,
    data_objects,
    data_quality_batches,
    data_quality_issues,
    feed_calendars,
    feed_versions,
    feeds,
)
from ssmd.registry.tables.columns import metadata
from ssmd.registry.tables.operations import (
    client_keys,
    deployment_log,
    environment_versions,
    environments,
    key_audit_log,
    keys,
    schema_migrations,
    schema_versions,
)
from ssmd.registry.tables.security_master import (
    agent_feedback,
    market_coverage,
    market_events,
    market_history,
    market_journal,
    market_series,
    market_syncs,
    market_volatile,
    markets,
)

__all__ = [
    "agent_feedback",
    "client_keys",
    "data_gaps",
    "data_inventory",
    "data_objects",
    "data_quality_batches",
    "data_quality_issues",
    "deployment_log",
    "environment_versions",
    "environments",
    "feed_calendars",
    "feed_versions",
    "feeds",
    "key_audit_log",
    "keys",
    "market_coverage",
    "market_events",
    "market_history",
    "market_journal",
    "market_series",
    "market_syncs",
    "market_volatile",
    "markets",
    "metadata",
    "schema_migrations",
    "schema_versions",
]
