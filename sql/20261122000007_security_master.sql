-- The security master in time: what a market was on a date, and what we knew of it on a date.
-- `markets` holds what is known now; `market_history` leads back from there, one row per changed field.

-- migrate:up
CREATE TABLE market_series (
  id                 BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  feed_id            INTEGER NOT NULL REFERENCES feeds (id),
  ticker             VARCHAR(128) COLLATE "C" NOT NULL CONSTRAINT market_series_ticker_check CHECK (ticker <> ''),
  title              TEXT NOT NULL DEFAULT '',
  category           VARCHAR(128),
  known_from         TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at         TIMESTAMPTZ NOT NULL DEFAULT now(),
  source_updated_at  TIMESTAMPTZ,  -- the exchange's own time of the last change
  raw_metadata       JSONB NOT NULL DEFAULT '{}',
  CONSTRAINT market_series_feed_id_ticker_key UNIQUE (feed_id, ticker)
);

CREATE TABLE market_events (
  id                 BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  feed_id            INTEGER NOT NULL REFERENCES feeds (id),
  ticker             VARCHAR(128) COLLATE "C" NOT NULL CONSTRAINT market_events_ticker_check CHECK (ticker <> ''),
  series_ticker      VARCHAR(128) COLLATE "C" NOT NULL DEFAULT '',
  title              TEXT NOT NULL DEFAULT '',
  category           VARCHAR(128),
  known_from         TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at         TIMESTAMPTZ NOT NULL DEFAULT now(),
  source_updated_at  TIMESTAMPTZ,
  raw_metadata       JSONB NOT NULL DEFAULT '{}',
  CONSTRAINT market_events_feed_id_ticker_key UNIQUE (feed_id, ticker)
);
CREATE INDEX market_events_series_ticker_idx ON market_events (feed_id, series_ticker);

ALTER TABLE markets
  ADD COLUMN series_ticker      VARCHAR(128) COLLATE "C" NOT NULL DEFAULT '',
  ADD COLUMN result_evidence    VARCHAR(16)  -- how good the evidence for `result` is
                                CONSTRAINT markets_result_evidence_check
                                CHECK (result_evidence IN ('determined', 'amended', 'finalized')),
  ADD COLUMN settlement_value   VARCHAR(32),  -- the exchange's decimal text
  ADD COLUMN settlement_kept    JSONB,  -- settlement fields, as text, held against a weaker answer in raw_metadata
  ADD COLUMN source_updated_at  TIMESTAMPTZ,
  ADD COLUMN listed_at          TIMESTAMPTZ,  -- when the exchange listed it (created, else opened), where it tells
  ADD COLUMN metadata_hash      CHAR(32),  -- md5 over what history follows; tells cheaply that nothing changed
  ADD COLUMN observed_at        TIMESTAMPTZ NOT NULL DEFAULT now(),  -- when the answer that last described it was asked
  ADD COLUMN known_from         TIMESTAMPTZ NOT NULL DEFAULT now(),
  ADD COLUMN known_to           TIMESTAMPTZ,  -- the exchange no longer lists it (provisional markets can vanish)
  ADD CONSTRAINT markets_known_check CHECK (known_to IS NULL OR known_to >= known_from);
UPDATE markets SET known_from = created_at, observed_at = updated_at;
ALTER INDEX markets_status_idx RENAME TO idx_markets_status;
ALTER INDEX markets_expiration_idx RENAME TO idx_markets_expiration;
CREATE INDEX idx_markets_ticker ON markets (ticker);

-- changed_at: when the change happened, as far as the exchange tells. known_from: when we learnt it; known_to: when
-- better evidence took the row's place.
CREATE TABLE market_history (
  id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  market_id   BIGINT NOT NULL REFERENCES markets (id),
  field_name  VARCHAR(64) NOT NULL,
  old_value   TEXT,
  new_value   TEXT,
  changed_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
  known_from  TIMESTAMPTZ NOT NULL DEFAULT now(),
  known_to    TIMESTAMPTZ,
  evidence    VARCHAR(16),
  CONSTRAINT market_history_known_check CHECK (known_to IS NULL OR known_to >= known_from)
);
CREATE INDEX idx_market_history_market ON market_history (market_id, field_name, changed_at);
CREATE INDEX idx_market_history_known ON market_history (known_from);

-- One row per sync, the refused ones included: what it found is what the next one is compared with.
CREATE TABLE market_syncs (
  id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  feed_id       INTEGER NOT NULL REFERENCES feeds (id),
  kind          VARCHAR(16) NOT NULL CONSTRAINT market_syncs_kind_check CHECK (kind IN ('full', 'incremental')),
  status        VARCHAR(16) NOT NULL
                CONSTRAINT market_syncs_status_check CHECK (status IN ('completed', 'refused', 'failed')),
  started_at    TIMESTAMPTZ NOT NULL,
  completed_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
  series        INTEGER NOT NULL DEFAULT 0,
  events        INTEGER NOT NULL DEFAULT 0,
  markets       INTEGER NOT NULL DEFAULT 0,
  open_markets  INTEGER NOT NULL DEFAULT 0,
  inserted      INTEGER NOT NULL DEFAULT 0,
  changed       INTEGER NOT NULL DEFAULT 0,
  accepted      BOOLEAN NOT NULL DEFAULT false,  -- a person accepted a collapsed count
  updated_until TIMESTAMPTZ,  -- the exchange's changes up to here are in: where the next incremental sync begins
  settled_until TIMESTAMPTZ,
  error         TEXT
);
CREATE INDEX market_syncs_feed_idx ON market_syncs (feed_id, started_at);

-- Fields of the exchange's market objects that trading changes: part of raw_metadata, but no history.
CREATE TABLE market_volatile (
  feed_id  INTEGER PRIMARY KEY REFERENCES feeds (id),
  fields   TEXT[] NOT NULL
);

-- How far the changes have been published to the journal; what lies beyond is published by the next sync.
CREATE TABLE market_journal (
  feed_id          INTEGER PRIMARY KEY REFERENCES feeds (id),
  last_market_id   BIGINT NOT NULL DEFAULT 0,
  last_history_id  BIGINT NOT NULL DEFAULT 0
);

-- From which listed markets a connector has ever received a frame.
CREATE TABLE market_coverage (
  market_id       BIGINT PRIMARY KEY REFERENCES markets (id),
  first_heard_at  TIMESTAMPTZ NOT NULL,
  last_heard_at   TIMESTAMPTZ NOT NULL,
  CONSTRAINT market_coverage_order_check CHECK (last_heard_at >= first_heard_at)
);

CREATE TABLE agent_feedback (
  id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  agent_id     VARCHAR(64),
  ticker       VARCHAR(128),
  issue_type   VARCHAR(32) NOT NULL,
  description  TEXT NOT NULL,
  timestamp    TIMESTAMPTZ,
  evidence     JSONB,
  status       VARCHAR(16) NOT NULL DEFAULT 'open'
               CONSTRAINT agent_feedback_status_check
               CHECK (status IN ('open', 'investigating', 'resolved', 'invalid')),
  priority     VARCHAR(16)
               CONSTRAINT agent_feedback_priority_check CHECK (priority IN ('low', 'medium', 'high')),
  assigned_to  VARCHAR(64),
  resolution   TEXT,
  resolved_at  TIMESTAMPTZ,
  created_at   TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX idx_agent_feedback_status ON agent_feedback (status);
CREATE INDEX idx_agent_feedback_ticker ON agent_feedback (ticker);

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
