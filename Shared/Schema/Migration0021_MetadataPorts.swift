/// Metadata ports belong to no project.
let metadataPortsMigration = Migration(
    21, "metadata_ports",
    """
    UPDATE ports SET project_id = '' WHERE device_owner = 'network:distributed' AND project_id <> '';
    """)
