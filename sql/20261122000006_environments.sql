-- Environments as they were deployed, and their keys: names, dates and who touched them, never a value.

-- migrate:up
CREATE TABLE environments (
  id           INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name         VARCHAR(64) NOT NULL UNIQUE
               CONSTRAINT environments_name_check CHECK (name ~ '^[a-z][a-z0-9-]{0,62}$'),
  description  TEXT,
  status       VARCHAR(16) NOT NULL DEFAULT 'active'
               CONSTRAINT environments_status_check CHECK (status IN ('active', 'disabled')),
  created_at   TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- Valid from one deployment to the next; a version that was only created has no valid_from yet.
CREATE TABLE environment_versions (
  id              INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  environment_id  INTEGER NOT NULL REFERENCES environments (id),
  version         INTEGER NOT NULL CONSTRAINT environment_versions_version_check CHECK (version >= 1),
  config_yaml     TEXT NOT NULL,
  config_hash     VARCHAR(64) NOT NULL
                  CONSTRAINT environment_versions_config_hash_check CHECK (config_hash ~ '^[0-9a-f]{64}$'),
  created_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
  created_by      VARCHAR(128),
  deployed_at     TIMESTAMPTZ,
  deployed_by     VARCHAR(128),
  git_commit      VARCHAR(40),
  valid_from      TIMESTAMPTZ,
  valid_to        TIMESTAMPTZ,
  CONSTRAINT environment_versions_environment_id_version_key UNIQUE (environment_id, version),
  CONSTRAINT environment_versions_valid_check CHECK (valid_to IS NULL OR valid_to >= valid_from)
);
CREATE UNIQUE INDEX environment_versions_current_key ON environment_versions (environment_id)
  WHERE valid_from IS NOT NULL AND valid_to IS NULL;

-- A deployment that failed made no version, so it has none to name.
CREATE TABLE deployment_log (
  id                      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  environment_id          INTEGER NOT NULL REFERENCES environments (id),
  environment_version_id  INTEGER REFERENCES environment_versions (id),
  action                  VARCHAR(32) NOT NULL
                          CONSTRAINT deployment_log_action_check
                          CHECK (action IN ('deploy', 'startup', 'teardown', 'rollback')),
  status                  VARCHAR(16) NOT NULL
                          CONSTRAINT deployment_log_status_check CHECK (status IN ('started', 'completed', 'failed')),
  started_at              TIMESTAMPTZ NOT NULL DEFAULT now(),
  completed_at            TIMESTAMPTZ,
  error_message           TEXT,
  trigger                 VARCHAR(32) NOT NULL DEFAULT 'manual'
                          CONSTRAINT deployment_log_trigger_check CHECK (trigger IN ('scheduled', 'manual', 'gitops')),
  triggered_by            VARCHAR(128),
  CONSTRAINT deployment_log_version_check CHECK (environment_version_id IS NOT NULL OR status = 'failed')
);
CREATE INDEX idx_deployment_log_environment ON deployment_log (environment_id, started_at);
CREATE INDEX idx_deployment_log_version ON deployment_log (environment_version_id, started_at);

CREATE TABLE keys (
  id                 INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  environment_id     INTEGER NOT NULL REFERENCES environments (id),
  name               VARCHAR(64) NOT NULL,
  key_type           VARCHAR(32) NOT NULL
                     CONSTRAINT keys_key_type_check
                     CHECK (key_type IN ('api_key', 'database', 'transport', 'storage', 'tls', 'webhook')),
  description        TEXT,
  required           BOOLEAN NOT NULL DEFAULT true,
  fields             JSONB NOT NULL,  -- names only: ["api_key", "api_secret"]
  rotation_days      INTEGER CONSTRAINT keys_rotation_days_check CHECK (rotation_days >= 1),
  status             VARCHAR(16) NOT NULL DEFAULT 'not_set'
                     CONSTRAINT keys_status_check CHECK (status IN ('not_set', 'set', 'expired')),
  sealed_secret_ref  VARCHAR(256),
  last_rotated       TIMESTAMPTZ,
  expires_at         TIMESTAMPTZ,
  created_at         TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at         TIMESTAMPTZ NOT NULL DEFAULT now(),
  CONSTRAINT keys_environment_id_name_key UNIQUE (environment_id, name)
);
CREATE INDEX idx_keys_environment ON keys (environment_id);

CREATE TABLE key_audit_log (
  id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key_id      INTEGER NOT NULL REFERENCES keys (id),
  action      VARCHAR(32) NOT NULL
              CONSTRAINT key_audit_log_action_check
              CHECK (action IN ('created', 'rotated', 'accessed', 'deleted', 'sealed', 'exported')),
  actor       VARCHAR(128) NOT NULL,
  details     JSONB,  -- names of fields and stores; never a value
  created_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
  event_id    UUID NOT NULL DEFAULT gen_random_uuid()  -- a row that is written twice is there once
              CONSTRAINT key_audit_log_event_id_key UNIQUE
);
CREATE INDEX idx_key_audit_key_id ON key_audit_log (key_id);
CREATE INDEX idx_key_audit_created ON key_audit_log (created_at);

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
