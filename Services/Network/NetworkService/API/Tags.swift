import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

/// Tags that clients set on resources.
enum Tags {
    static let countMax = NetworkLimits.tagsMax
    static let schema = BodySchema.string(min: 1, max: NetworkLimits.tagLengthMax, format: nil)

    /// The distinct tags, in order.
    ///
    /// - Throws: 400 for a tag with a comma, because filters separate tags by commas.
    static func checked(_ tags: [String]) throws -> [String] {
        if let bad = tags.first(where: { $0.contains(",") || $0.isEmpty || $0.unicodeScalars.count > NetworkLimits.tagLengthMax }) {
            throw ResourceError.badRequest(
                """
                Invalid input for tags. Reason: '\(bad.prefix(64))' is not a tag of 1 to \
                \(NetworkLimits.tagLengthMax) characters without commas.
                """
            )
        }
        return Array(Set(tags)).sorted()
    }

    /// The tags of a filter: separated by commas.
    static func list(_ filter: String) -> [String] { filter.split(separator: ",").map(String.init) }
}

extension NetworkAPI {
    private static let tagged: [ResourceKind] = [
        .networks, .subnets, .ports, .routers, .floatingIPs, .securityGroups,
    ]

    var tags: [Resource] {
        NetworkAPI.tagged.map { collection in
            Resource("\(collection.name)_tags", routes: tagRoutes(collection))
        }
    }

    private func tagRoutes(_ collection: ResourceKind) -> [Route] {
        let base = "/v2.0/\(collection.path)/{id}/tags"
        let read = "get_\(collection.plural)_tags"
        let add = "create_\(collection.plural)_tags"
        let write = "update_\(collection.plural)_tags"
        let remove = "delete_\(collection.plural)_tags"
        let body = BodySchema.object([.init("tags", .array(Tags.schema, min: 0, max: Tags.countMax), required: true)])
        return [
            Route(.get, base, action: read, rule: NetworkPolicy.reader, "List tags") { context in
                let tags = try await currentTags(collection, context)
                return .json(200, ["tags": JSONValue(tags)])
            },
            Route(.put, base, action: write, rule: NetworkPolicy.member, body: .json(body), "Replace all tags") { context in
                let wanted = try Tags.checked((context.body["tags"]?.arrayValue ?? []).compactMap(\.stringValue))
                return try await setTags(collection, context, answer: .json(200, ["tags": JSONValue(wanted)])) { _ in wanted }
            },
            Route(.post, base, action: add, rule: NetworkPolicy.member, body: .json(body), "Add tags") { context in
                let more = try Tags.checked((context.body["tags"]?.arrayValue ?? []).compactMap(\.stringValue))
                return try await setTags(collection, context, answer: .json(200, ["tags": JSONValue(more)])) {
                    try Tags.checked($0 + more)
                }
            },
            Route(.delete, base, action: remove, rule: NetworkPolicy.member, status: 204, "Remove all tags") { context in
                try await setTags(collection, context, answer: .empty()) { _ in [] }
            },
            Route(.get, base + "/{tag}", action: read, rule: NetworkPolicy.reader, status: 204, "Check whether a tag exists") { context in
                let tag = context.parameter("tag")
                guard try await currentTags(collection, context).contains(tag) else { throw tagNotFound(tag) }
                return .empty()
            },
            Route(.put, base + "/{tag}", action: write, rule: NetworkPolicy.member, status: 201, "Add a tag") { context in
                let tag = try Tags.checked([context.parameter("tag")])
                return try await setTags(collection, context, answer: .empty(201)) { try Tags.checked($0 + tag) }
            },
            Route(.delete, base + "/{tag}", action: remove, rule: NetworkPolicy.member, status: 204, "Remove a tag") { context in
                let tag = context.parameter("tag")
                return try await setTags(collection, context, answer: .empty()) { tags in
                    guard tags.contains(tag) else { throw tagNotFound(tag) }
                    return tags.filter { $0 != tag }
                }
            },
        ]
    }

    private func tagNotFound(_ tag: String) -> ResourceError {
        .notFound("Tag \(tag.prefix(64)) could not be found.", type: "TagNotFound")
    }

    private func currentTags(_ collection: ResourceKind, _ context: RequestContext) async throws -> [String] {
        let subject = try await collection.find(database, context)
        return try await database.read { connection in
            let rows = try connection.query(
                "SELECT array_to_json(tags) AS tags FROM \(raw: collection.relation) WHERE id = \(subject.value.id)")
            guard let row = rows.first else { throw collection.notFound("\(subject.value.id)") }
            return try row.strings("tags")
        }
    }

    private func setTags(
        _ collection: ResourceKind, _ context: RequestContext, answer: Response,
        _ change: @escaping @Sendable ([String]) throws -> [String]
    ) async throws -> Response {
        let subject = try await collection.find(database, context)
        let id = try subject.value(
            for: "create_\(collection.plural)_tags", "update_\(collection.plural)_tags", "delete_\(collection.plural)_tags"
        ).id
        return try await context.write(database) { connection in
            let rows = try connection.query(
                "SELECT array_to_json(tags) AS tags FROM \(raw: collection.relation) WHERE id = \(id) FOR UPDATE")
            guard let row = rows.first else { throw collection.notFound("\(id)") }
            let tags = try change(try row.strings("tags"))
            guard tags.count <= Tags.countMax else {
                throw ResourceError.badRequest("Invalid input for tags. Reason: more than \(Tags.countMax) tags.")
            }
            try connection.execute(
                "UPDATE \(raw: collection.relation) SET tags = \(tags)::text[], updated_at = \(ambient.now) WHERE id = \(id)")
            return Change(answer, collection.name, id.description, content: ["tags": JSONValue(tags)])
        }
    }
}
