/// Snapshots of volumes in use, which hypervisor hosts copy.
let hostCopiesMigration = Migration(
    50, "host copies", kind: .expand,
    """
    ALTER TABLE volume_snapshots ADD COLUMN host_copy text CHECK (host_copy IN ('pending', 'done', 'failed'));
    CREATE OR REPLACE VIEW published_volume_snapshots AS
        SELECT id, project_id, volume_id, status, size, host_copy, user_id FROM volume_snapshots;
    COMMENT ON VIEW published_volume_snapshots IS 'Block Storage: snapshots';
    """)
