/// Images, and the projects with which they are shared.
///
/// `file_id` names the stored data, `upload_id` the data that is being received: both are file names in the store, so
/// that what is in the store and what is in the database can be compared at any time.
let imageMigration = Migration(
    4, "image",
    """
    CREATE TABLE images (
        id uuid PRIMARY KEY,
        project_id text NOT NULL,
        name text,
        status text NOT NULL CHECK (status IN ('queued', 'saving', 'active', 'deactivated')),
        visibility text NOT NULL CHECK (visibility IN ('public', 'community', 'shared', 'private')),
        disk_format text,
        container_format text,
        min_disk integer NOT NULL DEFAULT 0 CHECK (min_disk >= 0),
        min_ram integer NOT NULL DEFAULT 0 CHECK (min_ram >= 0),
        size bigint CHECK (size >= 0),
        virtual_size bigint CHECK (virtual_size >= 0),
        checksum text,
        os_hash_algo text,
        os_hash_value text,
        protected boolean NOT NULL DEFAULT false,
        hidden boolean NOT NULL DEFAULT false,
        tags text[] NOT NULL DEFAULT '{}',
        properties jsonb NOT NULL DEFAULT '{}',
        file_id uuid UNIQUE,
        upload_id uuid UNIQUE,
        generation bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        CHECK ((file_id IS NOT NULL) = (status IN ('active', 'deactivated'))),
        CHECK ((upload_id IS NOT NULL) = (status = 'saving')),
        CHECK (file_id IS NULL OR (size IS NOT NULL AND checksum IS NOT NULL AND os_hash_value IS NOT NULL
            AND disk_format IS NOT NULL AND container_format IS NOT NULL))
    );
    CREATE INDEX images_project ON images (project_id, created_at, id);
    CREATE INDEX images_created ON images (created_at, id);
    CREATE INDEX images_visible ON images (visibility, created_at, id) WHERE visibility IN ('public', 'community');
    CREATE INDEX images_name ON images (name);
    CREATE INDEX images_tags ON images USING gin (tags);

    CREATE TABLE image_members (
        image_id uuid NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        member_id text NOT NULL,
        status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'accepted', 'rejected')),
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (image_id, member_id)
    );
    CREATE INDEX image_members_member ON image_members (member_id, image_id);
    """)
