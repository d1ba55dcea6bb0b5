-- Batches of counted problems that were taken: one whose acknowledgement was lost comes again and is not counted again.

-- migrate:up
CREATE TABLE data_quality_batches (
  batch UUID PRIMARY KEY,
  recorded_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX data_quality_batches_recorded_at_idx ON data_quality_batches (recorded_at);

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
