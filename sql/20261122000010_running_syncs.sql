-- Syncs stand in the book while they run, so that one that was killed is not forgotten.

-- migrate:up
ALTER TABLE market_syncs ALTER COLUMN completed_at DROP NOT NULL;
ALTER TABLE market_syncs ALTER COLUMN completed_at DROP DEFAULT;
ALTER TABLE market_syncs DROP CONSTRAINT market_syncs_status_check;
ALTER TABLE market_syncs ADD CONSTRAINT market_syncs_status_check CHECK (
  status IN ('running', 'aborted') OR (status IN ('completed', 'refused', 'failed') AND completed_at IS NOT NULL));
CREATE UNIQUE INDEX market_syncs_running_idx ON market_syncs (feed_id) WHERE status = 'running';

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
