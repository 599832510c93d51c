/// Volumes that take the place of others under running servers.
let volumeSwapMigration = Migration(
    61, "volume swap", kind: .expand,
    """
    ALTER TABLE server_volumes ADD COLUMN swap_volume_id uuid;
    """)
