/// The agents in nodes' ramdisks, and the firmware and the agents of machines of the type `fake-hardware`.
let bareMetalAgentsMigration = Migration(
    67, "bare metal agents", kind: .expand,
    """
    -- One row per started ramdisk: it exists from before the machine is switched on until the ramdisk is not used any more.
    CREATE TABLE bare_metal_agents (
        node_id uuid PRIMARY KEY REFERENCES bare_metal_nodes (id) ON DELETE CASCADE,
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

    CREATE TABLE bare_metal_fake_firmware (
        node_id uuid PRIMARY KEY REFERENCES bare_metal_nodes (id) ON DELETE CASCADE,
        boot_mode text NOT NULL DEFAULT 'uefi' CHECK (boot_mode IN ('bios', 'uefi')),
        secure_boot boolean NOT NULL DEFAULT false,
        -- The URLs of the images in the drives, by the kind of drive.
        media jsonb NOT NULL DEFAULT '{}'
    );

    CREATE TABLE bare_metal_fake_agents (
        node_id uuid PRIMARY KEY REFERENCES bare_metal_nodes (id) ON DELETE CASCADE,
        -- Its commands, oldest first, as its API shows them.
        commands jsonb NOT NULL DEFAULT '[]'
    );
    """)
