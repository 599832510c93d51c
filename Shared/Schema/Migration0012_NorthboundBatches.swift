/// One row for all changes of a statement: a request with hundreds of ports records them once for each table.
let northboundBatchesMigration = Migration(
    12, "northbound_batches",
    """
    ALTER TABLE northbound_changes ADD COLUMN kind text, ADD COLUMN ids uuid[];
    UPDATE northbound_changes
        SET kind = split_part(subject, '/', 1), ids = ARRAY[split_part(subject, '/', 2)::uuid];
    ALTER TABLE northbound_changes ALTER COLUMN kind SET NOT NULL, ALTER COLUMN ids SET NOT NULL, DROP COLUMN subject;

    CREATE OR REPLACE FUNCTION northbound_touch(kind text, subject_id text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO northbound_changes (kind, ids) VALUES (kind, ARRAY[subject_id::uuid]);
        PERFORM pg_notify('wolke_northbound', '');
    END $$;

    CREATE OR REPLACE FUNCTION northbound_ports_added() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO northbound_changes (kind, ids)
            SELECT 'port', array_agg(id) FROM added HAVING count(*) > 0
            UNION ALL
            SELECT 'router', array_agg(device_id::uuid) FROM added
                WHERE device_owner IN ('network:router_interface', 'network:router_gateway') HAVING count(*) > 0
            UNION ALL
            SELECT 'subnet', array_agg(s.id)
                FROM added a, LATERAL (SELECT id FROM subnets WHERE network_id = a.network_id OFFSET 0) s
                WHERE a.device_owner = 'network:distributed' HAVING count(*) > 0;
        IF FOUND THEN
            PERFORM pg_notify('wolke_northbound', '');
        END IF;
        RETURN NULL;
    END $$;

    CREATE OR REPLACE FUNCTION northbound_fixed_ips_added() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO northbound_changes (kind, ids)
            SELECT 'port', array_agg(port_id) FROM added HAVING count(*) > 0
            UNION ALL
            SELECT x.kind, array_agg(DISTINCT x.id)
                FROM added a, LATERAL (SELECT device_owner, device_id FROM ports WHERE id = a.port_id OFFSET 0) p,
                    LATERAL (SELECT CASE WHEN p.device_owner = 'network:distributed' THEN 'subnet' ELSE 'router' END,
                        CASE WHEN p.device_owner = 'network:distributed' THEN a.subnet_id ELSE p.device_id::uuid END)
                        AS x (kind, id)
                WHERE p.device_owner IN ('network:router_interface', 'network:router_gateway', 'network:distributed')
                GROUP BY x.kind;
        IF FOUND THEN
            PERFORM pg_notify('wolke_northbound', '');
        END IF;
        RETURN NULL;
    END $$;

    CREATE OR REPLACE FUNCTION northbound_port_groups_added() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO northbound_changes (kind, ids) SELECT 'port', array_agg(DISTINCT port_id) FROM added HAVING count(*) > 0;
        IF FOUND THEN
            PERFORM pg_notify('wolke_northbound', '');
        END IF;
        RETURN NULL;
    END $$;
    """)
