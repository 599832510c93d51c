/// The progress of long tasks on hosts, such as loading the image of a large disk.
let serverProgressMigration = Migration(
    58, "progress of hosts", kind: .expand,
    """
    CREATE TABLE server_progress (
        server_id uuid PRIMARY KEY REFERENCES servers (id) ON DELETE CASCADE,
        host text NOT NULL,
        -- A number that changes as long as the host advances.
        done bigint NOT NULL,
        advanced_at timestamptz NOT NULL
    );
    """)
