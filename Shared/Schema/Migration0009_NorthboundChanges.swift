/// New ports are recorded for the northbound database once per statement instead of once per row, because a request can create
/// hundreds of them.
let northboundChangesMigration = Migration(
    9, "northbound_changes",
    """
    -- OFFSET 0: nobody knows how many rows are new, and no plan is to read a whole table because of that.
    CREATE FUNCTION northbound_ports_added() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO northbound_changes (subject)
            SELECT 'port/' || id FROM added
            UNION ALL
            SELECT 'router/' || device_id FROM added
                WHERE device_owner IN ('network:router_interface', 'network:router_gateway')
            UNION ALL
            SELECT 'subnet/' || s.id
                FROM added a, LATERAL (SELECT id FROM subnets WHERE network_id = a.network_id OFFSET 0) s
                WHERE a.device_owner = 'network:distributed';
        IF FOUND THEN
            PERFORM pg_notify('wolke_northbound', '');
        END IF;
        RETURN NULL;
    END $$;

    CREATE FUNCTION northbound_fixed_ips_added() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO northbound_changes (subject)
            SELECT DISTINCT 'port/' || port_id FROM added
            UNION ALL
            SELECT DISTINCT CASE WHEN p.device_owner = 'network:distributed' THEN 'subnet/' || a.subnet_id
                    ELSE 'router/' || p.device_id END
                FROM added a, LATERAL (SELECT device_owner, device_id FROM ports WHERE id = a.port_id OFFSET 0) p
                WHERE p.device_owner IN ('network:router_interface', 'network:router_gateway', 'network:distributed');
        IF FOUND THEN
            PERFORM pg_notify('wolke_northbound', '');
        END IF;
        RETURN NULL;
    END $$;

    CREATE FUNCTION northbound_port_groups_added() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO northbound_changes (subject) SELECT DISTINCT 'port/' || port_id FROM added;
        IF FOUND THEN
            PERFORM pg_notify('wolke_northbound', '');
        END IF;
        RETURN NULL;
    END $$;

    DROP TRIGGER northbound ON ports;
    CREATE TRIGGER northbound AFTER UPDATE OR DELETE ON ports
        FOR EACH ROW EXECUTE FUNCTION northbound_port();
    CREATE TRIGGER northbound_added AFTER INSERT ON ports REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION northbound_ports_added();

    DROP TRIGGER northbound ON port_fixed_ips;
    CREATE TRIGGER northbound AFTER UPDATE OR DELETE ON port_fixed_ips
        FOR EACH ROW EXECUTE FUNCTION northbound_fixed_ip();
    CREATE TRIGGER northbound_added AFTER INSERT ON port_fixed_ips REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION northbound_fixed_ips_added();

    DROP TRIGGER northbound ON port_security_groups;
    CREATE TRIGGER northbound AFTER DELETE ON port_security_groups
        FOR EACH ROW EXECUTE FUNCTION northbound_port_group();
    CREATE TRIGGER northbound_added AFTER INSERT ON port_security_groups REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION northbound_port_groups_added();
    """)
