/// Since when a host has been at work on the disks of a server, so that it is not waited for without an end.
let progressLimitsMigration = Migration(
    60, "progress limits", kind: .expand,
    """
    ALTER TABLE server_progress ADD COLUMN begun_at timestamptz NOT NULL DEFAULT now();
    -- The generation of the server for which the host began.
    ALTER TABLE server_progress ADD COLUMN generation bigint NOT NULL DEFAULT 0;
    """)
