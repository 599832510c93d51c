/// Servers, flavors, key pairs, server groups, hosts, aggregates.
let computeMigration = Migration(7, "compute", computeCatalogSQL + computeServersSQL + computeHostsSQL)

private let computeCatalogSQL = """
    CREATE TABLE flavors (
        id uuid PRIMARY KEY,
        flavorid text NOT NULL UNIQUE,
        name text NOT NULL UNIQUE,
        description text,
        vcpus integer NOT NULL CHECK (vcpus >= 1),
        memory_mb integer NOT NULL CHECK (memory_mb >= 1),
        root_gb integer NOT NULL CHECK (root_gb >= 0),
        ephemeral_gb integer NOT NULL DEFAULT 0 CHECK (ephemeral_gb >= 0),
        swap_mb integer NOT NULL DEFAULT 0 CHECK (swap_mb >= 0),
        rxtx_factor double precision NOT NULL DEFAULT 1,
        extra_specs jsonb NOT NULL DEFAULT '{}',
        is_public boolean NOT NULL DEFAULT true,
        disabled boolean NOT NULL DEFAULT false,
        generation bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        updated_at timestamptz
    );
    CREATE TABLE flavor_access (
        flavor_id uuid NOT NULL REFERENCES flavors (id) ON DELETE CASCADE,
        project_id text NOT NULL,
        PRIMARY KEY (flavor_id, project_id)
    );

    CREATE TABLE keypairs (
        id bigserial PRIMARY KEY,
        user_id text NOT NULL,
        name text NOT NULL,
        type text NOT NULL CHECK (type = 'ssh'),
        fingerprint text NOT NULL,
        public_key text NOT NULL,
        created_at timestamptz NOT NULL,
        UNIQUE (user_id, name)
    );

    CREATE TABLE server_groups (
        id uuid PRIMARY KEY,
        project_id text NOT NULL,
        user_id text NOT NULL,
        name text NOT NULL,
        policy text NOT NULL
            CHECK (policy IN ('affinity', 'anti-affinity', 'soft-affinity', 'soft-anti-affinity')),
        rules jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL
    );
    CREATE INDEX server_groups_project ON server_groups (project_id, id);

    """

private let computeServersSQL = """
    CREATE TABLE servers (
        id uuid PRIMARY KEY,
        project_id text NOT NULL,
        user_id text NOT NULL,
        name text NOT NULL,
        description text,
        hostname text NOT NULL,
        vm_state text NOT NULL,
        task_state text,
        power_state integer NOT NULL DEFAULT 0 CHECK (power_state IN (0, 1, 3, 4, 6, 7)),
        progress integer NOT NULL DEFAULT 0,
        fault jsonb,
        host text,
        flavor_id uuid NOT NULL,
        -- The flavor as it was when the server got it.
        flavor jsonb NOT NULL,
        image_id uuid,
        -- What the agent must know of the image.
        image jsonb,
        key_name text,
        key_data text,
        user_data text,
        config_drive boolean NOT NULL DEFAULT false,
        metadata jsonb NOT NULL DEFAULT '{}',
        tags text[] NOT NULL DEFAULT '{}',
        availability_zone text,
        pinned_zone text,
        requested_host text,
        scheduler_hints jsonb NOT NULL DEFAULT '{}',
        group_id uuid REFERENCES server_groups (id) ON DELETE SET NULL,
        requested_networks jsonb NOT NULL DEFAULT '[]',
        requested_devices jsonb NOT NULL DEFAULT '[]',
        security_groups jsonb NOT NULL DEFAULT '[]',
        locked_by text,
        locked_reason text,
        access_ip_v4 text,
        access_ip_v6 text,
        disk_config text NOT NULL DEFAULT 'MANUAL' CHECK (disk_config IN ('AUTO', 'MANUAL')),
        launch_index integer NOT NULL DEFAULT 0,
        reservation_id text NOT NULL,
        root_device text NOT NULL DEFAULT '/dev/vda',
        -- What the host shall do. Each change raises generation and epoch; `desired_by` names the one that asked.
        power text NOT NULL DEFAULT 'running'
            CHECK (power IN ('running', 'shutoff', 'paused', 'suspended', 'absent')),
        operation jsonb,
        generation bigint NOT NULL DEFAULT 1,
        epoch bigint NOT NULL DEFAULT 1,
        desired_by text,
        published_at timestamptz,
        -- What the host last said.
        observed_generation bigint NOT NULL DEFAULT 0,
        observed_power text,
        observed_state text,
        observed_error text,
        observed_permanent boolean NOT NULL DEFAULT false,
        observed_operation text,
        observed_host text,
        observed_at timestamptz,
        metadata_ready boolean NOT NULL DEFAULT false,
        deleted boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        launched_at timestamptz,
        terminated_at timestamptz,
        CONSTRAINT servers_state CHECK (
            (vm_state = 'building' AND (task_state IS NULL OR task_state IN ('scheduling', 'networking', 'block_device_mapping', 'spawning', 'deleting')))
            OR (vm_state = 'active' AND (task_state IS NULL OR task_state IN ('powering-off', 'rebooting', 'rebooting_hard', 'pausing', 'suspending', 'deleting')))
            OR (vm_state = 'stopped' AND (task_state IS NULL OR task_state IN ('powering-on', 'rebooting_hard', 'deleting')))
            OR (vm_state = 'paused' AND (task_state IS NULL OR task_state IN ('unpausing', 'rebooting_hard', 'deleting')))
            OR (vm_state = 'suspended' AND (task_state IS NULL OR task_state IN ('resuming', 'rebooting_hard', 'deleting')))
            OR (vm_state = 'error' AND (task_state IS NULL OR task_state IN ('powering-off', 'rebooting_hard', 'deleting')))
            OR (vm_state = 'deleted' AND task_state IS NULL)
        ),
        CONSTRAINT servers_deleted CHECK (deleted = (vm_state = 'deleted'))
    );
    CREATE INDEX servers_project ON servers (project_id, created_at DESC, id DESC) WHERE NOT deleted;
    CREATE INDEX servers_created ON servers (created_at DESC, id DESC) WHERE NOT deleted;
    CREATE INDEX servers_host ON servers (host) WHERE NOT deleted;
    CREATE INDEX servers_group ON servers (group_id) WHERE NOT deleted;
    CREATE INDEX servers_updated ON servers (updated_at);
    CREATE INDEX servers_lagging ON servers (published_at) WHERE NOT deleted AND host IS NOT NULL AND observed_generation < generation;

    -- Ports of a server in the order of its interfaces; `created`: by the server's own workflow, which deletes it.
    CREATE TABLE server_interfaces (
        port_id uuid PRIMARY KEY,
        server_id uuid NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
        position integer NOT NULL,
        network_id uuid NOT NULL,
        created boolean NOT NULL,
        tag text,
        state text NOT NULL DEFAULT 'attached' CHECK (state IN ('attaching', 'attached', 'detaching'))
    );
    CREATE INDEX server_interfaces_server ON server_interfaces (server_id, position);

    CREATE TABLE server_volumes (
        id uuid PRIMARY KEY,
        server_id uuid NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
        volume_id uuid NOT NULL,
        attachment_id uuid,
        device text NOT NULL,
        boot_index integer,
        created boolean NOT NULL DEFAULT false,
        delete_on_termination boolean NOT NULL DEFAULT false,
        tag text,
        connection jsonb,
        state text NOT NULL DEFAULT 'attaching' CHECK (state IN ('attaching', 'attached', 'detaching')),
        created_at timestamptz NOT NULL,
        UNIQUE (server_id, volume_id),
        UNIQUE (server_id, device)
    );
    CREATE INDEX server_volumes_volume ON server_volumes (volume_id);

    -- Hosts on which a server must not exist (any more), until they say so. `desired` is the message for the agent.
    CREATE TABLE server_absences (
        server_id uuid NOT NULL,
        host text NOT NULL,
        generation bigint NOT NULL,
        desired jsonb NOT NULL,
        published_at timestamptz NOT NULL,
        PRIMARY KEY (server_id, host)
    );
    CREATE INDEX server_absences_host ON server_absences (host);

    CREATE TABLE server_actions (
        id bigserial PRIMARY KEY,
        server_id uuid NOT NULL,
        request_id text NOT NULL,
        action text NOT NULL,
        user_id text,
        project_id text,
        start_time timestamptz NOT NULL,
        finish_time timestamptz,
        updated_at timestamptz NOT NULL,
        message text,
        event text,
        result text CHECK (result IN ('Success', 'Error')),
        host text,
        details text
    );
    CREATE INDEX server_actions_server ON server_actions (server_id, id DESC);

    """

private let computeHostsSQL = """
    CREATE TABLE compute_services (
        id uuid PRIMARY KEY,
        number serial NOT NULL UNIQUE,
        host text NOT NULL UNIQUE,
        enabled boolean NOT NULL DEFAULT true,
        disabled_reason text,
        forced_down boolean NOT NULL DEFAULT false,
        availability_zone text NOT NULL DEFAULT 'nova',
        version text,
        last_seen_at timestamptz,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE TABLE hypervisors (
        id uuid PRIMARY KEY,
        number serial NOT NULL UNIQUE,
        host text NOT NULL UNIQUE REFERENCES compute_services (host) ON DELETE CASCADE,
        hypervisor_type text NOT NULL,
        hypervisor_version bigint NOT NULL,
        virt_type text NOT NULL,
        vcpus integer NOT NULL,
        memory_mb bigint NOT NULL,
        disk_gb bigint NOT NULL,
        cpu_info jsonb NOT NULL DEFAULT '{}',
        capabilities jsonb NOT NULL DEFAULT '{}',
        host_ip text,
        -- The capabilities that Placement knows; other ones are written there.
        placed jsonb,
        updated_at timestamptz NOT NULL
    );
    CREATE TABLE aggregates (
        id serial PRIMARY KEY,
        uuid uuid NOT NULL UNIQUE,
        name text NOT NULL UNIQUE,
        availability_zone text,
        metadata jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz
    );
    CREATE TABLE aggregate_hosts (
        aggregate_id integer NOT NULL REFERENCES aggregates (id) ON DELETE CASCADE,
        host text NOT NULL,
        PRIMARY KEY (aggregate_id, host)
    );
    CREATE INDEX aggregate_hosts_host ON aggregate_hosts (host);
    """
