/// Volumes, snapshots, attachments, volume types, and the services that manage them.
let blockStorageMigration = Migration(
    6, "block_storage",
    """
    CREATE TABLE volume_types (
        id uuid PRIMARY KEY,
        name text NOT NULL UNIQUE,
        description text,
        is_public boolean NOT NULL DEFAULT true,
        extra_specs jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz
    );
    INSERT INTO volume_types (id, name, description, created_at)
        VALUES (gen_random_uuid(), '__DEFAULT__', 'Default Volume Type', now());
    CREATE TABLE volume_type_access (
        volume_type_id uuid NOT NULL REFERENCES volume_types (id) ON DELETE CASCADE,
        project_id text NOT NULL,
        PRIMARY KEY (volume_type_id, project_id)
    );

    CREATE TABLE volumes (
        id uuid PRIMARY KEY,
        project_id text NOT NULL,
        user_id text NOT NULL,
        name text,
        description text,
        status text NOT NULL CHECK (status IN (
            'creating', 'downloading', 'available', 'reserved', 'attaching', 'in-use', 'detaching', 'extending',
            'retyping', 'uploading', 'maintenance', 'deleting', 'error', 'error_deleting', 'error_extending',
            'awaiting-transfer')),
        size integer NOT NULL CHECK (size >= 1),
        bootable boolean NOT NULL DEFAULT false,
        volume_type_id uuid NOT NULL REFERENCES volume_types (id),
        multiattach boolean NOT NULL DEFAULT false,
        read_only boolean NOT NULL DEFAULT false,
        availability_zone text NOT NULL,
        metadata jsonb NOT NULL DEFAULT '{}',
        image_metadata jsonb,
        source_snapshot_id uuid,
        source_volume_id uuid,
        source_image_id uuid,
        service_host text NOT NULL,
        format text NOT NULL CHECK (format IN ('raw', 'qcow2')),
        fault text,
        generation bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX volumes_project ON volumes (project_id, created_at, id);
    CREATE INDEX volumes_created ON volumes (created_at, id);
    CREATE INDEX volumes_type ON volumes (volume_type_id);

    CREATE TABLE volume_snapshots (
        id uuid PRIMARY KEY,
        volume_id uuid NOT NULL REFERENCES volumes (id),
        project_id text NOT NULL,
        user_id text NOT NULL,
        name text,
        description text,
        status text NOT NULL CHECK (status IN ('creating', 'available', 'deleting', 'error', 'error_deleting')),
        size integer NOT NULL CHECK (size >= 1),
        metadata jsonb NOT NULL DEFAULT '{}',
        format text NOT NULL CHECK (format IN ('raw', 'qcow2')),
        fault text,
        generation bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX volume_snapshots_project ON volume_snapshots (project_id, created_at, id);
    CREATE INDEX volume_snapshots_volume ON volume_snapshots (volume_id);

    CREATE TABLE volume_attachments (
        id uuid PRIMARY KEY,
        volume_id uuid NOT NULL REFERENCES volumes (id),
        project_id text NOT NULL,
        server_id uuid,
        status text NOT NULL CHECK (status IN ('reserved', 'attaching', 'attached', 'detaching', 'error_attaching')),
        mode text CHECK (mode IN ('rw', 'ro')),
        device text,
        host text,
        connector jsonb,
        connection jsonb,
        attached_at timestamptz,
        generation bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX volume_attachments_volume ON volume_attachments (volume_id);
    CREATE INDEX volume_attachments_server ON volume_attachments (server_id);
    CREATE INDEX volume_attachments_project ON volume_attachments (project_id, created_at, id);

    CREATE TABLE block_storage_services (
        host text NOT NULL,
        kind text NOT NULL,
        availability_zone text NOT NULL,
        disabled boolean NOT NULL DEFAULT false,
        disabled_reason text,
        total_gb bigint NOT NULL DEFAULT 0,
        free_gb bigint NOT NULL DEFAULT 0,
        seen_at timestamptz NOT NULL,
        PRIMARY KEY (host, kind)
    );
    """)
