/// Resource providers, their inventories and allocations, and the scheduler's decisions.
let placementMigration = Migration(
    3, "placement",
    """
    -- Custom classes and traits only; the standard ones are the same in every build.
    CREATE TABLE resource_classes (
        name text PRIMARY KEY CHECK (name ~ '^CUSTOM_[A-Z0-9_]+$'),
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE TABLE traits (
        name text PRIMARY KEY CHECK (name ~ '^CUSTOM_[A-Z0-9_]+$'),
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );

    CREATE TABLE resource_providers (
        id uuid PRIMARY KEY,
        name text NOT NULL UNIQUE,
        generation bigint NOT NULL DEFAULT 0,
        parent_id uuid REFERENCES resource_providers (id),
        root_id uuid NOT NULL REFERENCES resource_providers (id),
        -- Set where the provider is a compute host: what the scheduler places on.
        host text UNIQUE,
        enabled boolean NOT NULL DEFAULT true,
        forced_down boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        CHECK ((parent_id IS NULL) = (root_id = id))
    );
    CREATE INDEX resource_providers_parent ON resource_providers (parent_id) WHERE parent_id IS NOT NULL;
    CREATE INDEX resource_providers_root ON resource_providers (root_id);

    CREATE TABLE inventories (
        resource_provider_id uuid NOT NULL REFERENCES resource_providers (id) ON DELETE CASCADE,
        resource_class text NOT NULL,
        total bigint NOT NULL CHECK (total >= 1),
        reserved bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0 AND reserved <= total),
        min_unit bigint NOT NULL DEFAULT 1 CHECK (min_unit >= 1),
        max_unit bigint NOT NULL DEFAULT 2147483647 CHECK (max_unit >= 1),
        step_size bigint NOT NULL DEFAULT 1 CHECK (step_size >= 1),
        allocation_ratio double precision NOT NULL DEFAULT 1 CHECK (allocation_ratio > 0),
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (resource_provider_id, resource_class)
    );
    CREATE INDEX inventories_class ON inventories (resource_class);

    CREATE TABLE provider_traits (
        resource_provider_id uuid NOT NULL REFERENCES resource_providers (id) ON DELETE CASCADE,
        trait text NOT NULL,
        PRIMARY KEY (resource_provider_id, trait)
    );
    CREATE INDEX provider_traits_trait ON provider_traits (trait);

    CREATE TABLE provider_aggregates (
        resource_provider_id uuid NOT NULL REFERENCES resource_providers (id) ON DELETE CASCADE,
        aggregate_id uuid NOT NULL,
        PRIMARY KEY (resource_provider_id, aggregate_id)
    );
    CREATE INDEX provider_aggregates_aggregate ON provider_aggregates (aggregate_id);

    CREATE TABLE consumers (
        id uuid PRIMARY KEY,
        project_id text NOT NULL,
        user_id text NOT NULL,
        consumer_type text,
        generation bigint NOT NULL DEFAULT 0,
        -- Made by the scheduler, and so for a server: goes when that is no more.
        scheduled boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX consumers_project ON consumers (project_id, user_id);
    CREATE INDEX consumers_scheduled ON consumers (created_at) WHERE scheduled;

    CREATE TABLE allocations (
        consumer_id uuid NOT NULL REFERENCES consumers (id) ON DELETE CASCADE,
        resource_provider_id uuid NOT NULL REFERENCES resource_providers (id),
        resource_class text NOT NULL,
        used bigint NOT NULL CHECK (used >= 1),
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (consumer_id, resource_provider_id, resource_class)
    );
    CREATE INDEX allocations_provider ON allocations (resource_provider_id, resource_class) INCLUDE (used);

    -- What was answered to each operation, for its repetition, and why, for people.
    CREATE TABLE scheduling_explanations (
        consumer_id uuid NOT NULL,
        operation_id uuid NOT NULL,
        answer jsonb NOT NULL,
        explanation jsonb NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (consumer_id, operation_id)
    );
    CREATE INDEX scheduling_explanations_age ON scheduling_explanations (created_at);
    """)
