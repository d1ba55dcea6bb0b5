-- A second time axis for feeds: when a fact held (effective_from, effective_to) and when we knew it (known_from, known_to).

-- migrate:up
ALTER TABLE feeds ADD COLUMN description VARCHAR(256);

-- effective_to becomes the first day on which a version no longer holds, as in the design's as-of queries
-- (effective_from <= day AND (effective_to IS NULL OR effective_to > day)); before, it was the last day it held.
ALTER TABLE feed_versions DROP CONSTRAINT feed_versions_dates_check;
ALTER TABLE feed_calendars DROP CONSTRAINT feed_calendars_dates_check;
UPDATE feed_versions SET effective_to = effective_to + 1 WHERE effective_to IS NOT NULL;
UPDATE feed_calendars SET effective_to = effective_to + 1 WHERE effective_to IS NOT NULL;
ALTER TABLE feed_versions ADD CONSTRAINT feed_versions_dates_check
  CHECK (effective_to IS NULL OR effective_to > effective_from);
ALTER TABLE feed_calendars ADD CONSTRAINT feed_calendars_dates_check
  CHECK (effective_to IS NULL OR effective_to > effective_from);

-- A corrected version is a new row; the row it corrects ends its known_to and stays.
ALTER TABLE feed_versions
  ADD COLUMN known_from TIMESTAMPTZ NOT NULL DEFAULT now(),
  ADD COLUMN known_to TIMESTAMPTZ,
  ADD CONSTRAINT feed_versions_known_check CHECK (known_to IS NULL OR known_to >= known_from);
UPDATE feed_versions SET known_from = feeds.created_at FROM feeds WHERE feeds.id = feed_versions.feed_id;
ALTER TABLE feed_versions DROP CONSTRAINT feed_versions_feed_id_effective_from_key;
ALTER TABLE feed_versions ADD CONSTRAINT feed_versions_feed_id_effective_from_key
  UNIQUE NULLS NOT DISTINCT (feed_id, effective_from, known_to);

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
