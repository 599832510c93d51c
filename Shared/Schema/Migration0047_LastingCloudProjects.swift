/// `projects.cloud_project` also marks projects that became the operators' by an assignment, and lasts until an administrator takes
/// it away. `role_assignments.confirmed` are those that an administrator made or repeated where the project was the operators'
/// already, and those of operators. The others are older than that and are reported.
let lastingCloudProjectsMigration = Migration(
    47, "lasting cloud projects", kind: .expand,
    """
    ALTER TABLE role_assignments ADD COLUMN confirmed boolean NOT NULL DEFAULT false;
    -- In clouds that exist: what operators have. Identity marks the projects when it starts.
    WITH RECURSIVE powers AS (
        SELECT id FROM roles WHERE lower(name) IN ('admin', 'service') AND domain_id IS NULL
        UNION
        SELECT i.prior_role_id FROM powers w JOIN implied_roles i ON i.implied_role_id = w.id)
    UPDATE role_assignments a SET confirmed = true
    WHERE a.role_id IN (SELECT id FROM powers)
        OR a.user_id IN (
            SELECT u.id FROM users u WHERE u.service_user
            UNION
            SELECT b.user_id FROM role_assignments b WHERE b.role_id IN (SELECT id FROM powers) AND b.user_id IS NOT NULL
            UNION
            SELECT m.user_id FROM role_assignments b JOIN group_members m ON m.group_id = b.group_id
            WHERE b.role_id IN (SELECT id FROM powers))
        OR a.group_id IN (
            SELECT b.group_id FROM role_assignments b WHERE b.role_id IN (SELECT id FROM powers) AND b.group_id IS NOT NULL);
    """)
