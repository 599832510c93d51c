/// Service users, access rules that outlive their application credential, and credentials and counters of one-time passwords.
let identityControlMigration = Migration(
    15, "identity control",
    """
    ALTER TABLE users ADD COLUMN service_user boolean NOT NULL DEFAULT false;
    UPDATE users SET service_user = true WHERE domain_id = 'default' AND id IN (
        SELECT a.user_id FROM role_assignments a JOIN roles r ON r.id = a.role_id
        WHERE r.name = 'service' AND r.domain_id IS NULL);
    ALTER TABLE users ADD COLUMN failed_codes integer NOT NULL DEFAULT 0;
    ALTER TABLE users ADD COLUMN failed_code_at timestamptz;

    CREATE TABLE access_rules (
        id text PRIMARY KEY,
        user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        service text NOT NULL CHECK (length(service) BETWEEN 1 AND 255),
        method text NOT NULL,
        path text NOT NULL CHECK (length(path) BETWEEN 1 AND 255),
        created_at timestamptz NOT NULL
    );
    CREATE INDEX access_rules_user ON access_rules (user_id, service, method, path);
    INSERT INTO access_rules (id, user_id, service, method, path, created_at)
        SELECT r ->> 'id', c.user_id, r ->> 'service', r ->> 'method', r ->> 'path', c.created_at
        FROM application_credentials c CROSS JOIN LATERAL jsonb_array_elements(c.access_rules) r
        WHERE c.access_rules IS NOT NULL ON CONFLICT DO NOTHING;

    CREATE TABLE credentials (
        id text PRIMARY KEY,
        user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        project_id text REFERENCES projects (id) ON DELETE CASCADE,
        type text NOT NULL CHECK (length(type) BETWEEN 1 AND 255),
        sealed bytea NOT NULL,
        key_id text NOT NULL,
        last_step bigint NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX credentials_user ON credentials (user_id, type);
    CREATE INDEX credentials_project ON credentials (project_id);

    -- Whether a user's options ask for more than a password at sign-on.
    CREATE FUNCTION user_needs_factors(p_options jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
        SELECT coalesce((p_options ->> 'multi_factor_auth_enabled')::boolean, true)
            AND jsonb_array_length(coalesce(p_options -> 'multi_factor_auth_rules', '[]')) > 0
            AND NOT EXISTS (
                SELECT FROM jsonb_array_elements(p_options -> 'multi_factor_auth_rules') r WHERE r <@ '["password"]')
    $$;
    """)
