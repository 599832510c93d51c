/// A volume's read-only flag is null until it is set: only then clients see it in the volume's metadata.
let readOnlyFlagMigration = Migration(
    16, "read_only_flag",
    """
    ALTER TABLE volumes ALTER COLUMN read_only DROP NOT NULL, ALTER COLUMN read_only DROP DEFAULT;
    UPDATE volumes SET read_only = NULL WHERE NOT read_only;
    """)
