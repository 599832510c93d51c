/// The time since when a guest has been on its way to another host, and of the last progress, so that a transfer that does not come to an
/// end is given up.
let transferLimitsMigration = Migration(
    64, "transfer limits", kind: .expand,
    """
    ALTER TABLE server_migrations ADD COLUMN transfer_begun_at timestamptz;
    ALTER TABLE server_migrations ADD COLUMN transfer_advanced_at timestamptz;
    """)
