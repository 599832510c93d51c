package import Authorization
package import Database
package import JSON
package import Kernel

/// The kind of a request for tags.
package enum TagOperation: Sendable {
    case list, add, replace, clear
    /// For a single tag.
    case show, set, remove
}

/// The tags of a kind of resource: routes for the whole set and for single tags.
///
/// The service reads and stores the tags, and makes the policy decisions.
package protocol TagRoutes: Sendable {
    associatedtype Owner: Sendable
    var database: Database { get }
    /// `/servers/{server_id}/tags`; single tags are below, with the parameter `tag`.
    var path: String { get }
    var versions: VersionRange { get }
    /// The policy action; nil if the service has no such route.
    func action(_ operation: TagOperation) -> String?
    /// The default rules of the actions that read and that write.
    var readRule: String { get }
    var writeRule: String { get }

    /// A tag in bodies.
    var tag: BodySchema { get }
    /// The most tags that a resource can have.
    var countMax: Int { get }
    var tooMany: ResourceError { get }
    /// - Throws: 400 for an invalid tag of a request.
    func check(_ tags: [String]) throws
    /// The distinct tags in the order in which they are stored and shown.
    func ordered(_ tags: [String]) -> [String]

    /// A response with several tags, and its schema.
    func shown(_ context: RequestContext, _ tags: [String]) -> JSONObject
    var answer: BodySchema { get }
    /// The response to adding a tag, and its status for the OpenAPI document.
    ///
    /// - Parameter isNew: whether the resource did not have the tag before.
    func added(_ context: RequestContext, isNew: Bool) -> Response
    var addedStatus: Int { get }
    /// The error for a tag that the resource does not have.
    func missing(_ context: RequestContext, _ tag: String) -> ResourceError

    /// Finds the resource and decides about the route's action on it.
    func find(_ context: RequestContext, isChange: Bool) async throws -> Authorized<Owner>
    /// - Parameter isChange: whether the row is locked until the transaction ends.
    func load(_ connection: Connection, _ owner: Owner, isChange: Bool) throws -> [String]
    /// - Parameter action: the decision must be about it.
    func store(_ connection: Connection, _ tags: [String], of owner: Authorized<Owner>, for action: String) throws
    /// The resource's name and id in audit records.
    func subject(_ owner: Owner) -> (name: String, id: String)
}

extension TagRoutes {
    package var versions: VersionRange { .all }
    package func shown(_ context: RequestContext, _ tags: [String]) -> JSONObject { ["tags": JSONValue(tags)] }
    package var answer: BodySchema { .wrapped("tags", .array(tag, min: 0, max: countMax)) }
    package func added(_ context: RequestContext, isNew: Bool) -> Response { .empty(addedStatus) }
    package var addedStatus: Int { 201 }

    package var routes: [Route] {
        let body = RouteBody.json(.wrapped("tags", .array(tag, min: 0, max: countMax)))
        let (one, many) = (path + "/{tag}", RouteAnswer.form(answer))
        return [
            route(.list, .get, path, answer: many, "List tags") { context, _ in
                .json(200, .object(shown(context, try await read(context))))
            },
            route(.add, .post, path, body: body, answer: many, "Add tags") { try await put($0, for: $1, replaces: false) },
            route(.replace, .put, path, body: body, answer: many, "Replace all tags") { try await put($0, for: $1, replaces: true) },
            route(.clear, .delete, path, status: 204, "Remove all tags") { context, action in
                try await change(context, for: action) { tags in
                    tags = []
                    return .empty()
                }
            },
            route(.show, .get, one, status: 204, "Check whether a tag exists") { context, _ in
                let tag = context.parameter("tag")
                guard try await read(context).contains(tag) else { throw missing(context, tag) }
                return .empty()
            },
            route(.set, .put, one, status: addedStatus, "Add a tag", add),
            route(.remove, .delete, one, status: 204, "Remove a tag") { context, action in
                let tag = context.parameter("tag")
                return try await change(context, for: action) { tags in
                    guard tags.contains(tag) else { throw missing(context, tag) }
                    tags.removeAll { $0 == tag }
                    return .empty()
                }
            },
        ].compactMap { $0 }
    }

    private func route(
        _ operation: TagOperation, _ method: Method, _ path: String, body: RouteBody = .none, status: Int = 200,
        answer: RouteAnswer = .undeclared, _ summary: String,
        _ handler: @escaping @Sendable (RequestContext, _ action: String) async throws -> Response
    ) -> Route? {
        action(operation).map { action in
            Route(
                method, path, action: action, rule: method == .get ? readRule : writeRule, versions: versions, body: body,
                status: status, answer: answer, summary
            ) { try await handler($0, action) }
        }
    }

    private func read(_ context: RequestContext) async throws -> [String] {
        let owner = try await find(context, isChange: false).value
        return try await database.read { try load($0, owner, isChange: false) }
    }

    private func change(
        _ context: RequestContext, for action: String, _ change: @escaping @Sendable (inout [String]) throws -> Response
    ) async throws -> Response {
        let owner = try await find(context, isChange: true)
        return try await context.write(database) { connection in
            var tags = try load(connection, owner.value, isChange: true)
            let response = try change(&tags)
            try store(connection, tags, of: owner, for: action)
            let (name, id) = subject(owner.value)
            return Change(response, name, id, content: ["tags": JSONValue(tags)])
        }
    }

    private func put(_ context: RequestContext, for action: String, replaces: Bool) async throws -> Response {
        let given = ordered((context.body["tags"]?.arrayValue ?? []).compactMap(\.stringValue))
        try check(given)
        return try await change(context, for: action) { tags in
            tags = try limited(replaces ? given : tags + given)
            return .json(200, .object(shown(context, given)))
        }
    }

    private func add(_ context: RequestContext, for action: String) async throws -> Response {
        let tag = context.parameter("tag")
        try check([tag])
        return try await change(context, for: action) { tags in
            let isNew = !tags.contains(tag)
            if isNew { tags = try limited(tags + [tag]) }
            return added(context, isNew: isNew)
        }
    }

    private func limited(_ tags: [String]) throws -> [String] {
        let tags = ordered(tags)
        guard tags.count <= countMax else { throw tooMany }
        return tags
    }
}
