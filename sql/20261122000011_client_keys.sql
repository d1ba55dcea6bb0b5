-- Keys of the gateway's clients: what each may do and until when; of the key itself only its SHA-256.

-- migrate:up
CREATE TABLE client_keys (
  id            CHAR(8) PRIMARY KEY
                CONSTRAINT client_keys_id_check CHECK (id ~ '^[0-9a-f]{8}$'),
  key_sha256    BYTEA NOT NULL
                CONSTRAINT client_keys_key_sha256_check CHECK (octet_length(key_sha256) = 32),
  name          VARCHAR(64) NOT NULL
                CONSTRAINT client_keys_name_check CHECK (name <> ''),
  scopes        TEXT[] NOT NULL
                CONSTRAINT client_keys_scopes_check
                CHECK (cardinality(scopes) > 0
                       AND scopes <@ ARRAY['read:live', 'read:history', 'write:feedback', 'admin']),
  created_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
  created_by    VARCHAR(128) NOT NULL,
  expires_at    TIMESTAMPTZ
                CONSTRAINT client_keys_expires_at_check CHECK (expires_at > created_at),
  revoked_at    TIMESTAMPTZ,
  revoked_by    VARCHAR(128),
  last_used_at  TIMESTAMPTZ,
  CONSTRAINT client_keys_revoked_check CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);

-- migrate:down
DO $$ BEGIN RAISE EXCEPTION 'migrations go forward only; restore a backup, or write a new migration'; END $$;
