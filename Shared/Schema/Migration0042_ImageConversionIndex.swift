/// The cleanup of the image store looks for data by its name.
let imageConversionIndexMigration = Migration(
    42, "index of image conversions", kind: .index,
    """
    CREATE INDEX CONCURRENTLY IF NOT EXISTS images_convert_file ON images (convert_file) WHERE convert_file IS NOT NULL;
    """)
