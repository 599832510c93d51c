/// The cleanup of the image store looks for data by its name.
let imageImportIndexesMigration = Migration(
    37, "indexes of image imports", kind: .index,
    """
    CREATE INDEX CONCURRENTLY IF NOT EXISTS images_staging ON images (staging_id) WHERE staging_id IS NOT NULL;
    CREATE INDEX CONCURRENTLY IF NOT EXISTS images_import_file ON images (import_file) WHERE import_file IS NOT NULL;
    """)
