/// Staged data, imports and the stores of images.
///
/// `staging_id` names data that was staged, or that is being received while `staging_size` is NULL. `import_file` names the data
/// that an import writes. `stores` is empty for images of earlier releases, whose data is in the store `file`.
let imageImportMigration = Migration(
    36, "image import",
    """
    ALTER TABLE images ADD COLUMN staging_id uuid;
    ALTER TABLE images ADD COLUMN staging_size bigint;
    ALTER TABLE images ADD COLUMN staging_checksum text;
    ALTER TABLE images ADD COLUMN staging_hash text;
    ALTER TABLE images ADD COLUMN import_task uuid;
    ALTER TABLE images ADD COLUMN import_file uuid;
    ALTER TABLE images ADD COLUMN importing_to text[];
    ALTER TABLE images ADD COLUMN failed_import text[];
    ALTER TABLE images ADD COLUMN stores text[] NOT NULL DEFAULT '{}';
    ALTER TABLE images DROP CONSTRAINT images_status_check, ADD CONSTRAINT images_status_check
        CHECK (status IN ('queued', 'saving', 'uploading', 'importing', 'active', 'deactivated')) NOT VALID;

    CREATE TABLE image_tasks (
        id uuid PRIMARY KEY,
        image_id uuid NOT NULL,
        type text NOT NULL,
        status text NOT NULL CHECK (status IN ('pending', 'processing', 'success', 'failure')),
        project_id text NOT NULL,
        user_id text NOT NULL,
        request_id text NOT NULL,
        input jsonb NOT NULL,
        result jsonb,
        message text NOT NULL DEFAULT '',
        expires_at timestamptz,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX image_tasks_image ON image_tasks (image_id, created_at);
    CREATE INDEX image_tasks_project ON image_tasks (project_id, created_at, id);
    CREATE INDEX image_tasks_created ON image_tasks (created_at, id);
    CREATE INDEX image_tasks_expiry ON image_tasks (expires_at) WHERE expires_at IS NOT NULL;
    """)
