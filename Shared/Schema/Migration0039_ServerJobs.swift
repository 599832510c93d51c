/// Long-running jobs of hosts on servers; shelved servers. Migration 34 has their states.
let serverJobsMigration = Migration(
    39, "server jobs", kind: .expand,
    """
    CREATE TABLE server_jobs (
        id uuid PRIMARY KEY,
        server_id uuid NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
        host text NOT NULL,
        -- What the host must do.
        job jsonb NOT NULL,
        -- What the host last said.
        state text NOT NULL DEFAULT 'ordered' CHECK (state IN ('ordered', 'running', 'done', 'failed')),
        phase text,
        progress integer NOT NULL DEFAULT 0,
        error text,
        reason text,
        created_at timestamptz NOT NULL,
        reported_at timestamptz
    );
    CREATE INDEX server_jobs_server ON server_jobs (server_id);
    -- What the root disk is made from on the present host, where that is not `image`.
    ALTER TABLE servers ADD COLUMN root_image jsonb;
    ALTER TABLE servers ADD COLUMN shelved_image_id uuid;
    ALTER TABLE servers ADD COLUMN shelved_at timestamptz;
    """)
