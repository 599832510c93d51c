/// Problems of the sandbox for image tools on machines of Block Storage; hosts report them with their capabilities.
let sandboxStateMigration = Migration(
    22, "sandbox_state",
    """
    ALTER TABLE block_storage_services ADD COLUMN sandbox_problem text;
    """)
