package import JSON
package import Kernel

/// A map that belongs to a resource, such as metadata or extra specs: routes for the whole and for its items.
///
/// The service reads and stores the map, and makes the policy decisions. Functions that write get the name of the action that the decision
/// must be about.
package struct MapRoutes: Sendable {
    /// Policy actions. All routes that read have one default rule, and all that write.
    package struct Actions: Sendable {
        package let list: String
        package let add: String
        /// Nil if the whole map cannot be replaced.
        package let replace: String?
        package let show: String
        package let set: String
        package let remove: String
        package let readRule: String
        package let writeRule: String

        package init(
            list: String, add: String, replace: String?, show: String, set: String, remove: String, readRule: String, writeRule: String
        ) {
            self.list = list
            self.add = add
            self.replace = replace
            self.show = show
            self.set = set
            self.remove = remove
            self.readRule = readRule
            self.writeRule = writeRule
        }
    }

    /// Changes the map and creates the answer.
    package typealias Mutation = @Sendable (inout JSONObject) throws -> Response

    /// `/servers/{server_id}/metadata`; items are below, with the parameter `key`.
    let path: String
    /// The member of bodies that contains the map: `metadata`.
    let name: String
    /// The member of bodies that contains one item: `meta`; nil if the body is the item.
    let item: String?
    let actions: Actions
    let versions: VersionRange
    /// The map in requests, and in answers.
    let body: BodySchema
    let answer: BodySchema
    /// The status for a removed item.
    let removedStatus: Int
    /// The error for an item that the map does not have.
    let missing: @Sendable (RequestContext, _ key: String) -> ResourceError
    /// The value of an item as it is stored.
    let stored: @Sendable (RequestContext, _ key: String, JSONValue) throws -> JSONValue
    let read: @Sendable (RequestContext) async throws -> JSONObject
    let change: @Sendable (RequestContext, _ action: String, @escaping Mutation) async throws -> Response

    package init(
        _ path: String, name: String, item: String?, actions: Actions, versions: VersionRange = .all, body: BodySchema,
        answer: BodySchema, removedStatus: Int,
        missing: @escaping @Sendable (RequestContext, _ key: String) -> ResourceError,
        stored: @escaping @Sendable (RequestContext, _ key: String, JSONValue) throws -> JSONValue = { $2 },
        read: @escaping @Sendable (RequestContext) async throws -> JSONObject,
        change: @escaping @Sendable (RequestContext, _ action: String, @escaping Mutation) async throws -> Response
    ) {
        self.path = path
        self.name = name
        self.item = item
        self.actions = actions
        self.versions = versions
        self.body = body
        self.answer = answer
        self.removedStatus = removedStatus
        self.missing = missing
        self.stored = stored
        self.read = read
        self.change = change
    }

    package var routes: [Route] {
        let (readRule, writeRule) = (actions.readRule, actions.writeRule)
        let (wholeBody, wholeAnswer) = (BodySchema.wrapped(name, body), RouteAnswer.form(.wrapped(name, answer)))
        let (itemBody, itemAnswer) = (
            item.map { .wrapped($0, body) } ?? body, RouteAnswer.form(item.map { .wrapped($0, answer) } ?? answer)
        )
        let one = path + "/{key}"
        var routes = [
            Route(.get, path, action: actions.list, rule: readRule, versions: versions, answer: wholeAnswer, "List items") {
                whole(try await read($0))
            },
            Route(
                .post, path, action: actions.add, rule: writeRule, versions: versions, body: .json(wholeBody), answer: wholeAnswer,
                "Add items"
            ) { try await set($0, action: actions.add, isWhole: false) },
        ]
        if let replace = actions.replace {
            routes.append(
                Route(
                    .put, path, action: replace, rule: writeRule, versions: versions, body: .json(wholeBody), answer: wholeAnswer,
                    "Replace all items"
                ) { try await set($0, action: replace, isWhole: true) })
        }
        return routes + [
            Route(.get, one, action: actions.show, rule: readRule, versions: versions, answer: itemAnswer, "Show an item") { context in
                let key = context.parameter("key")
                guard let value = try await read(context)[key] else { throw missing(context, key) }
                return shown(key, value)
            },
            Route(
                .put, one, action: actions.set, rule: writeRule, versions: versions, body: .json(itemBody), answer: itemAnswer,
                "Set an item",
                handler: setItem),
            Route(
                .delete, one, action: actions.remove, rule: writeRule, versions: versions, status: removedStatus, "Remove an item",
                handler: remove),
        ]
    }

    private func whole(_ map: JSONObject) -> Response { .json(200, .object([name: .object(map)])) }

    private func shown(_ key: String, _ value: JSONValue) -> Response {
        let object = JSONValue.object([key: value])
        return .json(200, item.map { .object([$0: object]) } ?? object)
    }

    private func set(_ context: RequestContext, action: String, isWhole: Bool) async throws -> Response {
        let given = context.body[name]?.objectValue ?? [:]
        return try await change(context, action) { map in
            if isWhole { map = [:] }
            for member in given.members { map[member.name] = try stored(context, member.name, member.value) }
            return whole(map)
        }
    }

    private func setItem(_ context: RequestContext) async throws -> Response {
        let key = context.parameter("key")
        let given = (item.map { context.body[$0] } ?? context.body)?.objectValue ?? [:]
        return try await change(context, actions.set) { map in
            guard given.count == 1, let item = given[key] else {
                throw ResourceError.badRequest(
                    "Request body and URI mismatch: the body must contain exactly the item '\(key.prefix(64))'.")
            }
            let value = try stored(context, key, item)
            map[key] = value
            return shown(key, value)
        }
    }

    private func remove(_ context: RequestContext) async throws -> Response {
        let key = context.parameter("key")
        return try await change(context, actions.remove) { map in
            guard map[key] != nil else { throw missing(context, key) }
            map[key] = nil
            return .empty(removedStatus)
        }
    }
}
