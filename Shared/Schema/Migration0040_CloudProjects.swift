/// The projects of the cloud's operators, as the bootstrap file names them. Only cloud administrators can change them and their role
/// assignments.
let cloudProjectsMigration = Migration(
    40, "cloud projects", kind: .expand,
    """
    ALTER TABLE projects ADD COLUMN cloud_project boolean NOT NULL DEFAULT false;
    -- In clouds that exist: the projects of the service users, and the default projects of those who are administrators there.
    UPDATE projects SET cloud_project = true WHERE domain_id = 'default' AND id IN (
        SELECT a.project_id FROM role_assignments a JOIN users u ON u.id = a.user_id
        WHERE u.service_user AND NOT a.inherited AND a.project_id IS NOT NULL
        UNION
        SELECT a.project_id FROM role_assignments a JOIN roles r ON r.id = a.role_id JOIN users u ON u.id = a.user_id
        WHERE r.name = 'admin' AND r.domain_id IS NULL AND NOT a.inherited AND u.default_project_id = a.project_id);
    """)
