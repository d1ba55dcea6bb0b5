-- What ran for which day, how it ended, and what somebody must look at: a check without a row did not run.

-- migrate:up
CREATE TABLE check_runs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    feed_id INTEGER NOT NULL REFERENCES feeds (id),
    check_name VARCHAR(32) NOT NULL,          -- verify, quality, compact, backfill, secmaster_sync, key_verify, health
    day DATE NOT NULL,                        -- the UTC day that was looked at
    started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    completed_at TIMESTAMPTZ,                 -- NULL: still running, or killed
    state VARCHAR(16) NOT NULL DEFAULT 'running'
        CHECK (state IN ('running', 'passed', 'findings', 'failed', 'not_run')),
    exit_code SMALLINT,                       -- of the command; NULL while it runs
    findings BIGINT NOT NULL DEFAULT 0,
    summary TEXT NOT NULL DEFAULT '',         -- one sentence for people
    detail JSONB,                             -- counts and parts, as the check says them
    trigger VARCHAR(32) NOT NULL DEFAULT 'manual' CHECK (trigger IN ('manual', 'gitops', 'scheduled')),
    triggered_by VARCHAR(250) NOT NULL DEFAULT ''   -- a person, or the DAG and its run
);
CREATE INDEX idx_check_runs_day ON check_runs (feed_id, day, check_name, started_at);
CREATE INDEX idx_check_runs_name ON check_runs (feed_id, check_name, started_at);

CREATE TABLE operation_alerts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment_id INTEGER NOT NULL REFERENCES environments (id),
    operation VARCHAR(64) NOT NULL,           -- the DAG
    task VARCHAR(250) NOT NULL DEFAULT '',    -- '' = the operation as a whole
    run VARCHAR(250) NOT NULL DEFAULT '',     -- the run of the DAG
    day DATE,
    state VARCHAR(16) NOT NULL CHECK (state IN ('failed', 'skipped', 'findings', 'missing')),
    summary TEXT NOT NULL DEFAULT '',
    raised_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    resolved_at TIMESTAMPTZ                   -- a later run of the same operation for that day went well
);
CREATE INDEX idx_operation_alerts_open ON operation_alerts (environment_id, operation) WHERE resolved_at IS NULL;
CREATE INDEX idx_operation_alerts_raised ON operation_alerts (environment_id, raised_at);

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
