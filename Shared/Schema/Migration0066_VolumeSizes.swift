/// The sizes of attached volumes that hosts have been told of, in GiB. Volumes can be extended while servers have them.
let volumeSizesMigration = Migration(
    66, "volume sizes", kind: .expand,
    """
    -- NULL for rows of earlier replicas; their hosts are told at the next change of the server.
    ALTER TABLE server_volumes ADD COLUMN size_gb integer;
    """)
