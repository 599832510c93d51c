/// Every two seconds Compute looks for snapshots that wait for a host's copy.
let hostCopyIndexMigration = Migration(
    59, "index of host copies", kind: .index,
    """
    CREATE INDEX CONCURRENTLY IF NOT EXISTS volume_snapshots_host_copy ON volume_snapshots (volume_id)
        WHERE host_copy = 'pending' AND status = 'creating';
    """)
