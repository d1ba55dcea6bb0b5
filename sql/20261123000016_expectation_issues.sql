-- Issues that expectations found (`ssmd quality run`) are of a data type of their own: each run of a day replaces them.

-- migrate:up
ALTER TABLE data_quality_issues DROP CONSTRAINT data_quality_issues_data_type_check;
ALTER TABLE data_quality_issues ADD CONSTRAINT data_quality_issues_data_type_check
    CHECK (data_type IN ('raw', 'normalized', 'quality'));

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
