import Database

/// Conditions for lists of resources that belong to another one.
extension Identity {
    /// For `users t`: the members of a group.
    static func usersInGroup(_ group: String) -> SQL { "t.id IN (SELECT m.user_id FROM group_members m WHERE m.group_id = \(group))" }

    /// For `groups t`: the groups that a user is a member of.
    static func groupsOfUser(_ user: String) -> SQL { "t.id IN (SELECT m.group_id FROM group_members m WHERE m.user_id = \(user))" }

    /// For `projects t`: the projects in which a user has a role.
    static func projectsOfUser(_ user: String) -> [SQL] {
        ["NOT t.is_domain", "t.id IN (SELECT a.id FROM accessible_projects(\(user)) a)"]
    }

    /// For domains: the domains in which a user, or one of the user's groups, has a role.
    static func domainsOfUser(_ user: String) -> [SQL] {
        [
            "t.is_domain",
            """
            t.id IN (SELECT a.domain_id FROM role_assignments a WHERE NOT a.inherited AND (a.user_id = \(user)
                OR a.group_id IN (SELECT m.group_id FROM group_members m WHERE m.user_id = \(user))))
            """,
        ]
    }

    /// For `roles t`: the roles that the user or group of an assignment has on its target.
    static func rolesGranted(_ assignment: Assignment) -> SQL {
        "t.id IN (SELECT a.role_id FROM role_assignments a WHERE \(assignment.condition))"
    }
}
