import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

extension ResourceKind {
    private static let ruleObject = """
        json_build_object('id', r.id, 'tenant_id', r.project_id, 'project_id', r.project_id,
            'security_group_id', r.security_group_id, 'direction', r.direction, 'ethertype', r.ethertype,
            'protocol', r.protocol, 'port_range_min', r.port_range_min, 'port_range_max', r.port_range_max,
            'remote_ip_prefix', r.remote_ip_prefix, 'remote_group_id', r.remote_group_id,
            'normalized_cidr', network(r.remote_ip_prefix::inet)::text,
            'description', r.description, 'revision_number', r.generation,
            'created_at', to_char(r.created_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
            'updated_at', to_char(r.updated_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'tags', json_build_array())
        """

    static let securityGroups = ResourceKind.network(
        "security_group", path: "security-groups",
        table: Table(
            "security_groups t",
            fields: Field.standard + Field.history + Field.tags + [
                .flag("stateful"),
                Field(
                    "security_group_rules", .json,
                    """
                    coalesce((SELECT json_agg(\(ruleObject) ORDER BY r.created_at, r.id)
                        FROM security_group_rules r WHERE r.security_group_id = t.id), '[]')
                    """),
            ])
    ) { .notFound("Security group \($0) does not exist", type: "SecurityGroupNotFound") }

    /// Matches rules by protocol, regardless of the spelling in the rule and the filter.
    private static func protocolFilter(_ text: String) -> SQL {
        if text.isEmpty || text.lowercased() == "any" { return "t.protocol IS NULL" }
        return "t.protocol = ANY(\(IPProtocol.spellings(text))::text[])"
    }

    private static func prefixFilter(_ text: String) -> SQL {
        let address = IPAddress(text)
        guard let network = address.map({ IPNetwork($0, prefixLength: $0.version.width) }) ?? IPNetwork(text) else {
            return "FALSE"
        }
        return "network(t.remote_ip_prefix::inet) = \("\(network)")::cidr"
    }

    static let securityGroupRules = ResourceKind.network(
        "security_group_rule", path: "security-group-rules",
        table: Table(
            "security_group_rules t JOIN security_groups g ON g.id = t.security_group_id",
            fields: [
                .uuid("id"), .text("tenant_id", "t.project_id"), .text("project_id"), .text("description"),
                .uuid("security_group_id"), .text("direction"),
                Field("ethertype", .text, filter: .custom { "lower(t.ethertype) = lower(\($0))" }, sortable: true),
                Field("protocol", .text, filter: .custom(protocolFilter), sortable: true),
                .number("port_range_min"), .number("port_range_max"),
                Field("remote_ip_prefix", .text, filter: .custom(prefixFilter), sortable: true), .uuid("remote_group_id"),
                Field("normalized_cidr", .text, "network(t.remote_ip_prefix::inet)::text"),
                .flag("belongs_to_default_sg", "(g.name = 'default')"),
            ] + Field.history)
    ) { .notFound("Security group rule \($0) does not exist", type: "SecurityGroupRuleNotFound") }
}

extension NetworkAPI {
    private static let groupBody: [BodySchema.Property] = [.resourceName, .description, .init("stateful", .boolean)]

    private static let port = BodySchema.nullable(.integer)
    private static let ruleBody: [BodySchema.Property] = [
        .projectID, .tenantID, .description, .init("security_group_id", .text, required: true),
        .init("direction", .enumeration(["ingress", "egress"]), required: true),
        .init("ethertype", .nullable(.string(min: 1, max: 8, format: nil))),
        .init("protocol", .nullable(.oneOf([.string(min: 1, max: 40, format: nil), .integer(min: 0, max: 255)]))),
        .init("port_range_min", port), .init("port_range_max", port),
        .init("remote_ip_prefix", .nullable(.string(min: 1, max: 64, format: nil))),
        .init("remote_group_id", .nullable(.text)),
    ]

    var securityGroups: Resource {
        Resource(
            "security_group",
            routes: routes(
                .securityGroups, create: NetworkAPI.groupBody + [.projectID, .tenantID, .tags],
                update: NetworkAPI.groupBody, creating: createGroups, updating: updateGroup, deleting: deleteGroup
            ).map { $0.path == "/v2.0/security-groups" && $0.method == .get ? groupList : $0 })
    }

    /// Create the default group when a project lists its groups for the first time.
    private var groupList: Route {
        Route(
            .get, "/v2.0/security-groups", action: "get_security_group", rule: NetworkPolicy.reader, answer: .list(.securityGroups),
            "List security groups"
        ) { context in
            let answer = try await ResourceKind.securityGroups.list(database, context)
            guard let project = try context.caller.projectID, try await !database.read({ try hasDefaultGroup($0, project: project) })
            else { return answer }
            // As in Neutron, permission to see the group is sufficient.
            try context.authorize(target: .project(project)).value(for: "get_security_group")
            try await database.write { _ = try defaultGroup($0, project: project) }
            return try await ResourceKind.securityGroups.list(database, context)
        }
    }

    var securityGroupRules: Resource {
        Resource(
            "security_group_rule",
            routes: routes(
                .securityGroupRules, create: NetworkAPI.ruleBody, update: nil, creating: createRules,
                deleting: deleteRule))
    }

    // MARK: groups

    private func createGroups(_ context: RequestContext) async throws -> Response {
        let (items, isBulk) = context.items("security_group", plural: "security_groups")
        let drafts = try items.map { item in
            (
                id: ambient.newUUID(), owner: try context.authorizeCreate(item, "security_group"), body: item,
                tags: try item.tags() ?? []
            )
        }
        return try await context.write(database) { connection in
            for draft in drafts {
                try insertGroup(connection, id: draft.id, owner: draft.owner, draft.body, tags: draft.tags)
            }
            return try ResourceKind.securityGroups.created(connection, context, drafts.map(\.id), isBulk: isBulk)
        }
    }

    private func updateGroup(_ context: RequestContext) async throws -> Response {
        let group = try await ResourceKind.securityGroups.find(database, context)
        guard let body = context.body["security_group"]?.objectValue else { return .empty() }
        return try await context.write(database) { connection in
            try updateGroup(connection, group, body)
            return try ResourceKind.securityGroups.changed(connection, context, group.value.id)
        }
    }

    private func deleteGroup(_ context: RequestContext) async throws -> Response {
        let group = try await ResourceKind.securityGroups.find(database, context)
        return try await context.write(database) { connection in
            try deleteGroup(connection, group)
            return ResourceKind.securityGroups.deleted(group.value.id)
        }
    }

    // MARK: rules

    private func createRules(_ context: RequestContext) async throws -> Response {
        let (items, isBulk) = context.items("security_group_rule", plural: "security_group_rules")
        var drafts: [RuleDraft] = []
        for item in items {
            let group = try await groupSubject(context, item.text("security_group_id") ?? "")
            let decision = try context.authorize(group, target: group.target)
            for name in ["project_id", "tenant_id"] {
                guard let asked = item.text(name), asked != group.projectID else { continue }
                throw ResourceError.badRequest(
                    "Invalid input for \(name). Reason: a rule belongs to the project of its security group, not to '\(asked.prefix(64))'.")
            }
            var remote: Subject?
            if let text = item.text("remote_group_id") { remote = try await groupSubject(context, text) }
            drafts.append(try RuleDraft(item, id: ambient.newUUID(), group: decision, remote: remote?.id))
        }
        return try await context.write(database) { [drafts] connection in
            for draft in drafts { try insertRule(connection, draft) }
            return try ResourceKind.securityGroupRules.created(connection, context, drafts.map(\.id), isBulk: isBulk)
        }
    }

    /// - Throws: 404, also for an invalid id.
    private func groupSubject(_ context: RequestContext, _ text: String) async throws -> Subject {
        guard let id = UUID128(text) else { throw ResourceKind.securityGroups.notFound(text) }
        return try await database.read { try ResourceKind.securityGroups.subject($0, context, id) }
    }

    private func deleteRule(_ context: RequestContext) async throws -> Response {
        let rule = try await ResourceKind.securityGroupRules.find(database, context)
        return try await context.write(database) { connection in
            try deleteRule(connection, rule)
            return ResourceKind.securityGroupRules.deleted(rule.value.id)
        }
    }
}
