/// Addresses and groups of ports that were created in the same transaction are not recorded as separate changes. A transaction
/// declares with `wolke.new_ports` that it writes no others.
let newPortsMigration = Migration(
    13, "new_ports",
    """
    DROP TRIGGER northbound_added ON port_fixed_ips;
    CREATE TRIGGER northbound_added AFTER INSERT ON port_fixed_ips REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT WHEN (current_setting('wolke.new_ports', true) IS DISTINCT FROM 'on')
        EXECUTE FUNCTION northbound_fixed_ips_added();
    DROP TRIGGER northbound_added ON port_security_groups;
    CREATE TRIGGER northbound_added AFTER INSERT ON port_security_groups REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT WHEN (current_setting('wolke.new_ports', true) IS DISTINCT FROM 'on')
        EXECUTE FUNCTION northbound_port_groups_added();
    """)
