import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// Roles of users and groups on projects, domains and the system. The routes follow one pattern over these dimensions.
extension Identity {
    enum Target: String, CaseIterable, Sendable {
        case project, domain, system

        var path: String {
            switch self {
            case .project: "/projects/{project_id}"
            case .domain: "/domains/{domain_id}"
            case .system: "/system"
            }
        }
    }

    enum Actor: String, CaseIterable, Sendable {
        case user, group

        var path: String { self == .user ? "/users/{user_id}" : "/groups/{group_id}" }
    }

    /// User or group, target and role of a route; `role` is nil for lists.
    struct Assignment: Sendable {
        let target: Target
        let actor: Actor
        let inherited: Bool
        let targetID: String?
        let actorID: String
        let roleID: String?

        var userID: String? { actor == .user ? actorID : nil }
        var groupID: String? { actor == .group ? actorID : nil }
        var projectID: String? { target == .project ? targetID : nil }
        var domainID: String? { target == .domain ? targetID : nil }

        /// The content of audit records.
        var document: JSONValue {
            [
                "role_id": JSONValue(roleID), "user_id": JSONValue(userID), "group_id": JSONValue(groupID),
                "project_id": JSONValue(projectID), "domain_id": JSONValue(domainID), "system": .bool(target == .system),
                "inherited": .bool(inherited),
            ]
        }
    }

    var assignmentResource: Resource {
        var routes: [Route] = []
        for actor in Actor.allCases {
            for target in Target.allCases {
                routes += assignmentRoutes(target, actor, inherited: false)
                if target != .system { routes += assignmentRoutes(target, actor, inherited: true) }
            }
        }
        routes.append(
            Route(
                .get, "/v3/role_assignments", action: "identity:list_role_assignments",
                rule: "rule:cloud_reader or rule:domain_reader", answer: .form(Forms.list("role_assignments", Forms.assignment)),
                "List role assignments", handler: listAssignments))
        return Resource("role_assignment", routes: routes)
    }

    private func assignmentRoutes(_ target: Target, _ actor: Actor, inherited: Bool) -> [Route] {
        let prefix = inherited ? "/v3/OS-INHERIT" : "/v3"
        let suffix = inherited ? "/inherited_to_projects" : ""
        let base = prefix + target.path + actor.path + "/roles"
        let one = base + "/{role_id}" + suffix
        let kind = target == .system ? "system_grant_for_\(actor.rawValue)" : "grant"
        // A domain manager may assign roles up to manager, to users of its own domain, within its own domain.
        let managed =
            """
            (rule:domain_manager and domain_id:%(target.actor.domain_id)s and ('manager':%(target.role.name)s or \
            'member':%(target.role.name)s or 'reader':%(target.role.name)s))
            """
        let write = target == .system ? "rule:admin_required" : "rule:admin_required or \(managed)"
        let read =
            target == .system
            ? "rule:cloud_reader" : "rule:cloud_reader or (rule:domain_reader and domain_id:%(target.actor.domain_id)s)"
        @Sendable func handle(
            _ body: @escaping @Sendable (RequestContext, Authorized<Assignment>) async throws -> Response
        ) -> @Sendable (RequestContext) async throws -> Response {
            { context in try await body(context, decideAssignment(context, target, actor, inherited: inherited)) }
        }
        let words =
            "\(inherited ? "inherited " : "")role of a \(actor.rawValue) on \(target == .system ? "the system" : "a \(target.rawValue)")"
        return [
            Route(
                .get, base + suffix, action: "identity:list_\(target == .system ? kind : "grants")", rule: read,
                answer: .list(Identity.roles), "List each \(words)", handler: handle(listGrants)),
            Route(
                .get, one, action: "identity:check_\(kind)", rule: read, status: 204, "Check a \(words)",
                handler: handle(checkGrant)),
            Route(
                .put, one, action: "identity:create_\(kind)", rule: write, status: 204, "Assign a \(words)",
                handler: handle(grant)),
            Route(
                .delete, one, action: "identity:revoke_\(kind)", rule: write, status: 204, "Remove a \(words)",
                handler: handle(revokeGrant)),
        ]
    }

    /// Looks up the user or group, the role and the target of the route, and makes one policy decision on all of them.
    private func decideAssignment(
        _ context: RequestContext, _ target: Target, _ actor: Actor, inherited: Bool
    ) async throws -> Authorized<Assignment> {
        let places = ["project": context.parameter("project_id"), "domain": context.parameter("domain_id")]
        let actors = ["user": context.parameter("user_id"), "group": context.parameter("group_id")]
        let targetID = places[target.rawValue]
        let actorID = actors[actor.rawValue] ?? ""
        let roleID = context.parameters["role_id"]
        let (place, who, role) = try await database.read { connection in
            (
                try targetID.flatMap { try find(connection, project: $0, isDomain: target == .domain ? true : nil) },
                try actor == .user ? find(connection, user: actorID) : find(connection, group: actorID),
                try roleID.flatMap { try find(connection, role: $0) }
            )
        }
        let assignment = Assignment(
            target: target, actor: actor, inherited: inherited, targetID: targetID, actorID: actorID, roleID: roleID)
        let decision = try context.authorize(
            assignment,
            target: [
                "target.domain_id": place?.domainID, "target.actor.domain_id": who?.domainID,
                "target.role.name": role?.domainID == nil ? role?.name : nil, "target.project.id": place?.id,
            ])
        if let targetID, place == nil { throw Identity.missing(target.rawValue, targetID) }
        if who == nil { throw Identity.missing(actor.rawValue, actorID) }
        if let roleID, role == nil { throw Identity.missing("role", roleID) }
        if context.method != "GET", context.method != "HEAD" {
            let caller = try context.caller
            try await requireControl(caller, over: actor == .user ? .user(actorID) : .group(actorID))
            if let roleID { try await requireHolding(caller, role: roleID) }
            try await database.read { try requireTenantAssignments($0, caller, assignment) }
        }
        return decision
    }

    // MARK: grants

    private func listGrants(_ context: RequestContext, _ decision: Authorized<Assignment>) async throws -> Response {
        let assignment = decision.value
        return try await database.read { connection in
            try Identity.roles.list(
                connection, context,
                where: [Identity.rolesGranted(assignment)])
        }
    }

    private static func missingGrant(_ assignment: Assignment) -> ResourceError {
        .notFound(
            """
            Could not find role assignment with role: \(assignment.roleID ?? ""), user or group: \
            \(assignment.actorID), on \(assignment.target.rawValue): \(assignment.targetID ?? "all").
            """
        )
    }

    private func checkGrant(_ context: RequestContext, _ decision: Authorized<Assignment>) async throws -> Response {
        let assignment = decision.value
        guard try await database.read({ try exists($0, assignment) }) else { throw Identity.missingGrant(assignment) }
        return .empty()
    }

    private func grant(_ context: RequestContext, _ decision: Authorized<Assignment>) async throws -> Response {
        let assignment = decision.value
        let caller = decision.caller
        return try await extendAccess(context) { connection in
            // Mark and confirm again, because the project may have become an operators' project since.
            try requireTenantAssignments(connection, caller, assignment)
            try insert(connection, assignment: decision)
            return Change(.empty(), "role_assignment", assignment.roleID, content: assignment.document)
        }
    }

    private func revokeGrant(_ context: RequestContext, _ decision: Authorized<Assignment>) async throws -> Response {
        let assignment = decision.value
        return try await reduceAccess(context) { connection in
            guard try delete(connection, assignment: decision) else { throw Identity.missingGrant(assignment) }
            return Change(.empty(), "role_assignment", assignment.roleID, content: assignment.document)
        }
    }
}
