/// An audit record names the service that acted for the user, where one did.
let auditedServicesMigration = Migration(
    20, "audited_services",
    """
    ALTER TABLE audit_records ADD COLUMN service_user_id text;
    """)
