package import ServiceCatalog

/// Inspections of users' rights.
package enum IdentityInspections {
    package static let all = [assignmentsFromBefore]

    /// Role assignments that apply to a project of the cloud's operators, and that no administrator has made or repeated since the project
    /// became theirs. Operators' own assignments are excluded. Subjects are role, user or group, and target.
    static let assignmentsFromBefore = Inspection(
        "I18", "only whom an administrator chose has a role in a cloud project",
        """
        SELECT concat_ws(' ', r.id, u.id, g.id, p.id, CASE WHEN a.inherited THEN 'inherited' END) AS subject,
            coalesce('the user ' || u.name, 'the group ' || g.name) || ' has the role ' || r.name ||
            CASE WHEN NOT a.inherited THEN ' on the cloud project ' || p.name
                ELSE ' on projects below the ' || CASE WHEN p.is_domain THEN 'domain ' ELSE 'project ' END || p.name ||
                    ', among them a cloud project' END ||
            ', assigned before the project became one. Remove it: osctl role remove ' || x.words || '. Keep it: osctl role add ' || x.words
            AS words
        FROM role_assignments a JOIN roles r ON r.id = a.role_id LEFT JOIN users u ON u.id = a.user_id
        LEFT JOIN groups g ON g.id = a.group_id JOIN projects p ON p.id = coalesce(a.project_id, a.domain_id)
        CROSS JOIN LATERAL (SELECT r.id || coalesce(' --user ' || u.id, ' --group ' || g.id) ||
            coalesce(' --project ' || a.project_id, ' --domain ' || a.domain_id) ||
            CASE WHEN a.inherited THEN ' --inherited' ELSE '' END AS words) x
        WHERE NOT a.confirmed AND (NOT a.inherited AND p.cloud_project OR a.inherited AND EXISTS (
            WITH RECURSIVE below AS (
                SELECT c.id, c.cloud_project FROM projects c WHERE c.parent_id = p.id
                UNION
                SELECT c.id, c.cloud_project FROM below b JOIN projects c ON c.parent_id = b.id)
            SELECT FROM below WHERE cloud_project))
        """)
}
