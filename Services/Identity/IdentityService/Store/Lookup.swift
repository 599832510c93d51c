import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// Looks up resources and authorizes access. Policy is checked before 404, so that unauthorized callers cannot probe ids.
extension Identity {
    /// The attributes of a row that policy rules and handlers need.
    struct Found: Sendable {
        let id: String
        let name: String
        /// The domain that it belongs to; a domain belongs to itself. Nil for cloud-wide resources.
        let domainID: String?
        let immutable: Bool

        /// - Throws: 403 for an immutable resource.
        func requireMutable(_ kind: String, _ changes: JSONObject? = nil) throws {
            guard immutable else { return }
            if let options = changes?["options"]?.objectValue, let flag = options["immutable"], flag != true { return }
            throw ResourceError.forbidden(
                "Cannot modify or delete the \(kind) \(id): it is immutable (options.immutable).")
        }
    }

    func find(_ connection: Connection, user id: String) throws -> Found? {
        try Identity.found(connection.query("SELECT id, name, domain_id, false AS immutable FROM users WHERE id = \(id)"))
    }

    func find(_ connection: Connection, group id: String) throws -> Found? {
        try Identity.found(connection.query("SELECT id, name, domain_id, false AS immutable FROM groups WHERE id = \(id)"))
    }

    /// A project, or a domain seen as one.
    func find(_ connection: Connection, project id: String, isDomain: Bool? = nil) throws -> Found? {
        try Identity.found(
            connection.query(
                """
                SELECT id, name, coalesce(domain_id, id) AS domain_id,
                    coalesce((options ->> 'immutable')::boolean, false) AS immutable
                FROM projects WHERE id = \(id) AND is_domain = coalesce(\(isDomain)::boolean, is_domain)
                """))
    }

    func find(_ connection: Connection, role id: String) throws -> Found? {
        try Identity.found(
            connection.query(
                """
                SELECT id, name, domain_id, coalesce((options ->> 'immutable')::boolean, false) AS immutable
                FROM roles WHERE id = \(id)
                """))
    }

    private static func found(_ rows: Rows) throws -> Found? {
        guard let row = rows.first else { return nil }
        return Found(
            id: try row.string("id"), name: try row.string("name"), domainID: try row.optionalString("domain_id"),
            immutable: try row.bool("immutable"))
    }

    static func missing(_ kind: String, _ id: String) -> ResourceError {
        .notFound("Could not find \(kind): \(id.prefix(255)).")
    }

    /// Decides the route's action on one thing, then requires it to be there.
    func decide(
        _ context: RequestContext, _ kind: String, _ id: String,
        _ find: @escaping @Sendable (Connection) throws -> Found?
    ) async throws -> Authorized<Found> {
        let found = try await database.read { try find($0) }
        // A domain is changed by the cloud's admins only, also where it is reached as a project.
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
    static let tags = BodySchema.Property("tags", .array(tag, min: 0, max: 80))
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
}

extension Changes {
    /// Merges what is not in `known` into `extra`.
    mutating func extra(_ body: JSONObject, beside known: Set<String>) {
        let extra = body.extra(beside: known)
        if !extra.isEmpty { set("extra = extra || \(extra)::jsonb") }
    }

    /// Merges options; null removes one.
    mutating func options(_ body: JSONObject) {
        guard let options = body["options"]?.objectValue, !options.isEmpty else { return }
        set("options = jsonb_strip_nulls(options || \(options)::jsonb)")
    }
}
