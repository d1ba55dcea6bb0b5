-- What is archived: one row per day and kind, one row per object, the holes, and the counted problems.
-- Nanoseconds are the truth; the timestamps beside them are for people and dashboards (microseconds, rounded).

-- migrate:up
CREATE TABLE data_inventory (
  id                 BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  feed_id            INTEGER NOT NULL REFERENCES feeds (id),
  data_type          VARCHAR(32) NOT NULL
                     CONSTRAINT data_inventory_data_type_check CHECK (data_type IN ('raw', 'normalized')),
  date               DATE NOT NULL,
  storage_path       TEXT NOT NULL,
  schema_version     VARCHAR(32),
  symbol_count       INTEGER,
  record_count       BIGINT NOT NULL DEFAULT 0,
  byte_size          BIGINT NOT NULL DEFAULT 0,
  first_ns           BIGINT NOT NULL DEFAULT 0,
  last_ns            BIGINT NOT NULL DEFAULT 0,
  first_timestamp    TIMESTAMPTZ GENERATED ALWAYS AS (to_timestamp(first_ns / 1000000000.0)) STORED,
  last_timestamp     TIMESTAMPTZ GENERATED ALWAYS AS (to_timestamp(last_ns / 1000000000.0)) STORED,
  status             VARCHAR(16) NOT NULL DEFAULT 'processing'
                     CONSTRAINT data_inventory_status_check
                     CHECK (status IN ('complete', 'partial', 'failed', 'processing')),
  gap_count          INTEGER NOT NULL DEFAULT 0,
  quality_score      NUMERIC(3, 2)
                     CONSTRAINT data_inventory_quality_score_check CHECK (quality_score BETWEEN 0 AND 1),
  connector_version  VARCHAR(32),
  processor_version  VARCHAR(32),
  processed_at       TIMESTAMPTZ,
  -- raw rows have no schema version: without NULLS NOT DISTINCT they would repeat
  CONSTRAINT data_inventory_day_key UNIQUE NULLS NOT DISTINCT (feed_id, data_type, date, schema_version)
);
CREATE INDEX data_inventory_date_idx ON data_inventory (date);

CREATE TABLE data_objects (
  id               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  inventory_id     BIGINT NOT NULL REFERENCES data_inventory (id),
  bucket           VARCHAR(63) COLLATE "C" NOT NULL,
  key              TEXT COLLATE "C" NOT NULL,
  group_name       VARCHAR(32) NOT NULL,
  sha256           CHAR(64) NOT NULL CONSTRAINT data_objects_sha256_check CHECK (sha256 ~ '^[0-9a-f]{64}$'),
  bytes            BIGINT NOT NULL CONSTRAINT data_objects_bytes_check CHECK (bytes >= 0),
  records          BIGINT NOT NULL CONSTRAINT data_objects_records_check CHECK (records >= 0),
  symbols          INTEGER,
  first_ns         BIGINT NOT NULL,
  last_ns          BIGINT NOT NULL,
  first_timestamp  TIMESTAMPTZ GENERATED ALWAYS AS (to_timestamp(first_ns / 1000000000.0)) STORED,
  last_timestamp   TIMESTAMPTZ GENERATED ALWAYS AS (to_timestamp(last_ns / 1000000000.0)) STORED,
  writer_version   VARCHAR(64) NOT NULL DEFAULT '',
  created_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
  CONSTRAINT data_objects_bucket_key_key UNIQUE (bucket, key)
);
CREATE INDEX data_objects_inventory_id_idx ON data_objects (inventory_id);

-- A gap belongs to a feed and may touch several days: inventory_id is set where it concerns one row alone.
CREATE TABLE data_gaps (
  id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  feed_id       INTEGER NOT NULL REFERENCES feeds (id),
  inventory_id  BIGINT REFERENCES data_inventory (id),
  connection    VARCHAR(128) NOT NULL,
  sid           BIGINT,
  from_ns       BIGINT NOT NULL,
  to_ns         BIGINT NOT NULL,
  gap_start     TIMESTAMPTZ GENERATED ALWAYS AS (to_timestamp(from_ns / 1000000000.0)) STORED,
  gap_end       TIMESTAMPTZ GENERATED ALWAYS AS (to_timestamp(to_ns / 1000000000.0)) STORED,
  reason        VARCHAR(32) NOT NULL
                CONSTRAINT data_gaps_reason_check CHECK (reason IN (
                  'connection_lost', 'sequence_gap', 'silence', 'exchange_outage',
                  'rate_limited', 'planned_teardown', 'spool_full', 'startup')),
  gap_type      VARCHAR(32) GENERATED ALWAYS AS (reason) STORED,
  last_seq      BIGINT,
  next_seq      BIGINT,
  tickers       TEXT[],
  resolved      BOOLEAN NOT NULL DEFAULT false,
  resolved_at   TIMESTAMPTZ,
  notes         TEXT,
  created_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
  CONSTRAINT data_gaps_identity_key UNIQUE NULLS NOT DISTINCT (feed_id, connection, sid, from_ns, reason),
  CONSTRAINT data_gaps_order_check CHECK (to_ns >= from_ns)
);
CREATE INDEX data_gaps_time_idx ON data_gaps (feed_id, from_ns, to_ns);

CREATE TABLE data_quality_issues (
  id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  feed_id       INTEGER NOT NULL REFERENCES feeds (id),
  inventory_id  BIGINT REFERENCES data_inventory (id),
  day           DATE NOT NULL,
  data_type     VARCHAR(32) NOT NULL
                CONSTRAINT data_quality_issues_data_type_check CHECK (data_type IN ('raw', 'normalized')),
  issue_type    VARCHAR(64) NOT NULL,
  severity      VARCHAR(16) NOT NULL
                CONSTRAINT data_quality_issues_severity_check CHECK (severity IN ('error', 'warning', 'info')),
  connection    VARCHAR(128) NOT NULL DEFAULT '',
  count         BIGINT NOT NULL DEFAULT 1 CONSTRAINT data_quality_issues_count_check CHECK (count >= 0),
  sample_data   JSONB,
  detected_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
  -- one row per kind, day and connection: problems are counted, not listed
  CONSTRAINT data_quality_issues_identity_key UNIQUE (feed_id, day, data_type, issue_type, connection)
);

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
