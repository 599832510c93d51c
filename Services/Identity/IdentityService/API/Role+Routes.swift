import Authorization
import Database
import JSON
import Kernel
import WebAPI

extension Identity {
    private static func roleBody(required: Bool) -> RouteBody {
        Bodies.entity(
            "role", [Bodies.name(255, required: required), Bodies.domain, Bodies.description, Bodies.options])
    }

    var roleResource: Resource {
        let read = "rule:cloud_reader or role:manager"
        let implied = "/v3/roles/{role_id}/implies/{implied_id}"
        return Resource(
            "role",
            routes: [
                Route(
                    .get, "/v3/roles", action: "identity:list_roles", rule: read, answer: .list(Identity.roles), "List roles",
                    handler: listRoles),
                Route(
                    .post, "/v3/roles", action: "identity:create_role", rule: "rule:admin_required",
                    body: Identity.roleBody(required: true), status: 201, answer: .one(Identity.roles), "Create a role", handler: createRole
                ),
                Route(
                    .get, "/v3/roles/{role_id}", action: "identity:get_role", rule: read, answer: .one(Identity.roles), "Show a role",
                    handler: showRole),
                Route(
                    .patch, "/v3/roles/{role_id}", action: "identity:update_role", rule: "rule:admin_required",
                    body: Identity.roleBody(required: false), answer: .one(Identity.roles), "Change a role", handler: updateRole),
                Route(
                    .delete, "/v3/roles/{role_id}", action: "identity:delete_role", rule: "rule:admin_required", status: 204,
                    "Delete a role and its assignments", handler: deleteRole),
                Route(
                    .get, "/v3/roles/{role_id}/implies", action: "identity:list_implied_roles", rule: "rule:cloud_reader",
                    answer: .form(Forms.inference(.list(Forms.role))), "List what a role implies", handler: listImplied),
                Route(
                    .get, implied, action: "identity:get_implied_role", rule: "rule:cloud_reader",
                    answer: .form(Forms.inference(Forms.role)), "Show that one role implies another", handler: showImplied),
                Route(
                    .put, implied, action: "identity:create_implied_role", rule: "rule:admin_required", status: 201,
                    answer: .form(Forms.inference(Forms.role)), "Make one role imply another", handler: addImplied),
                Route(
                    .delete, implied, action: "identity:delete_implied_role", rule: "rule:admin_required", status: 204,
                    "End that one role implies another", handler: removeImplied),
                Route(
                    .get, "/v3/role_inferences", action: "identity:list_role_inference_rules", rule: "rule:cloud_reader",
                    answer: .form(Forms.inferences), "List all that roles imply", handler: listInferences),
            ])
    }

    // MARK: roles

    private func listRoles(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: ["target.domain_id": try context.caller.domainID])
        let conditions: [SQL] = context.query["domain_id"] == nil ? ["t.domain_id IS NULL"] : []
        return try await database.read { try Identity.roles.list($0, context, where: conditions) }
    }

    private func createRole(_ context: RequestContext) async throws -> Response {
        let decision = try context.authorize(context.entity("role"), target: .none)
        let id = newID()
        return try await context.write(database) { connection in
            try insert(connection, role: decision, id: id)
            return try Identity.roles.change(connection, context, status: 201, id: id)
        }
    }

    private func showRole(_ context: RequestContext) async throws -> Response {
        let role = try await decideRole(context).value
        return try await database.read { connection in
            return try Identity.roles.one(connection, context, where: "t.id = \(role.id)", id: role.id)
        }
    }

    private func updateRole(_ context: RequestContext) async throws -> Response {
        let role = try await decideRole(context)
        let body = try context.entity("role", of: role.value.id)
        try role.value.requireMutable("role", body)
        try requireSameDomain(body, role.value)
        return try await reduceAccess(context) { connection in
            try update(connection, role: role, body)
            return try Identity.roles.change(connection, context, status: 200, id: role.value.id)
        }
    }

    private func deleteRole(_ context: RequestContext) async throws -> Response {
        let role = try await decideRole(context)
        try role.value.requireMutable("role")
        return try await reduceAccess(context) { connection in
            try delete(connection, role: role)
            return Change(.empty(), "role", role.value.id)
        }
    }

    // MARK: implied roles

    private static func roleValue(_ row: Row, _ prefix: String, _ context: RequestContext) throws -> JSONValue {
        let id = try row.string(prefix + "_id")
        return [
            "id": .string(id), "name": .string(try row.string(prefix + "_name")),
            "links": ["self": .string("\(context.publicURL)/v3/roles/\(id)")],
        ]
    }

    private func listImplied(_ context: RequestContext) async throws -> Response {
        let role = try await decideRole(context).value
        return try await database.read { connection in
            let rows = try Identity.inferences(connection, where: "p.id = \(role.id)")
            let prior: JSONValue = [
                "id": .string(role.id), "name": .string(role.name),
                "links": ["self": .string("\(context.publicURL)/v3/roles/\(role.id)")],
            ]
            let implies = try rows.map { try Identity.roleValue($0, "implied", context) }
            return .json(
                200,
                [
                    "role_inference": ["prior_role": prior, "implies": .array(implies)],
                    "links": ["self": .string(context.selfLink)],
                ])
        }
    }

    private func listInferences(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        return try await database.read { connection in
            var rules: [(prior: JSONValue, implies: [JSONValue])] = []
            for row in try Identity.inferences(connection, where: "true") {
                let prior = try Identity.roleValue(row, "prior", context)
                if rules.last?.prior != prior { rules.append((prior, [])) }
                rules[rules.count - 1].implies.append(try Identity.roleValue(row, "implied", context))
            }
            let list = rules.map { ["prior_role": $0.prior, "implies": .array($0.implies)] as JSONValue }
            return .json(200, ["role_inferences": .array(list), "links": ["self": .string(context.selfLink)]])
        }
    }

    private func inference(
        _ connection: Connection, _ context: RequestContext, _ prior: String, _ implied: String
    ) throws -> JSONValue? {
        guard let row = try Identity.inferences(connection, where: "p.id = \(prior) AND i.id = \(implied)").first else {
            return nil
        }
        return [
            "role_inference": [
                "prior_role": try Identity.roleValue(row, "prior", context),
                "implies": try Identity.roleValue(row, "implied", context),
            ], "links": ["self": .string(context.selfLink)],
        ]
    }

    private func showImplied(_ context: RequestContext) async throws -> Response {
        let role = try await decideRole(context).value.id
        let implied = context.parameter("implied_id")
        let found = try await database.read { try inference($0, context, role, implied) }
        guard let found else { throw ResourceError.notFound("\(role) does not imply \(implied.prefix(64))") }
        return context.method == "HEAD" ? .empty(204) : .json(200, found)
    }

    private func addImplied(_ context: RequestContext) async throws -> Response {
        let decision = try await decideRole(context)
        let role = decision.value.id
        let id = context.parameter("implied_id")
        return try await extendAccess(context) { connection in
            try imply(connection, prior: decision, implied: id)
            let body = try inference(connection, context, role, id) ?? .null
            return Change(.json(201, body), "implied_role", role, content: ["implies": .string(id)])
        }
    }

    private func removeImplied(_ context: RequestContext) async throws -> Response {
        let decision = try await decideRole(context)
        let role = decision.value.id
        let id = context.parameter("implied_id")
        return try await reduceAccess(context) { connection in
            guard try unimply(connection, prior: decision, implied: id) else {
                throw ResourceError.notFound("\(role) does not imply \(id.prefix(64))")
            }
            return Change(.empty(), "implied_role", role, content: ["implies": .string(id)])
        }
    }
}
