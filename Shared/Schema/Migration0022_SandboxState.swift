/// What is wrong with the sandbox for image tools on a machine of Block Storage; hosts say it with their capabilities.
let sandboxStateMigration = Migration(
    22, "sandbox_state",
    """
    ALTER TABLE block_storage_services ADD COLUMN sandbox_problem text;
    """)
