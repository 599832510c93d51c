/// Images that machines of the control plane keep close by, and those that they are to fetch.
///
/// `file_id` is the data in the machine's cache; it is NULL while the image is queued. `images.convert_file` names what the conversion of
/// an import writes.
let imageCacheMigration = Migration(
    41, "image cache and conversion",
    """
    CREATE TABLE image_cache (
        machine text NOT NULL,
        image_id uuid NOT NULL REFERENCES images ON DELETE CASCADE,
        file_id uuid,
        size bigint,
        hits bigint NOT NULL DEFAULT 0,
        queued_at timestamptz NOT NULL,
        cached_at timestamptz,
        accessed_at timestamptz,
        PRIMARY KEY (machine, image_id)
    );
    CREATE INDEX image_cache_image ON image_cache (image_id);
    ALTER TABLE images ADD COLUMN convert_file uuid;
    """)
