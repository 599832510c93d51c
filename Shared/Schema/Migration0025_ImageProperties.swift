/// Image properties that affect a server's hardware and host, also for servers that boot from a volume created from the image.
/// NULL for servers of release 0.1.0, which only has the properties of `image`.
let imagePropertiesMigration = Migration(
    25, "image properties of servers",
    """
    ALTER TABLE servers ADD COLUMN image_properties jsonb;
    CREATE OR REPLACE VIEW published_volumes AS
        SELECT id, project_id, status, size, bootable, multiattach, image_metadata FROM volumes;
    COMMENT ON VIEW published_volumes IS 'Block Storage: volumes';
    UPDATE servers SET image_properties = image -> 'properties' WHERE jsonb_typeof(image -> 'properties') = 'object';
    """)
