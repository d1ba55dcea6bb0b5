"""Schemas, environments and the keys of both sides, with who did what."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, UUID

from ssmd.registry.tables.columns import TIMESTAMP, feed_id, json, metadata, row_id, time

schema_versions = sa.Table(
    "schema_versions",
    metadata,
    row_id(sa.Integer),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("format", sa.String(32), nullable=False, server_default="capnp"),
    sa.Column("schema_definition", sa.Text, nullable=False),
    sa.Column("schema_hash", sa.String(64), nullable=False),
    sa.Column("status", sa.String(16), nullable=False, server_default="active"),
    sa.Column("effective_from", sa.Date, nullable=False),
    sa.Column("deprecated_at", sa.Date),
    json("compatible_with", "[]"),
    sa.Column("breaking_changes", sa.Text),
    time("created_at"),
    sa.UniqueConstraint("name", "version", name="schema_versions_name_version_key"),
)

schema_migrations = sa.Table(
    "schema_migrations",
    metadata,
    row_id(sa.Integer),
    sa.Column("from_version_id", sa.Integer, sa.ForeignKey("schema_versions.id"), nullable=False),
    sa.Column("to_version_id", sa.Integer, sa.ForeignKey("schema_versions.id"), nullable=False),
    sa.Column("migration_type", sa.String(32), nullable=False),
    sa.Column("migration_script", sa.Text),
    sa.Column("executed_at", TIMESTAMP),
    sa.Column("executed_by", sa.String(128)),
    sa.Column("status", sa.String(16), nullable=False, server_default="pending"),
    sa.UniqueConstraint("from_version_id", "to_version_id", name="schema_migrations_versions_key"),
)

environments = sa.Table(
    "environments",
    metadata,
    row_id(sa.Integer),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("description", sa.Text),
    sa.Column("status", sa.String(16), nullable=False, server_default="active"),
    time("created_at"),
)

environment_versions = sa.Table(
    "environment_versions",
    metadata,
    row_id(sa.Integer),
    sa.Column("environment_id", sa.Integer, sa.ForeignKey("environments.id"), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("config_yaml", sa.Text, nullable=False),
    sa.Column("config_hash", sa.String(64), nullable=False),
    time("created_at"),
    sa.Column("created_by", sa.String(128)),
    sa.Column("deployed_at", TIMESTAMP),
    sa.Column("deployed_by", sa.String(128)),
    sa.Column("git_commit", sa.String(40)),
    sa.Column("valid_from", TIMESTAMP),
    sa.Column("valid_to", TIMESTAMP),
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
    row_id(),
    sa.Column("environment_id", sa.Integer, sa.ForeignKey("environments.id"), nullable=False),
    sa.Column("environment_version_id", sa.Integer, sa.ForeignKey("environment_versions.id")),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    time("started_at"),
    sa.Column("completed_at", TIMESTAMP),
    sa.Column("error_message", sa.Text),
    sa.Column("trigger", sa.String(32), nullable=False, server_default="manual"),
    sa.Column("triggered_by", sa.String(250)),
    sa.Column("service", sa.String(32)),
    sa.Column("day", sa.Date),
    sa.Column("process", sa.String(160)),
    sa.Column("ended_by", TIMESTAMP),
    sa.Index("idx_deployment_log_environment", "environment_id", "started_at"),
    sa.Index("idx_deployment_log_version", "environment_version_id", "started_at"),
)

keys = sa.Table(
    "keys",
    metadata,
    row_id(sa.Integer),
    sa.Column("environment_id", sa.Integer, sa.ForeignKey("environments.id"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("key_type", sa.String(32), nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("required", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("fields", JSONB, nullable=False),
    sa.Column("rotation_days", sa.Integer),
    sa.Column("status", sa.String(16), nullable=False, server_default="not_set"),
    sa.Column("sealed_secret_ref", sa.String(256)),
    sa.Column("last_rotated", TIMESTAMP),
    sa.Column("expires_at", TIMESTAMP),
    time("created_at"),
    time("updated_at"),
    sa.UniqueConstraint("environment_id", "name", name="keys_environment_id_name_key"),
    sa.Index("idx_keys_environment", "environment_id"),
)

key_audit_log = sa.Table(
    "key_audit_log",
    metadata,
    row_id(),
    sa.Column("key_id", sa.Integer, sa.ForeignKey("keys.id"), nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("actor", sa.String(128), nullable=False),
    sa.Column("details", JSONB(none_as_null=True)),
    time("created_at"),
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
    time("created_at"),
    sa.Column("created_by", sa.String(128), nullable=False),
    sa.Column("expires_at", TIMESTAMP),
    sa.Column("revoked_at", TIMESTAMP),
    sa.Column("revoked_by", sa.String(128)),
    sa.Column("last_used_at", TIMESTAMP),
)

check_runs = sa.Table(
    "check_runs",
    metadata,
    row_id(),
    feed_id(),
    sa.Column("check_name", sa.String(32), nullable=False),
    sa.Column("day", sa.Date, nullable=False),
    time("started_at"),
    sa.Column("completed_at", TIMESTAMP),
    sa.Column("state", sa.String(16), nullable=False, server_default="running"),
    sa.Column("exit_code", sa.SmallInteger),
    sa.Column("findings", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("summary", sa.Text, nullable=False, server_default=""),
    sa.Column("detail", JSONB(none_as_null=True)),
    sa.Column("trigger", sa.String(32), nullable=False, server_default="manual"),
    sa.Column("triggered_by", sa.String(250), nullable=False, server_default=""),
    sa.Index("idx_check_runs_day", "feed_id", "day", "check_name", "started_at"),
    sa.Index("idx_check_runs_name", "feed_id", "check_name", "started_at"),
)

operation_alerts = sa.Table(
    "operation_alerts",
    metadata,
    row_id(),
    sa.Column("environment_id", sa.Integer, sa.ForeignKey("environments.id"), nullable=False),
    sa.Column("operation", sa.String(64), nullable=False),
    sa.Column("task", sa.String(250), nullable=False, server_default=""),
    sa.Column("run", sa.String(250), nullable=False, server_default=""),
    sa.Column("day", sa.Date),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("summary", sa.Text, nullable=False, server_default=""),
    time("raised_at"),
    sa.Column("resolved_at", TIMESTAMP),
    sa.Index(
        "idx_operation_alerts_open",
        "environment_id",
        "operation",
        postgresql_where=sa.text("resolved_at IS NULL"),
    ),
    sa.Index("idx_operation_alerts_raised", "environment_id", "raised_at"),
)
