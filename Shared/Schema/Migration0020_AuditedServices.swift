/// Audit records name the service that acted for the user, if there was one.
let auditedServicesMigration = Migration(
    20, "audited_services",
    """
    ALTER TABLE audit_records ADD COLUMN service_user_id text;
    """)
