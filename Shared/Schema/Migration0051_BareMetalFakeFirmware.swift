/// The firmware and the drives of machines of the type `fake-hardware`. There is no reference to the nodes, because this migration runs
/// before the one that creates them; the statement that removes a node removes its row.
let fakeFirmwareMigration = Migration(
    51, "fake firmware", kind: .expand,
    """
    CREATE TABLE bare_metal_fake_firmware (
        node_id uuid PRIMARY KEY,
        boot_mode text NOT NULL DEFAULT 'uefi' CHECK (boot_mode IN ('bios', 'uefi')),
        secure_boot boolean NOT NULL DEFAULT false,
        -- The URLs of the images in the drives, by the kind of drive.
        media jsonb NOT NULL DEFAULT '{}'
    );
    """)
