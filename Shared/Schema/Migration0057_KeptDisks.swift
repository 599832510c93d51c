/// Hosts that still have disks of a server that is on another host.
let keptDisksMigration = Migration(
    57, "kept disks", kind: .expand,
    """
    -- The disks stay while the server's move can be reverted, and until it has been started at its place.
    CREATE TABLE server_kept_disks (
        server_id uuid NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
        host text NOT NULL,
        PRIMARY KEY (server_id, host)
    );
    INSERT INTO server_kept_disks (server_id, host)
        SELECT m.server_id, m.source_host FROM server_migrations m JOIN servers s ON s.id = m.server_id
        WHERE m.status IN ('migrating', 'finished', 'reverting') AND s.host = m.dest_host AND m.dest_host <> m.source_host
        ON CONFLICT DO NOTHING;
    """)
