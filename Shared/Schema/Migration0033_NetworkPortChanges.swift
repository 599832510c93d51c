/// Changes of ports that the hosts of servers must know about. Network counts them, and Compute records up to which one it has sent
/// the desired state again, so that a message that the broker loses is noticed.
let networkPortChangesMigration = Migration(
    33, "counted changes of ports", kind: .expand,
    """
    CREATE TABLE port_changes (
        port_id uuid PRIMARY KEY REFERENCES ports (id) ON DELETE CASCADE,
        number bigint NOT NULL,
        changed_at timestamptz NOT NULL
    );
    ALTER TABLE server_interfaces ADD COLUMN port_change bigint NOT NULL DEFAULT 0;

    CREATE VIEW published_port_changes AS SELECT c.port_id, c.number, c.changed_at FROM port_changes c;
    COMMENT ON VIEW published_port_changes IS
        'Network: how often a port was changed in a way that its host must know, and when last';
    """)
