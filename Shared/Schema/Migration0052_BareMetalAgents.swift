/// The agents in the ramdisks that nodes have been started with. There is no reference to the nodes, because this migration runs before
/// the one that creates them; the statement that removes a node removes its row.
let deployAgentsMigration = Migration(
    52, "deploy agents", kind: .expand,
    """
    -- One row per started ramdisk: it exists from before the machine is switched on until the ramdisk is not used any more.
    CREATE TABLE bare_metal_agents (
        node_id uuid PRIMARY KEY,
        expected_at timestamptz NOT NULL,
        -- The token, sealed; NULL until the first look-up.
        token bytea,
        token_key text,
        handed_out_at timestamptz,
        callback_url text,
        version text,
        -- The certificate (PEM) of its command API; NULL for one that the machine's authorities verify.
        certificate text,
        heartbeat_at timestamptz,
        CHECK ((token IS NULL) = (token_key IS NULL)),
        CHECK ((callback_url IS NULL) = (heartbeat_at IS NULL))
    );
    """)
