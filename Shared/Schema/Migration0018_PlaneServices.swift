/// Heartbeats of the control plane's processes, default quotas that operators can change at run time, injected files of servers,
/// and a host's reason for a failure in terms for the tenant.
let planeServicesMigration = Migration(
    18, "plane_services",
    """
    -- Processes of the plane that work by themselves, beside the hosts' agents. Each process writes its own row;
    -- processes of one kind on one machine share it. Compute shows them and forgets them.
    CREATE TABLE plane_services (
        id uuid PRIMARY KEY,
        -- The number before 2.53, from the same sequence as the hosts' services.
        number integer NOT NULL UNIQUE DEFAULT nextval('compute_services_number_seq'),
        kind text NOT NULL CHECK (kind IN ('nova-conductor', 'nova-scheduler')),
        host text NOT NULL,
        version text NOT NULL,
        last_seen_at timestamptz NOT NULL,
        UNIQUE (kind, host)
    );
    -- Limits of projects that have none of their own, where an operator has changed the settings' ones.
    CREATE TABLE quota_defaults (
        resource text PRIMARY KEY,
        quota_limit bigint NOT NULL CHECK (quota_limit >= -1)
    );
    ALTER TABLE servers
        -- [{"path": …, "contents": base64}]
        ADD COLUMN personality jsonb NOT NULL DEFAULT '[]',
        -- What the host's failure means for the tenant; observed_error is for operators.
        ADD COLUMN observed_reason text;
    """)
