-- The security master: every market an exchange has listed, as it last described it.

-- migrate:up
CREATE TABLE markets (
  id               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  feed_id          INTEGER NOT NULL REFERENCES feeds (id),
  ticker           VARCHAR(128) COLLATE "C" NOT NULL CONSTRAINT markets_ticker_check CHECK (ticker <> ''),
  event_ticker     VARCHAR(128) COLLATE "C" NOT NULL DEFAULT '',
  kalshi_id        VARCHAR(128),  -- the exchange's own id, where it has one besides the ticker
  title            TEXT NOT NULL DEFAULT '',
  category         VARCHAR(128),
  status           VARCHAR(32) NOT NULL DEFAULT 'active',  -- the exchange's word, therefore without a list
  open_time        TIMESTAMPTZ,
  close_time       TIMESTAMPTZ,
  expiration_time  TIMESTAMPTZ,
  settlement_time  TIMESTAMPTZ,
  result           VARCHAR(32),  -- NULL until determined
  settled_at       TIMESTAMPTZ,
  created_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
  raw_metadata     JSONB NOT NULL DEFAULT '{}',
  -- two venues may share a ticker
  CONSTRAINT markets_feed_id_ticker_key UNIQUE (feed_id, ticker)
);
CREATE INDEX markets_status_idx ON markets (feed_id, status, ticker);
CREATE INDEX markets_event_ticker_idx ON markets (feed_id, event_ticker);
CREATE INDEX markets_expiration_idx ON markets (expiration_time);

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
