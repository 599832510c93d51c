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
        NetworkAPI.tagged.map { Resource("\($0.name)_tags", routes: NetworkTagRoutes(api: self, kind: $0).routes) }
    }
}

/// The tags of one kind of resource, sorted.
private struct NetworkTagRoutes: TagRoutes {
    let api: NetworkAPI
    let kind: ResourceKind
    var database: Database { api.database }

    var path: String { "/v2.0/\(kind.path)/{id}/tags" }
    let readRule = NetworkPolicy.reader
    let writeRule = NetworkPolicy.member
    let tag = Tags.schema
    let countMax = Tags.countMax

    func action(_ operation: TagOperation) -> String? {
        let verb =
            switch operation {
            case .list, .show: "get"
            case .add: "create"
            case .replace, .set: "update"
            case .clear, .remove: "delete"
            }
        return "\(verb)_\(kind.plural)_tags"
    }

    var tooMany: ResourceError { .badRequest("Invalid input for tags. Reason: more than \(countMax) tags.") }

    func check(_ tags: [String]) throws { _ = try Tags.checked(tags) }

    func ordered(_ tags: [String]) -> [String] { Set(tags).sorted() }

    func missing(_ context: RequestContext, _ tag: String) -> ResourceError {
        .notFound("Tag \(tag.prefix(64)) could not be found.", type: "TagNotFound")
    }

    func find(_ context: RequestContext, isChange: Bool) async throws -> Authorized<Subject> { try await kind.find(database, context) }

    func load(_ connection: Connection, _ subject: Subject, isChange: Bool) throws -> [String] {
        try api.tags(connection, kind, subject.id, lock: isChange)
    }

    func store(_ connection: Connection, _ tags: [String], of subject: Authorized<Subject>, for action: String) throws {
        try api.setTags(connection, kind, of: subject, tags, for: action)
    }

    func subject(_ subject: Subject) -> (name: String, id: String) { (kind.name, "\(subject.id)") }
}
