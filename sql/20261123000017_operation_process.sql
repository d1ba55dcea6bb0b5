-- A start or stop whose process was killed is told from one at work, and from one whose end was seen.

-- migrate:up
ALTER TABLE deployment_log
  ADD COLUMN process VARCHAR(160),          -- which process does it, on which machine; NULL: not known
  ADD COLUMN ended_by TIMESTAMPTZ,          -- aborted: seen then to be over, its end was seen by nobody
  DROP CONSTRAINT deployment_log_status_check,
  ADD CONSTRAINT deployment_log_status_check CHECK (status IN ('started', 'completed', 'failed', 'aborted'));

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
