/// Servers whose flavor changes, and the record of resizes and moves.
let computeMigrationsMigration = Migration(
    35, "compute migrations",
    """
    -- The flavor that the server had before a resize, or is going to have. It counts with the flavor until the resize is confirmed or
    -- reverted.
    ALTER TABLE servers ADD COLUMN other_flavor jsonb;
    ALTER TABLE servers ADD COLUMN other_flavor_id uuid;
    -- Whether the host keeps copies of the disks that the resize has changed.
    ALTER TABLE servers ADD COLUMN keeps_disks boolean NOT NULL DEFAULT false;
    CREATE TABLE server_migrations (
        id bigserial PRIMARY KEY,
        -- Consumer of the allocations that the server had before.
        uuid uuid NOT NULL UNIQUE,
        server_id uuid NOT NULL,
        type text NOT NULL CHECK (type IN ('resize', 'migration', 'live-migration', 'evacuation')),
        status text NOT NULL,
        source_host text NOT NULL,
        dest_host text,
        old_flavor jsonb NOT NULL,
        new_flavor jsonb NOT NULL,
        user_id text NOT NULL,
        project_id text,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX server_migrations_server ON server_migrations (server_id, id DESC);
    CREATE INDEX server_migrations_created ON server_migrations (created_at DESC, uuid DESC);
    """)
