/// Glance's metadata definitions: namespaces with objects, properties, tags, and the types of resources they are for.
///
/// `place` is the order in which the parts of a namespace were made. `metadef_loads` records which of the definitions that come
/// with a release are in the catalog; one that was changed or deleted through the API is `customized` and not loaded again.
let imageMetadataDefinitionsMigration = Migration(
    29, "metadata definitions",
    """
    CREATE TABLE metadef_namespaces (
        id uuid PRIMARY KEY,
        namespace text NOT NULL UNIQUE,
        display_name text,
        description text,
        visibility text NOT NULL CHECK (visibility IN ('public', 'private')),
        protected boolean NOT NULL DEFAULT false,
        project_id text,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX metadef_namespaces_created ON metadef_namespaces (created_at, namespace);

    CREATE TABLE metadef_resource_types (
        name text PRIMARY KEY,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    INSERT INTO metadef_resource_types (name, created_at, updated_at)
        SELECT name, now(), now() FROM unnest(ARRAY['OS::Cinder::Volume', 'OS::Glance::Image', 'OS::Nova::Aggregate',
            'OS::Nova::Flavor', 'OS::Nova::Server']) AS name;

    CREATE TABLE metadef_associations (
        namespace_id uuid NOT NULL REFERENCES metadef_namespaces (id) ON DELETE CASCADE,
        resource_type text NOT NULL REFERENCES metadef_resource_types (name),
        prefix text,
        properties_target text,
        place bigint GENERATED ALWAYS AS IDENTITY,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (namespace_id, resource_type)
    );
    CREATE INDEX metadef_associations_type ON metadef_associations (resource_type, namespace_id);

    CREATE TABLE metadef_objects (
        namespace_id uuid NOT NULL REFERENCES metadef_namespaces (id) ON DELETE CASCADE,
        name text NOT NULL,
        description text,
        required jsonb,
        properties jsonb,
        place bigint GENERATED ALWAYS AS IDENTITY,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (namespace_id, name)
    );

    CREATE TABLE metadef_properties (
        namespace_id uuid NOT NULL REFERENCES metadef_namespaces (id) ON DELETE CASCADE,
        name text NOT NULL,
        definition jsonb NOT NULL,
        place bigint GENERATED ALWAYS AS IDENTITY,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (namespace_id, name)
    );

    CREATE TABLE metadef_tags (
        namespace_id uuid NOT NULL REFERENCES metadef_namespaces (id) ON DELETE CASCADE,
        name text NOT NULL,
        place bigint GENERATED ALWAYS AS IDENTITY,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (namespace_id, name)
    );

    CREATE TABLE metadef_loads (
        namespace text PRIMARY KEY,
        digest text NOT NULL,
        customized boolean NOT NULL DEFAULT false
    );
    """)
