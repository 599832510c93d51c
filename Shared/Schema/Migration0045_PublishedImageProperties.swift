/// Placement derives the resources of a server from its image's properties too (`hw_cpu_policy`).
let publishedImagePropertiesMigration = Migration(
    45, "published image properties", kind: .expand,
    """
    CREATE OR REPLACE VIEW published_servers AS
        SELECT id, project_id, user_id, host, group_id, flavor, image, deleted, image_properties FROM servers;
    COMMENT ON VIEW published_servers IS
        'Compute: servers, ended ones too, with flavor, image and image properties as they were accepted';
    """)
