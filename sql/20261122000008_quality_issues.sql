-- Counted problems in the design's few words (issue_type), with the finer word of who found them beside it (detail).

-- migrate:up
ALTER TABLE data_quality_issues ADD COLUMN detail VARCHAR(64) NOT NULL DEFAULT '';
ALTER TABLE data_quality_issues DROP CONSTRAINT data_quality_issues_identity_key;
UPDATE data_quality_issues SET
  detail = issue_type,
  issue_type = CASE
    WHEN issue_type = 'sequence_repeat' THEN 'duplicate'
    WHEN issue_type IN ('sequence_reset', 'sequence_late', 'sequence_restart') THEN 'out_of_order'
    WHEN issue_type = 'no_type' THEN 'missing_field'
    WHEN issue_type IN ('stream_gap', 'stream_rewound', 'not_published_spool_full', 'spool_torn') THEN 'missing_data'
    WHEN issue_type IN ('stale_delta', 'wrong_sid', 'negative_size', 'crossed_book') THEN 'inconsistent'
    WHEN issue_type IN ('exchange_error', 'unknown_market') THEN 'refused'
    WHEN issue_type IN ('decoder_failed', 'mapper_failed') THEN 'internal_error'
    ELSE 'parse_error'
  END;
ALTER TABLE data_quality_issues ADD CONSTRAINT data_quality_issues_identity_key
  UNIQUE (feed_id, day, data_type, issue_type, detail, connection);
ALTER TABLE data_quality_issues ADD CONSTRAINT data_quality_issues_issue_type_check CHECK (issue_type IN (
  'duplicate', 'out_of_order', 'missing_field', 'parse_error', 'missing_data', 'inconsistent', 'refused',
  'internal_error'));

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
