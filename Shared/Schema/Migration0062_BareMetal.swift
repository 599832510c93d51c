/// Bare Metal: nodes, their traits, network interfaces and chassis. The condition on the states is
/// `ProvisionState.check`; a test compares them.
let bareMetalMigration = Migration(
    62, "bare metal", kind: .expand,
    """
    CREATE TABLE bare_metal_chassis (
        id uuid PRIMARY KEY,
        description text,
        extra jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz
    );
    CREATE INDEX bare_metal_chassis_order ON bare_metal_chassis (created_at, id);

    CREATE TABLE bare_metal_nodes (
        id uuid PRIMARY KEY,
        name text UNIQUE CHECK (name <> ''),
        chassis_uuid uuid REFERENCES bare_metal_chassis (id) ON DELETE RESTRICT,
        parent_node uuid REFERENCES bare_metal_nodes (id) ON DELETE RESTRICT,
        driver text NOT NULL,
        driver_info jsonb NOT NULL DEFAULT '{}',
        driver_secrets bytea,
        driver_secrets_key text,
        driver_internal_info jsonb NOT NULL DEFAULT '{}',
        bios_interface text NOT NULL,
        boot_interface text NOT NULL,
        console_interface text NOT NULL,
        deploy_interface text NOT NULL,
        firmware_interface text NOT NULL,
        inspect_interface text NOT NULL,
        management_interface text NOT NULL,
        network_interface text NOT NULL,
        power_interface text NOT NULL,
        raid_interface text NOT NULL,
        rescue_interface text NOT NULL,
        storage_interface text NOT NULL,
        vendor_interface text NOT NULL,
        properties jsonb NOT NULL DEFAULT '{}',
        instance_uuid uuid UNIQUE,
        instance_info jsonb NOT NULL DEFAULT '{}',
        extra jsonb NOT NULL DEFAULT '{}',
        network_data jsonb NOT NULL DEFAULT '{}',
        resource_class text,
        conductor_group text NOT NULL DEFAULT '',
        owner text,
        lessee text,
        shard text,
        description text,
        provision_state text NOT NULL,
        target_provision_state text,
        provision_updated_at timestamptz,
        power_state text CHECK (power_state IN ('power on', 'power off', 'error')),
        target_power_state text,
        boot_mode text,
        secure_boot boolean,
        clean_step jsonb NOT NULL DEFAULT '{}',
        deploy_step jsonb NOT NULL DEFAULT '{}',
        service_step jsonb NOT NULL DEFAULT '{}',
        raid_config jsonb NOT NULL DEFAULT '{}',
        target_raid_config jsonb NOT NULL DEFAULT '{}',
        maintenance boolean NOT NULL DEFAULT false,
        maintenance_reason text,
        fault text,
        last_error text,
        console_enabled boolean NOT NULL DEFAULT false,
        automated_clean boolean,
        protected boolean NOT NULL DEFAULT false,
        protected_reason text,
        retired boolean NOT NULL DEFAULT false,
        retired_reason text,
        disable_power_off boolean NOT NULL DEFAULT false,
        inspection_started_at timestamptz,
        inspection_finished_at timestamptz,
        inventory jsonb,
        generation bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        updated_at timestamptz,
        CONSTRAINT bare_metal_nodes_state CHECK (
        (provision_state = 'enroll' AND target_provision_state IS NULL)
        OR (provision_state = 'verifying' AND target_provision_state IN ('manageable'))
        OR (provision_state = 'manageable' AND target_provision_state IS NULL)
        OR (provision_state = 'available' AND target_provision_state IS NULL)
        OR (provision_state = 'inspecting' AND target_provision_state IN ('manageable'))
        OR (provision_state = 'inspect wait' AND target_provision_state IN ('manageable'))
        OR (provision_state = 'inspect failed' AND target_provision_state IN ('manageable'))
        OR (provision_state = 'deploying' AND target_provision_state IN ('active'))
        OR (provision_state = 'wait call-back' AND target_provision_state IN ('active'))
        OR (provision_state = 'deploy hold' AND target_provision_state IN ('active'))
        OR (provision_state = 'deploy failed' AND target_provision_state IN ('active'))
        OR (provision_state = 'active' AND target_provision_state IS NULL)
        OR (provision_state = 'deleting' AND target_provision_state IN ('available'))
        OR (provision_state = 'error' AND target_provision_state IS NULL)
        OR (provision_state = 'cleaning' AND target_provision_state IN ('available', 'manageable'))
        OR (provision_state = 'clean wait' AND target_provision_state IN ('available', 'manageable'))
        OR (provision_state = 'clean hold' AND target_provision_state IN ('available', 'manageable'))
        OR (provision_state = 'clean failed' AND target_provision_state IN ('available', 'manageable'))
        OR (provision_state = 'adopting' AND target_provision_state IN ('active'))
        OR (provision_state = 'adopt failed' AND target_provision_state IN ('active'))
        OR (provision_state = 'rescuing' AND target_provision_state IN ('rescue'))
        OR (provision_state = 'rescue wait' AND target_provision_state IN ('rescue'))
        OR (provision_state = 'rescue failed' AND target_provision_state IN ('rescue'))
        OR (provision_state = 'rescue' AND target_provision_state IS NULL)
        OR (provision_state = 'unrescuing' AND target_provision_state IN ('active'))
        OR (provision_state = 'unrescue failed' AND target_provision_state IN ('active'))
        OR (provision_state = 'servicing' AND target_provision_state IN ('active'))
        OR (provision_state = 'service wait' AND target_provision_state IN ('active'))
        OR (provision_state = 'service hold' AND target_provision_state IN ('active'))
        OR (provision_state = 'service failed' AND target_provision_state IN ('active'))),
        CHECK ((driver_secrets IS NULL) = (driver_secrets_key IS NULL)),
        CHECK (NOT maintenance OR maintenance_reason IS NULL OR length(maintenance_reason) <= 4096)
    );
    CREATE INDEX bare_metal_nodes_order ON bare_metal_nodes (created_at, id);
    CREATE INDEX bare_metal_nodes_owner ON bare_metal_nodes (owner) WHERE owner IS NOT NULL;
    CREATE INDEX bare_metal_nodes_lessee ON bare_metal_nodes (lessee) WHERE lessee IS NOT NULL;
    CREATE INDEX bare_metal_nodes_chassis ON bare_metal_nodes (chassis_uuid) WHERE chassis_uuid IS NOT NULL;
    CREATE INDEX bare_metal_nodes_parent ON bare_metal_nodes (parent_node) WHERE parent_node IS NOT NULL;

    CREATE TABLE bare_metal_node_traits (
        node_id uuid NOT NULL REFERENCES bare_metal_nodes (id) ON DELETE CASCADE,
        trait text NOT NULL,
        PRIMARY KEY (node_id, trait)
    );

    -- The config drives of instances: base64 text, sealed.
    CREATE TABLE bare_metal_config_drives (
        node_id uuid PRIMARY KEY REFERENCES bare_metal_nodes (id) ON DELETE CASCADE,
        sealed bytea NOT NULL,
        key_id text NOT NULL
    );

    CREATE TABLE bare_metal_portgroups (
        id uuid PRIMARY KEY,
        node_id uuid NOT NULL REFERENCES bare_metal_nodes (id) ON DELETE CASCADE,
        name text UNIQUE CHECK (name <> ''),
        address text UNIQUE,
        mode text NOT NULL DEFAULT 'active-backup',
        properties jsonb NOT NULL DEFAULT '{}',
        extra jsonb NOT NULL DEFAULT '{}',
        internal_info jsonb NOT NULL DEFAULT '{}',
        standalone_ports_supported boolean NOT NULL DEFAULT true,
        created_at timestamptz NOT NULL,
        updated_at timestamptz
    );
    CREATE INDEX bare_metal_portgroups_node ON bare_metal_portgroups (node_id);
    CREATE INDEX bare_metal_portgroups_order ON bare_metal_portgroups (created_at, id);

    CREATE TABLE bare_metal_ports (
        id uuid PRIMARY KEY,
        node_id uuid NOT NULL REFERENCES bare_metal_nodes (id) ON DELETE CASCADE,
        address text NOT NULL UNIQUE,
        name text UNIQUE CHECK (name <> ''),
        extra jsonb NOT NULL DEFAULT '{}',
        internal_info jsonb NOT NULL DEFAULT '{}',
        local_link_connection jsonb NOT NULL DEFAULT '{}',
        pxe_enabled boolean NOT NULL DEFAULT true,
        physical_network text,
        portgroup_id uuid REFERENCES bare_metal_portgroups (id) ON DELETE RESTRICT,
        is_smartnic boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL,
        updated_at timestamptz
    );
    CREATE INDEX bare_metal_ports_portgroup ON bare_metal_ports (portgroup_id) WHERE portgroup_id IS NOT NULL;
    CREATE INDEX bare_metal_ports_node ON bare_metal_ports (node_id);
    CREATE INDEX bare_metal_ports_order ON bare_metal_ports (created_at, id);

    CREATE TABLE bare_metal_node_history (
        id uuid PRIMARY KEY,
        node_id uuid NOT NULL REFERENCES bare_metal_nodes (id) ON DELETE CASCADE,
        created_at timestamptz NOT NULL,
        severity text NOT NULL CHECK (severity IN ('INFO', 'ERROR')),
        event_type text NOT NULL,
        event text NOT NULL,
        conductor text NOT NULL,
        user_id text
    );
    CREATE INDEX bare_metal_node_history_order ON bare_metal_node_history (node_id, created_at, id);

    CREATE TABLE bare_metal_allocations (
        id uuid PRIMARY KEY,
        name text UNIQUE CHECK (name <> ''),
        owner text,
        resource_class text NOT NULL,
        traits jsonb NOT NULL DEFAULT '[]',
        candidate_nodes jsonb NOT NULL DEFAULT '[]',
        extra jsonb NOT NULL DEFAULT '{}',
        node_id uuid UNIQUE REFERENCES bare_metal_nodes (id) ON DELETE CASCADE,
        state text NOT NULL CHECK (state IN ('active', 'error')),
        last_error text,
        created_at timestamptz NOT NULL,
        updated_at timestamptz,
        CHECK ((state = 'active') = (node_id IS NOT NULL))
    );
    CREATE INDEX bare_metal_allocations_order ON bare_metal_allocations (created_at, id);
    CREATE INDEX bare_metal_allocations_owner ON bare_metal_allocations (owner) WHERE owner IS NOT NULL;

    CREATE TABLE bare_metal_fake_machines (
        node_id uuid PRIMARY KEY REFERENCES bare_metal_nodes (id) ON DELETE CASCADE,
        is_on boolean NOT NULL DEFAULT false,
        boot_device text NOT NULL DEFAULT 'disk',
        is_persistent boolean NOT NULL DEFAULT true,
        config_drive_sha256 text
    );
    """)
