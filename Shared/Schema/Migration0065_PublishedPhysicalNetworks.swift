/// The physical networks of provider networks, for hosts that servers move to.
let publishedPhysicalNetworksMigration = Migration(
    65, "published physical networks", kind: .expand,
    """
    CREATE OR REPLACE VIEW published_networks AS
        SELECT id, project_id, name, admin_state_up, shared, external, mtu,
            EXISTS (SELECT 1 FROM subnets s WHERE s.network_id = n.id) AS has_subnets,
            (SELECT json_agg(s.cidr) FROM subnets s WHERE s.network_id = n.id) AS cidrs,
            physical_network
        FROM networks n;
    COMMENT ON VIEW published_networks IS 'Network: networks, with what their subnets offer';
    """)
