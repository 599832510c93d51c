/// Disks that may be the only usable ones of a server.
let neededDisksMigration = Migration(
    63, "needed disks", kind: .expand,
    """
    -- Whether the host keeps them until the server has been started where it is now, because that host has failed. Rows of earlier
    -- replicas do not say whether it has.
    ALTER TABLE server_kept_disks ADD COLUMN until_started boolean NOT NULL DEFAULT true;
    """)
