-- The schema registry: which layout normalized data had, so that old days can always be read and made again.

-- migrate:up
CREATE TABLE schema_versions (
  id                 INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name               VARCHAR(64) NOT NULL
                     CONSTRAINT schema_versions_name_check CHECK (name ~ '^[a-z][a-z0-9_-]{0,63}$'),
  version            VARCHAR(32) NOT NULL
                     CONSTRAINT schema_versions_version_check CHECK (version ~ '^v[0-9]{1,9}$'),
  format             VARCHAR(32) NOT NULL DEFAULT 'capnp'
                     CONSTRAINT schema_versions_format_check CHECK (format IN ('capnp', 'protobuf', 'json_schema')),
  schema_definition  TEXT NOT NULL,
  schema_hash        VARCHAR(64) NOT NULL
                     CONSTRAINT schema_versions_schema_hash_check CHECK (schema_hash ~ '^[0-9a-f]{64}$'),
  status             VARCHAR(16) NOT NULL DEFAULT 'active'
                     CONSTRAINT schema_versions_status_check CHECK (status IN ('draft', 'active', 'deprecated')),
  effective_from     DATE NOT NULL,
  deprecated_at      DATE,
  compatible_with    JSONB NOT NULL DEFAULT '[]',  -- versions whose data this one reads: ["v1"]
  breaking_changes   TEXT,
  created_at         TIMESTAMPTZ NOT NULL DEFAULT now(),
  CONSTRAINT schema_versions_name_version_key UNIQUE (name, version),
  CONSTRAINT schema_versions_dates_check CHECK (deprecated_at IS NULL OR deprecated_at >= effective_from)
);

-- How data of one version becomes data of another. (dbmate's own record is the table ssmd_migrations.)
CREATE TABLE schema_migrations (
  id                INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  from_version_id   INTEGER NOT NULL REFERENCES schema_versions (id),
  to_version_id     INTEGER NOT NULL REFERENCES schema_versions (id),
  migration_type    VARCHAR(32) NOT NULL
                    CONSTRAINT schema_migrations_migration_type_check
                    CHECK (migration_type IN ('automatic', 'manual', 'reprocess')),
  migration_script  TEXT,
  executed_at       TIMESTAMPTZ,
  executed_by       VARCHAR(128),
  status            VARCHAR(16) NOT NULL DEFAULT 'pending'
                    CONSTRAINT schema_migrations_status_check
                    CHECK (status IN ('pending', 'running', 'completed', 'failed')),
  CONSTRAINT schema_migrations_versions_key UNIQUE (from_version_id, to_version_id),
  CONSTRAINT schema_migrations_differ_check CHECK (from_version_id <> to_version_id)
);

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
