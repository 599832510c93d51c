/// Control plane processes that use the database, with their release, so that contracting migrations do not break a running one.
let replicasMigration = Migration(
    26, "replicas", kind: .expand,
    """
    CREATE TABLE service_replicas (
        id uuid PRIMARY KEY,
        service text NOT NULL,
        host text NOT NULL,
        process integer NOT NULL,
        release text NOT NULL,
        -- The newest migration that the process knows.
        schema_version integer NOT NULL,
        started_at timestamptz NOT NULL,
        last_seen_at timestamptz NOT NULL
    );
    """)
