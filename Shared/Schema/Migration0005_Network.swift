/// The tenants' network resources, and the pending changes for the northbound database.
let networkMigration = Migration(
    5, "network",
    """
    CREATE SEQUENCE network_segment_ids MINVALUE 1 MAXVALUE 16777215 CYCLE;

    CREATE TABLE networks (
        id uuid PRIMARY KEY,
        project_id text NOT NULL,
        name text NOT NULL DEFAULT '',
        description text NOT NULL DEFAULT '',
        status text NOT NULL DEFAULT 'ACTIVE' CHECK (status IN ('ACTIVE', 'DOWN', 'BUILD', 'ERROR')),
        admin_state_up boolean NOT NULL DEFAULT true,
        shared boolean NOT NULL DEFAULT false,
        external boolean NOT NULL DEFAULT false,
        is_default boolean NOT NULL DEFAULT false,
        mtu integer NOT NULL CHECK (mtu BETWEEN 68 AND 65535),
        port_security_enabled boolean NOT NULL DEFAULT true,
        provider_type text NOT NULL CHECK (provider_type IN ('geneve', 'flat', 'vlan')),
        physical_network text,
        segmentation_id integer,
        dns_domain text NOT NULL DEFAULT '',
        availability_zone_hints jsonb NOT NULL DEFAULT '[]',
        tags text[] NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        generation bigint NOT NULL DEFAULT 1,
        CHECK ((provider_type = 'geneve') = (physical_network IS NULL))
    );
    CREATE INDEX networks_project ON networks (project_id, id);
    CREATE INDEX networks_public ON networks (id) WHERE shared OR external;
    CREATE UNIQUE INDEX networks_flat ON networks (physical_network) WHERE provider_type = 'flat';
    CREATE UNIQUE INDEX networks_vlan ON networks (physical_network, segmentation_id) WHERE provider_type = 'vlan';
    CREATE UNIQUE INDEX networks_default ON networks (is_default) WHERE is_default;

    CREATE TABLE subnets (
        id uuid PRIMARY KEY,
        network_id uuid NOT NULL REFERENCES networks,
        project_id text NOT NULL,
        name text NOT NULL DEFAULT '',
        description text NOT NULL DEFAULT '',
        ip_version integer NOT NULL CHECK (ip_version IN (4, 6)),
        cidr text NOT NULL,
        gateway_ip text,
        enable_dhcp boolean NOT NULL DEFAULT true,
        allocation_pools jsonb NOT NULL DEFAULT '[]',
        dns_nameservers jsonb NOT NULL DEFAULT '[]',
        host_routes jsonb NOT NULL DEFAULT '[]',
        ipv6_address_mode text,
        ipv6_ra_mode text,
        service_types jsonb NOT NULL DEFAULT '[]',
        tags text[] NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        generation bigint NOT NULL DEFAULT 1,
        UNIQUE (network_id, cidr)
    );
    CREATE INDEX subnets_project ON subnets (project_id, id);

    CREATE TABLE security_groups (
        id uuid PRIMARY KEY,
        project_id text NOT NULL,
        name text NOT NULL DEFAULT '',
        description text NOT NULL DEFAULT '',
        stateful boolean NOT NULL DEFAULT true,
        tags text[] NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        generation bigint NOT NULL DEFAULT 1
    );
    CREATE INDEX security_groups_project ON security_groups (project_id, id);
    CREATE UNIQUE INDEX security_groups_default ON security_groups (project_id) WHERE name = 'default';

    CREATE TABLE security_group_rules (
        id uuid PRIMARY KEY,
        security_group_id uuid NOT NULL REFERENCES security_groups ON DELETE CASCADE,
        project_id text NOT NULL,
        description text NOT NULL DEFAULT '',
        direction text NOT NULL CHECK (direction IN ('ingress', 'egress')),
        ethertype text NOT NULL CHECK (ethertype IN ('IPv4', 'IPv6')),
        protocol text,
        port_range_min integer,
        port_range_max integer,
        remote_ip_prefix text,
        remote_group_id uuid REFERENCES security_groups ON DELETE CASCADE,
        signature text NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        generation bigint NOT NULL DEFAULT 1,
        CHECK (remote_ip_prefix IS NULL OR remote_group_id IS NULL),
        UNIQUE (security_group_id, signature)
    );
    CREATE INDEX security_group_rules_remote ON security_group_rules (remote_group_id);
    CREATE INDEX security_group_rules_project ON security_group_rules (project_id, id);

    CREATE TABLE ports (
        id uuid PRIMARY KEY,
        network_id uuid NOT NULL REFERENCES networks,
        project_id text NOT NULL,
        name text NOT NULL DEFAULT '',
        description text NOT NULL DEFAULT '',
        status text NOT NULL DEFAULT 'DOWN' CHECK (status IN ('ACTIVE', 'DOWN', 'BUILD', 'ERROR', 'N/A')),
        admin_state_up boolean NOT NULL DEFAULT true,
        mac_address text NOT NULL,
        device_id text NOT NULL DEFAULT '',
        device_owner text NOT NULL DEFAULT '',
        host_id text NOT NULL DEFAULT '',
        vnic_type text NOT NULL DEFAULT 'normal',
        binding_profile jsonb NOT NULL DEFAULT '{}',
        port_security_enabled boolean NOT NULL DEFAULT true,
        allowed_address_pairs jsonb NOT NULL DEFAULT '[]',
        extra_dhcp_opts jsonb NOT NULL DEFAULT '[]',
        dns_name text NOT NULL DEFAULT '',
        tags text[] NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        generation bigint NOT NULL DEFAULT 1,
        UNIQUE (network_id, mac_address)
    );
    CREATE INDEX ports_project ON ports (project_id, id);
    CREATE INDEX ports_device ON ports (device_id, id);
    CREATE INDEX ports_network_owner ON ports (network_id, device_owner);
    CREATE UNIQUE INDEX ports_metadata ON ports (network_id) WHERE device_owner = 'network:distributed';

    CREATE TABLE port_fixed_ips (
        port_id uuid NOT NULL REFERENCES ports ON DELETE CASCADE,
        subnet_id uuid NOT NULL REFERENCES subnets,
        ip_address text NOT NULL,
        position integer NOT NULL DEFAULT 0,
        PRIMARY KEY (subnet_id, ip_address)
    );
    CREATE INDEX port_fixed_ips_port ON port_fixed_ips (port_id, position);
    CREATE INDEX port_fixed_ips_address ON port_fixed_ips (ip_address);

    CREATE TABLE port_security_groups (
        port_id uuid NOT NULL REFERENCES ports ON DELETE CASCADE,
        security_group_id uuid NOT NULL REFERENCES security_groups,
        PRIMARY KEY (port_id, security_group_id)
    );
    CREATE INDEX port_security_groups_group ON port_security_groups (security_group_id);

    CREATE TABLE routers (
        id uuid PRIMARY KEY,
        project_id text NOT NULL,
        name text NOT NULL DEFAULT '',
        description text NOT NULL DEFAULT '',
        status text NOT NULL DEFAULT 'ACTIVE',
        admin_state_up boolean NOT NULL DEFAULT true,
        gateway_port_id uuid UNIQUE REFERENCES ports,
        enable_snat boolean NOT NULL DEFAULT true,
        routes jsonb NOT NULL DEFAULT '[]',
        availability_zone_hints jsonb NOT NULL DEFAULT '[]',
        tags text[] NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        generation bigint NOT NULL DEFAULT 1
    );
    CREATE INDEX routers_project ON routers (project_id, id);

    CREATE TABLE floating_ips (
        id uuid PRIMARY KEY,
        project_id text NOT NULL,
        description text NOT NULL DEFAULT '',
        floating_network_id uuid NOT NULL REFERENCES networks,
        floating_ip_address text NOT NULL,
        floating_port_id uuid NOT NULL UNIQUE REFERENCES ports,
        port_id uuid REFERENCES ports,
        fixed_ip_address text,
        router_id uuid REFERENCES routers,
        status text NOT NULL DEFAULT 'DOWN' CHECK (status IN ('ACTIVE', 'DOWN', 'ERROR')),
        dns_name text NOT NULL DEFAULT '',
        dns_domain text NOT NULL DEFAULT '',
        tags text[] NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        generation bigint NOT NULL DEFAULT 1,
        UNIQUE (floating_network_id, floating_ip_address),
        UNIQUE (port_id, fixed_ip_address),
        CHECK ((port_id IS NULL) = (fixed_ip_address IS NULL) AND (port_id IS NULL) = (router_id IS NULL))
    );
    CREATE INDEX floating_ips_project ON floating_ips (project_id, id);
    CREATE INDEX floating_ips_router ON floating_ips (router_id);

    -- Subjects whose northbound rows are to be compared again. Written by triggers, so that no change can forget it.
    CREATE TABLE northbound_changes (
        id bigserial PRIMARY KEY,
        subject text NOT NULL
    );

    CREATE FUNCTION northbound_touch(kind text, subject_id text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO northbound_changes (subject) VALUES (kind || '/' || subject_id);
        PERFORM pg_notify('wolke_northbound', '');
    END $$;

    CREATE FUNCTION network_generation() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.generation := OLD.generation + 1;
        RETURN NEW;
    END $$;

    CREATE FUNCTION northbound_network() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM northbound_touch('network', coalesce(NEW.id, OLD.id)::text);
        IF TG_OP = 'UPDATE' AND NEW.mtu <> OLD.mtu THEN
            PERFORM northbound_touch('subnet', id::text) FROM subnets WHERE network_id = NEW.id;
            PERFORM northbound_touch('port', id::text) FROM ports
                WHERE network_id = NEW.id AND device_owner = 'network:router_interface';
        END IF;
        RETURN NULL;
    END $$;

    CREATE FUNCTION northbound_subnet() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM northbound_touch('subnet', coalesce(NEW.id, OLD.id)::text);
        IF TG_OP = 'UPDATE' AND NEW.enable_dhcp <> OLD.enable_dhcp THEN
            PERFORM northbound_touch('port', port_id::text) FROM port_fixed_ips WHERE subnet_id = NEW.id;
        END IF;
        IF TG_OP = 'UPDATE' THEN
            -- Ports with options of their own hold a copy of the subnet's.
            PERFORM northbound_touch('port', p.id::text) FROM port_fixed_ips f JOIN ports p ON p.id = f.port_id
                WHERE f.subnet_id = NEW.id AND p.extra_dhcp_opts <> '[]';
        END IF;
        IF TG_OP = 'UPDATE' AND NEW.gateway_ip IS DISTINCT FROM OLD.gateway_ip THEN
            PERFORM northbound_touch('router', r.id::text) FROM routers r
                JOIN port_fixed_ips f ON f.port_id = r.gateway_port_id WHERE f.subnet_id = NEW.id;
        END IF;
        RETURN NULL;
    END $$;

    CREATE FUNCTION northbound_port() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        subject ports;
    BEGIN
        IF TG_OP = 'UPDATE' AND (NEW.name, NEW.admin_state_up, NEW.mac_address, NEW.device_id, NEW.device_owner,
            NEW.port_security_enabled, NEW.allowed_address_pairs, NEW.extra_dhcp_opts)
            IS NOT DISTINCT FROM (OLD.name, OLD.admin_state_up, OLD.mac_address, OLD.device_id, OLD.device_owner,
            OLD.port_security_enabled, OLD.allowed_address_pairs, OLD.extra_dhcp_opts)
        THEN
            RETURN NULL;
        END IF;
        subject := coalesce(NEW, OLD);
        PERFORM northbound_touch('port', subject.id::text);
        IF subject.device_owner IN ('network:router_interface', 'network:router_gateway') THEN
            PERFORM northbound_touch('router', subject.device_id);
        END IF;
        IF TG_OP = 'UPDATE' AND OLD.device_owner IN ('network:router_interface', 'network:router_gateway') THEN
            PERFORM northbound_touch('router', OLD.device_id);
        END IF;
        IF subject.device_owner = 'network:distributed' THEN
            PERFORM northbound_touch('subnet', id::text) FROM subnets WHERE network_id = subject.network_id;
        END IF;
        RETURN NULL;
    END $$;

    CREATE FUNCTION northbound_fixed_ip() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        subject port_fixed_ips;
        owner ports;
    BEGIN
        subject := coalesce(NEW, OLD);
        SELECT * INTO owner FROM ports WHERE id = subject.port_id;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        PERFORM northbound_touch('port', subject.port_id::text);
        IF owner.device_owner IN ('network:router_interface', 'network:router_gateway') THEN
            PERFORM northbound_touch('router', owner.device_id);
        ELSIF owner.device_owner = 'network:distributed' THEN
            PERFORM northbound_touch('subnet', subject.subnet_id::text);
        END IF;
        RETURN NULL;
    END $$;

    CREATE FUNCTION northbound_port_group() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM northbound_touch('port', coalesce(NEW.port_id, OLD.port_id)::text);
        RETURN NULL;
    END $$;

    CREATE FUNCTION northbound_self() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM northbound_touch(TG_ARGV[0], coalesce(NEW.id, OLD.id)::text);
        RETURN NULL;
    END $$;

    CREATE FUNCTION northbound_rule() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM northbound_touch('securitygroup', coalesce(NEW.security_group_id, OLD.security_group_id)::text);
        RETURN NULL;
    END $$;

    CREATE TRIGGER northbound AFTER INSERT OR UPDATE OR DELETE ON networks
        FOR EACH ROW EXECUTE FUNCTION northbound_network();
    CREATE TRIGGER northbound AFTER INSERT OR UPDATE OR DELETE ON subnets
        FOR EACH ROW EXECUTE FUNCTION northbound_subnet();
    CREATE TRIGGER northbound AFTER INSERT OR UPDATE OR DELETE ON ports
        FOR EACH ROW EXECUTE FUNCTION northbound_port();
    CREATE TRIGGER northbound AFTER INSERT OR UPDATE OR DELETE ON port_fixed_ips
        FOR EACH ROW EXECUTE FUNCTION northbound_fixed_ip();
    CREATE TRIGGER northbound AFTER INSERT OR DELETE ON port_security_groups
        FOR EACH ROW EXECUTE FUNCTION northbound_port_group();
    CREATE TRIGGER northbound AFTER INSERT OR UPDATE OR DELETE ON routers
        FOR EACH ROW EXECUTE FUNCTION northbound_self('router');
    CREATE TRIGGER northbound AFTER INSERT OR UPDATE OR DELETE ON floating_ips
        FOR EACH ROW EXECUTE FUNCTION northbound_self('floatingip');
    CREATE TRIGGER northbound AFTER INSERT OR UPDATE OR DELETE ON security_groups
        FOR EACH ROW EXECUTE FUNCTION northbound_self('securitygroup');
    CREATE TRIGGER northbound AFTER INSERT OR UPDATE OR DELETE ON security_group_rules
        FOR EACH ROW EXECUTE FUNCTION northbound_rule();

    CREATE TRIGGER generation BEFORE UPDATE ON networks FOR EACH ROW EXECUTE FUNCTION network_generation();
    CREATE TRIGGER generation BEFORE UPDATE ON subnets FOR EACH ROW EXECUTE FUNCTION network_generation();
    CREATE TRIGGER generation BEFORE UPDATE ON ports FOR EACH ROW EXECUTE FUNCTION network_generation();
    CREATE TRIGGER generation BEFORE UPDATE ON routers FOR EACH ROW EXECUTE FUNCTION network_generation();
    CREATE TRIGGER generation BEFORE UPDATE ON floating_ips FOR EACH ROW EXECUTE FUNCTION network_generation();
    CREATE TRIGGER generation BEFORE UPDATE ON security_groups FOR EACH ROW EXECUTE FUNCTION network_generation();
    CREATE TRIGGER generation BEFORE UPDATE ON security_group_rules
        FOR EACH ROW EXECUTE FUNCTION network_generation();
    """)
