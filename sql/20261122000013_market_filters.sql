-- Markets are looked for by series and by category, a page at a time.

-- migrate:up
CREATE INDEX idx_markets_series ON markets (feed_id, series_ticker, ticker);
CREATE INDEX idx_markets_category ON markets (feed_id, category, ticker);

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
