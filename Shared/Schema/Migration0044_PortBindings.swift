/// Ports whose server is expected on a further host.
let portBindingsMigration = Migration(
    44, "port bindings", kind: .expand,
    """
    -- Bindings of ports to hosts other than `ports.host_id`.
    CREATE TABLE port_bindings (
        port_id uuid NOT NULL REFERENCES ports (id) ON DELETE CASCADE,
        host text NOT NULL,
        -- Whether the port's server is expected there. If not, it was there before.
        is_expected boolean NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (port_id, host)
    );
    CREATE FUNCTION northbound_port_binding() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM northbound_touch('port', coalesce(NEW.port_id, OLD.port_id)::text);
        RETURN NULL;
    END $$;
    CREATE TRIGGER northbound AFTER INSERT OR UPDATE OR DELETE ON port_bindings
        FOR EACH ROW EXECUTE FUNCTION northbound_port_binding();
    """)
