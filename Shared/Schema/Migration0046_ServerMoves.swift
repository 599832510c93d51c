/// Servers whose local disks move to another host.
let serverMovesMigration = Migration(
    46, "server moves", kind: .expand,
    """
    -- The tag of the local root disk. Replicas of release 0.1.0 take every entry of `requested_devices` for a volume.
    ALTER TABLE servers ADD COLUMN root_tag text;
    -- Images of which the server's host makes its disks: copies of those that another host has. Null: none.
    ALTER TABLE servers ADD COLUMN disk_sources jsonb;
    -- Whether the local root disk has no image below it, because it was made of a copy of a disk.
    ALTER TABLE servers ADD COLUMN root_is_copy boolean NOT NULL DEFAULT false;
    """)
