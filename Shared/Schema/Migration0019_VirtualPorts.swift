/// Dependencies of a port's northbound row on others: address pairs that name its address, and its network's state.
let virtualPortsMigration = Migration(
    19, "virtual_ports",
    """
    CREATE INDEX ports_with_pairs ON ports (network_id) WHERE allowed_address_pairs <> '[]';

    -- Ports of the network that have an address which one of the pairs names: they become virtual, or no longer are.
    CREATE FUNCTION northbound_shared_addresses(p_network uuid, p_pairs jsonb) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO northbound_changes (kind, ids)
            SELECT 'port', array_agg(DISTINCT f.port_id)
                FROM jsonb_array_elements(p_pairs) AS a (pair)
                JOIN port_fixed_ips f ON f.ip_address = host((a.pair->>'ip_address')::inet)
                JOIN ports p ON p.id = f.port_id
                WHERE p.network_id = p_network HAVING count(*) > 0;
        IF FOUND THEN
            PERFORM pg_notify('wolke_northbound', '');
        END IF;
    END $$;

    CREATE FUNCTION northbound_pairs() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM northbound_shared_addresses(OLD.network_id, OLD.allowed_address_pairs);
        IF TG_OP = 'UPDATE' THEN
            PERFORM northbound_shared_addresses(NEW.network_id, NEW.allowed_address_pairs);
        END IF;
        RETURN NULL;
    END $$;

    CREATE FUNCTION northbound_pairs_added() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM northbound_shared_addresses(network_id, allowed_address_pairs) FROM added WHERE allowed_address_pairs <> '[]';
        RETURN NULL;
    END $$;

    CREATE TRIGGER northbound_pairs AFTER UPDATE ON ports FOR EACH ROW
        WHEN (OLD.allowed_address_pairs <> NEW.allowed_address_pairs) EXECUTE FUNCTION northbound_pairs();
    CREATE TRIGGER northbound_pairs_gone AFTER DELETE ON ports FOR EACH ROW
        WHEN (OLD.allowed_address_pairs <> '[]') EXECUTE FUNCTION northbound_pairs();
    CREATE TRIGGER northbound_pairs_added AFTER INSERT ON ports REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION northbound_pairs_added();

    CREATE FUNCTION northbound_network_state() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO northbound_changes (kind, ids)
            SELECT 'port', array_agg(id) FROM ports WHERE network_id = NEW.id HAVING count(*) > 0;
        PERFORM pg_notify('wolke_northbound', '');
        RETURN NULL;
    END $$;

    CREATE TRIGGER northbound_state AFTER UPDATE ON networks FOR EACH ROW
        WHEN (OLD.admin_state_up <> NEW.admin_state_up) EXECUTE FUNCTION northbound_network_state();
    """)
