-- Starts and stops of the day stand in the deployment log with their service and day, also where nothing is deployed.

-- migrate:up
ALTER TABLE deployment_log
  ADD COLUMN service VARCHAR(32),           -- NULL: the whole day, or a deployment
  ADD COLUMN day DATE,                      -- the UTC day that was started or stopped
  ALTER COLUMN triggered_by TYPE VARCHAR(250),
  DROP CONSTRAINT deployment_log_version_check,
  ADD CONSTRAINT deployment_log_version_check CHECK (
    environment_version_id IS NOT NULL OR status = 'failed' OR action IN ('startup', 'teardown')
  );

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
