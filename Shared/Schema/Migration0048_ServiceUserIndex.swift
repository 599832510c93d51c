/// Each change of role assignments looks for the projects of service users.
let serviceUserIndexMigration = Migration(
    48, "index of service users", kind: .index,
    """
    CREATE INDEX CONCURRENTLY IF NOT EXISTS users_service ON users (id) WHERE service_user;
    """)
