/// Servers that move while they run: the hosts that expect them, and the progress.
let liveMigrationMigration = Migration(
    43, "live migration", kind: .expand,
    """
    -- A host that is prepared for a server which still runs elsewhere. `desired` is the message for the agent.
    CREATE TABLE server_arrivals (
        server_id uuid PRIMARY KEY REFERENCES servers (id) ON DELETE CASCADE,
        host text NOT NULL,
        generation bigint NOT NULL,
        desired jsonb NOT NULL,
        published_at timestamptz NOT NULL,
        -- What the host last said: of which generation, `expected`, `running` or `absent`, and why it failed.
        observed_generation bigint NOT NULL DEFAULT -1,
        observed_power text,
        observed_error text,
        observed_reason text,
        observed_permanent boolean NOT NULL DEFAULT false,
        -- Where the other host sends the guest.
        endpoint jsonb
    );
    CREATE INDEX server_arrivals_host ON server_arrivals (host);
    ALTER TABLE server_migrations ADD COLUMN abort_requested boolean NOT NULL DEFAULT false;
    -- Bytes, as the source's hypervisor counts them.
    ALTER TABLE server_migrations ADD COLUMN memory_total bigint;
    ALTER TABLE server_migrations ADD COLUMN memory_processed bigint;
    ALTER TABLE server_migrations ADD COLUMN memory_remaining bigint;
    ALTER TABLE server_migrations ADD COLUMN disk_total bigint;
    ALTER TABLE server_migrations ADD COLUMN disk_processed bigint;
    ALTER TABLE server_migrations ADD COLUMN disk_remaining bigint;
    """)
