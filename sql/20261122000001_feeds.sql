-- What data sources exist, how to reach them on a date, and when they pause.

-- migrate:up
CREATE TABLE feeds (
  id            INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name          VARCHAR(32) NOT NULL UNIQUE
                CONSTRAINT feeds_name_check CHECK (name ~ '^[a-z][a-z0-9-]{0,31}$'),
  display_name  VARCHAR(128),
  feed_type     VARCHAR(32) NOT NULL
                CONSTRAINT feeds_feed_type_check CHECK (feed_type IN ('websocket', 'rest', 'multicast')),
  status        VARCHAR(16) NOT NULL DEFAULT 'active'
                CONSTRAINT feeds_status_check CHECK (status IN ('active', 'deprecated', 'disabled')),
  created_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at    TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- A version holds from effective_from to effective_to, both days included; of two that hold, the later beginning wins.
CREATE TABLE feed_versions (
  id                          INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  feed_id                     INTEGER NOT NULL REFERENCES feeds (id),
  version                     VARCHAR(32) NOT NULL,
  effective_from              DATE NOT NULL,
  effective_to                DATE,
  protocol                    VARCHAR(32) NOT NULL
                              CONSTRAINT feed_versions_protocol_check
                              CHECK (protocol IN ('wss', 'ws', 'https', 'http', 'multicast')),
  endpoint_template           TEXT NOT NULL,
  rest_endpoint               TEXT,
  auth_method                 VARCHAR(32)
                              CONSTRAINT feed_versions_auth_method_check
                              CHECK (auth_method IN ('none', 'api_key', 'oauth', 'mtls')),
  secret_ref                  VARCHAR(128),
  supports_orderbook          BOOLEAN NOT NULL DEFAULT false,
  supports_trades             BOOLEAN NOT NULL DEFAULT true,
  supports_historical         BOOLEAN NOT NULL DEFAULT false,
  max_symbols_per_connection  INTEGER,
  rate_limit_per_second       INTEGER,
  parser_config               JSONB,
  required_transport          VARCHAR(32)[],
  CONSTRAINT feed_versions_feed_id_effective_from_key UNIQUE (feed_id, effective_from),
  CONSTRAINT feed_versions_dates_check CHECK (effective_to IS NULL OR effective_to >= effective_from)
);

-- Hours are NULL for a venue that never closes; `pauses` lists weekly ones: {"weekday", "from", "to"} in `timezone`.
CREATE TABLE feed_calendars (
  id                INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  feed_id           INTEGER NOT NULL REFERENCES feeds (id),
  effective_from    DATE NOT NULL,
  effective_to      DATE,
  timezone          VARCHAR(64),
  open_time         TIME,
  close_time        TIME,
  holiday_calendar  VARCHAR(64),
  pauses            JSONB NOT NULL DEFAULT '[]',
  CONSTRAINT feed_calendars_feed_id_effective_from_key UNIQUE (feed_id, effective_from),
  CONSTRAINT feed_calendars_dates_check CHECK (effective_to IS NULL OR effective_to >= effective_from)
);

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
