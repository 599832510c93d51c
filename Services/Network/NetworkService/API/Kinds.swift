import Database
import JSON
import Kernel
import WebAPI

extension ResourceKind {
    /// A resource kind with Network's conventions for names, owners and lists.
    ///
    /// - Parameters:
    ///   - shared: rows of other projects that a project can see.
    ///   - visible: the condition for a project's own rows and the shared ones; nil for their disjunction.
    static func network(
        _ name: String, path: String? = nil, table: Table, relation: String? = nil,
        targets: [(name: String, expression: String)] = [],
        shared: @escaping @Sendable (String) -> SQL = { _ in "FALSE" }, visible: (@Sendable (String) -> SQL)? = nil,
        notFound: @escaping @Sendable (String) -> ResourceError
    ) -> ResourceKind {
        ResourceKind(
            name, path: path, table: table, relation: relation,
            visibility: .owned(readableBy: "get_\(name)", shared: shared, all: visible), targets: targets,
            grammar: ListGrammar {
                $0.ignoring = ["page_reverse"]
                $0.unknown = .refused
            }, pages: .bothWays, notFound: notFound)
    }

    /// The settable columns of a body. Null counts as absent.
    func changes(_ body: JSONObject, except: Set<String> = []) -> Changes {
        let given = body.members.filter { !$0.value.isNull && !except.contains($0.name) }
        return Changes(settings(JSONObject(given.map { ($0.name, $0.value) })))
    }

    /// The same in a cloud with a single availability zone, which serves all of these resources.
    func served(in zone: String) -> ResourceKind {
        let literal = "'" + JSONValue.array([.string(zone)]).description.replacing("'", with: "''") + "'::json"
        return adding([Field("availability_zones", .json, literal)])
    }
}

extension Field {
    /// Fields of every resource: id, owner, description and so on.
    static let standard: [Field] = [
        .uuid("id"), .text("name", isSettable: true), .text("tenant_id", "t.project_id"), .text("project_id"),
        .text("description", isSettable: true),
    ]

    static let history: [Field] = [
        Field("created_at", .timestamp, sortable: true),
        Field("updated_at", .timestamp, sortable: true),
        .number("revision_number", "t.generation"),
    ]

    static let tags: [Field] = [
        Field("tags", .json, "array_to_json(t.tags)", filter: .custom { "t.tags @> \(Tags.list($0))::text[]" }),
        .filter("tags-any") { "t.tags && \(Tags.list($0))::text[]" },
        .filter("not-tags") { "NOT t.tags @> \(Tags.list($0))::text[]" },
        .filter("not-tags-any") { "NOT t.tags && \(Tags.list($0))::text[]" },
    ]
}
