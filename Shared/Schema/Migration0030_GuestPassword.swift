/// The password that a guest left at the metadata service, and the type of a server's key.
let guestPasswordMigration = Migration(
    30, "password of guests", kind: .expand,
    """
    ALTER TABLE servers ADD COLUMN guest_password text;
    ALTER TABLE servers ADD COLUMN key_type text NOT NULL DEFAULT 'ssh' CHECK (key_type IN ('ssh', 'x509'));
    ALTER TABLE keypairs DROP CONSTRAINT keypairs_type_check, ADD CONSTRAINT keypairs_type_check CHECK (type IN ('ssh', 'x509')) NOT VALID;
    CREATE VIEW published_subnets AS SELECT id, network_id, ip_version FROM subnets;
    COMMENT ON VIEW published_subnets IS 'Network: subnets of networks';
    """)
