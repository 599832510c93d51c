/// Tables used by every service: workflows, outbox and inbox, idempotency, audit, quotas.
let foundationMigration = Migration(
    1, "foundation",
    """
    CREATE TABLE workflows (
        id uuid PRIMARY KEY,
        service text NOT NULL,
        kind text NOT NULL,
        subject_id uuid NOT NULL,
        state text NOT NULL DEFAULT 'ready'
            CHECK (state IN ('ready', 'unwinding', 'done', 'failed')),
        step text NOT NULL,
        frame jsonb NOT NULL DEFAULT '{}',
        started_steps text[] NOT NULL DEFAULT '{}',
        run_at timestamptz NOT NULL,
        lease_holder text,
        lease_until timestamptz,
        epoch bigint NOT NULL DEFAULT 0,
        attempts integer NOT NULL DEFAULT 0,
        deadline timestamptz,
        last_error text,
        request_id text,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        finished_at timestamptz,
        CHECK ((finished_at IS NOT NULL) = (state IN ('done', 'failed')))
    );
    CREATE INDEX workflows_ready ON workflows (service, run_at, id) WHERE finished_at IS NULL;
    CREATE INDEX workflows_leased ON workflows (lease_holder) WHERE finished_at IS NULL AND lease_holder IS NOT NULL;
    CREATE INDEX workflows_subject ON workflows (subject_id) WHERE finished_at IS NULL;
    CREATE INDEX workflows_finished ON workflows (finished_at) WHERE finished_at IS NOT NULL;

    CREATE TABLE intents (
        subject_id uuid NOT NULL,
        service text NOT NULL,
        kind text NOT NULL,
        body jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        PRIMARY KEY (subject_id, kind)
    );

    CREATE TABLE outbox (
        id bigserial PRIMARY KEY,
        message_id uuid NOT NULL,
        queue text NOT NULL,
        type text NOT NULL,
        body jsonb NOT NULL,
        request_id text,
        leased_until timestamptz,
        created_at timestamptz NOT NULL
    );

    CREATE TABLE inbox (
        consumer text NOT NULL,
        message_id uuid NOT NULL,
        received_at timestamptz NOT NULL,
        PRIMARY KEY (consumer, message_id)
    );
    CREATE INDEX inbox_age ON inbox (received_at);

    CREATE TABLE idempotency_keys (
        scope text NOT NULL,
        key text NOT NULL,
        fingerprint text NOT NULL,
        status integer,
        headers jsonb,
        body bytea,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (scope, key)
    );
    CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

    CREATE TABLE audit_records (
        id bigserial PRIMARY KEY,
        at timestamptz NOT NULL,
        request_id text NOT NULL,
        user_id text,
        project_id text,
        action text NOT NULL,
        resource_type text NOT NULL,
        resource_id text,
        content jsonb
    );
    CREATE INDEX audit_records_resource ON audit_records (resource_id, id);

    CREATE TABLE quota_limits (
        project_id text NOT NULL,
        resource text NOT NULL,
        quota_limit bigint NOT NULL CHECK (quota_limit >= -1),
        PRIMARY KEY (project_id, resource)
    );

    CREATE TABLE quota_usages (
        project_id text NOT NULL,
        resource text NOT NULL,
        used bigint NOT NULL CHECK (used >= 0),
        PRIMARY KEY (project_id, resource)
    );
    """)
