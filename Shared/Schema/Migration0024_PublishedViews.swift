/// Views and functions with the prefix `published_`, through which services read each other's tables. Their columns stay when the
/// tables change (docs/published-views.md).
let publishedViewsMigration = Migration(
    24, "published views",
    """
    -- Identity
    CREATE VIEW published_projects AS SELECT id, domain_id, is_domain, enabled FROM projects;
    COMMENT ON VIEW published_projects IS 'Identity: projects and domains';

    -- Image
    CREATE VIEW published_images AS SELECT id, status, min_disk, min_ram, size, virtual_size FROM images;
    COMMENT ON VIEW published_images IS 'Image: what an image needs; who may use it is decided by ImageAccess';

    -- Network
    CREATE VIEW published_networks AS
        SELECT id, project_id, name, admin_state_up, shared, external, mtu,
            EXISTS (SELECT 1 FROM subnets s WHERE s.network_id = n.id) AS has_subnets,
            (SELECT json_agg(s.cidr) FROM subnets s WHERE s.network_id = n.id) AS cidrs
        FROM networks n;
    COMMENT ON VIEW published_networks IS 'Network: networks, with what their subnets offer';
    CREATE FUNCTION published_network_usable(network_project text, shared boolean, project text) RETURNS boolean
        LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT network_project = project OR shared';
    COMMENT ON FUNCTION published_network_usable IS 'Network: whether a project may have ports in a network';
    CREATE VIEW published_ports AS
        SELECT id, project_id, network_id, mac_address, status, admin_state_up, device_id, device_owner, host_id,
            port_security_enabled
        FROM ports;
    COMMENT ON VIEW published_ports IS 'Network: ports and what they are bound to';
    CREATE VIEW published_fixed_ips AS SELECT port_id, subnet_id, ip_address, position FROM port_fixed_ips;
    COMMENT ON VIEW published_fixed_ips IS 'Network: fixed addresses of ports';
    CREATE VIEW published_port_addresses AS
        SELECT f.port_id, s.network_id, f.subnet_id, f.ip_address, f.position, s.cidr, s.gateway_ip, s.dns_nameservers,
            s.enable_dhcp
        FROM port_fixed_ips f JOIN subnets s ON s.id = f.subnet_id;
    COMMENT ON VIEW published_port_addresses IS 'Network: fixed addresses of ports, with their subnets';
    CREATE VIEW published_floating_ips AS
        SELECT id, project_id, port_id, floating_ip_address FROM floating_ips;
    COMMENT ON VIEW published_floating_ips IS 'Network: floating IPs and the ports that they lead to';
    CREATE VIEW published_security_groups AS SELECT id, project_id, name, description FROM security_groups;
    COMMENT ON VIEW published_security_groups IS 'Network: security groups';
    CREATE VIEW published_security_group_rules AS
        SELECT id, security_group_id, direction, ethertype, protocol, port_range_min, port_range_max, remote_ip_prefix,
            remote_group_id
        FROM security_group_rules;
    COMMENT ON VIEW published_security_group_rules IS 'Network: rules of security groups';
    CREATE VIEW published_port_security_groups AS SELECT port_id, security_group_id FROM port_security_groups;
    COMMENT ON VIEW published_port_security_groups IS 'Network: which port is in which security group';

    -- Block Storage
    CREATE VIEW published_volumes AS SELECT id, project_id, status, size, bootable, multiattach FROM volumes;
    COMMENT ON VIEW published_volumes IS 'Block Storage: volumes';
    CREATE VIEW published_volume_attachments AS SELECT id, volume_id, server_id FROM volume_attachments;
    COMMENT ON VIEW published_volume_attachments IS 'Block Storage: attachments of volumes to servers';
    CREATE VIEW published_volume_snapshots AS SELECT id, project_id, volume_id, status, size FROM volume_snapshots;
    COMMENT ON VIEW published_volume_snapshots IS 'Block Storage: snapshots';
    CREATE VIEW published_volume_types AS SELECT id, name, is_public FROM volume_types;
    COMMENT ON VIEW published_volume_types IS 'Block Storage: volume types';
    CREATE FUNCTION published_volume_type_usable(type uuid, is_public boolean, project text) RETURNS boolean
        LANGUAGE sql STABLE PARALLEL SAFE AS
        'SELECT is_public OR EXISTS (SELECT 1 FROM volume_type_access a WHERE a.volume_type_id = type AND a.project_id = project)';
    COMMENT ON FUNCTION published_volume_type_usable IS 'Block Storage: whether a project may use a volume type';

    -- Compute
    CREATE VIEW published_servers AS
        SELECT id, project_id, user_id, host, group_id, flavor, image, deleted FROM servers;
    COMMENT ON VIEW published_servers IS 'Compute: servers, ended ones too, with flavor and image as they were accepted';
    CREATE VIEW published_server_volumes AS SELECT server_id, volume_id, attachment_id FROM server_volumes;
    COMMENT ON VIEW published_server_volumes IS 'Compute: which server has, or shall have, which volume';
    CREATE VIEW published_hosts AS
        SELECT c.host, c.enabled, c.forced_down, c.availability_zone, c.last_seen_at, h.id AS hypervisor_id,
            h.hypervisor_type, h.cpu_info->>'arch' AS architecture, h.capabilities->>'datapath_type' AS datapath_type
        FROM compute_services c LEFT JOIN hypervisors h ON h.host = c.host;
    COMMENT ON VIEW published_hosts IS 'Compute: hypervisor hosts';
    CREATE VIEW published_aggregates AS SELECT id, uuid, name, availability_zone, metadata FROM aggregates;
    COMMENT ON VIEW published_aggregates IS 'Compute: host aggregates';
    CREATE VIEW published_aggregate_hosts AS SELECT aggregate_id, host FROM aggregate_hosts;
    COMMENT ON VIEW published_aggregate_hosts IS 'Compute: which host is in which aggregate';

    -- Placement
    CREATE VIEW published_scheduling_explanations AS
        SELECT consumer_id, explanation, created_at FROM scheduling_explanations;
    COMMENT ON VIEW published_scheduling_explanations IS 'Placement: why a server is where it is, or nowhere';
    """)
