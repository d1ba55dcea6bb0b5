-- Since when a day's row is known: what the inventory said at an earlier time can be asked for.

-- migrate:up
ALTER TABLE data_inventory ADD COLUMN known_from TIMESTAMPTZ NOT NULL DEFAULT now();

UPDATE data_inventory i
   SET known_from = o.first
  FROM (SELECT inventory_id, min(created_at) AS first FROM data_objects GROUP BY inventory_id) o
 WHERE o.inventory_id = i.id;

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
