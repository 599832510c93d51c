import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// Looks up resources and authorizes access. Policy is checked before 404, so that unauthorized callers cannot probe ids.
extension Identity {
    /// Decides the route's action on one thing, then requires it to be there.
    func decide(
        _ context: RequestContext, _ kind: String, _ id: String,
        _ find: @escaping @Sendable (Connection) throws -> Found?
    ) async throws -> Authorized<Found> {
        let found = try await database.read { try find($0) }
        // Only the cloud's administrators can change a domain, also through its path as a project.
        let isDomain = found.map { $0.id == $0.domainID } ?? false
        let managed = context.route.method == .get || context.route.method == .head || !isDomain
        let target: PolicyTarget = ["target.domain_id": managed ? found?.domainID : nil, "target.\(kind).id": found?.id]
        let decision = try context.authorize(found, target: target)
        guard let found = decision.value else { throw Identity.missing(kind, id) }
        return try context.authorize(found, target: target)
    }

    func decideUser(_ context: RequestContext) async throws -> Authorized<Found> {
        let id = context.parameter("user_id")
        return try await decide(context, "user", id) { try find($0, user: id) }
    }

    func decideGroup(_ context: RequestContext) async throws -> Authorized<Found> {
        let id = context.parameter("group_id")
        return try await decide(context, "group", id) { try find($0, group: id) }
    }

    func decideProject(_ context: RequestContext) async throws -> Authorized<Found> {
        let id = context.parameter("project_id")
        return try await decide(context, "project", id) { try find($0, project: id) }
    }

    func decideDomain(_ context: RequestContext) async throws -> Authorized<Found> {
        let id = context.parameter("domain_id")
        return try await decide(context, "domain", id) { try find($0, project: id, isDomain: true) }
    }

    func decideRole(_ context: RequestContext) async throws -> Authorized<Found> {
        let id = context.parameter("role_id")
        return try await decide(context, "role", id) { try find($0, role: id) }
    }

    // MARK: changes

    /// `decideUser` for routes that change the user.
    func decideUserChange(_ context: RequestContext) async throws -> Authorized<Found> {
        let decision = try await decideUser(context)
        try await requireControl(decision.caller, over: .user(decision.value.id))
        return decision
    }

    /// `decideGroup` for routes that change the group.
    func decideGroupChange(_ context: RequestContext) async throws -> Authorized<Found> {
        let decision = try await decideGroup(context)
        try await requireControl(decision.caller, over: .group(decision.value.id))
        return decision
    }

    /// `decideProject` for routes that change the project.
    func decideProjectChange(_ context: RequestContext) async throws -> Authorized<Found> {
        let decision = try await decideProject(context)
        try await requireTenantProject(decision.caller, decision.value.id)
        return decision
    }

    // MARK: lists

    /// Decides on a list whose rows belong to domains; returns the condition that the caller's scope adds.
    func decideList(_ context: RequestContext, column: String = "t.domain_id") throws -> [SQL] {
        let own = try context.caller.domainID
        try context.authorize(target: ["target.domain_id": context.query["domain_id"] ?? own])
        return own.map { ["\(raw: column) = \($0)"] } ?? []
    }

    /// The domain for something new: the one named, otherwise that of the token.
    func domain(_ context: RequestContext, _ body: JSONObject) throws -> String {
        if let named = body["domain_id"]?.stringValue { return named }
        let caller = try context.caller
        return caller.domainID ?? caller.projectDomainID ?? "default"
    }

    /// - Throws: 400 where a body names another domain than the one that the thing is in.
    func requireSameDomain(_ body: JSONObject, _ found: Found) throws {
        guard let named = body["domain_id"]?.stringValue, named != found.domainID else { return }
        throw ResourceError.badRequest("Invalid input for field/attribute domain_id. Value: \(named.prefix(64)). It cannot be changed.")
    }
}

/// Parts of the bodies that several kinds have.
enum Bodies {
    static let description = BodySchema.Property("description", .nullable(.text(65_535)))
    static let enabled = BodySchema.Property("enabled", .strictBoolean)
    static let domain = BodySchema.Property("domain_id", .nullable(.string(min: 1, max: 64, format: nil)))
    static let tags = BodySchema.Property("tags", .array(tag, min: 0, max: Identity.tagsMax))
    static let tag = BodySchema.string(min: 1, max: 255, format: .name)
    static let options = BodySchema.Property(
        "options", .object([.init("immutable", .nullable(.strictBoolean))], additional: .forbidden))

    static func name(_ max: Int, required: Bool) -> BodySchema.Property {
        .init("name", .string(min: 1, max: max, format: .name), required: required)
    }

    static func entity(_ name: String, _ properties: [BodySchema.Property]) -> RouteBody {
        .json(.wrapped(name, .object(properties, additional: .allowed)))
    }
}

extension RequestContext {
    /// The member of the body that holds the resource.
    func entity(_ name: String) -> JSONObject { body[name]?.objectValue ?? JSONObject() }

    /// The same of a changing request. Clients may send the id back as it is.
    ///
    /// - Throws: 400 for another id than that of the changed resource.
    func entity(_ name: String, of id: String) throws -> JSONObject {
        let body = entity(name)
        try body.requireRepeated(id, in: ["id", "explicit_domain_id"], of: name)
        return body
    }
}
