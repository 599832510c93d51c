import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// One kind of resource as lists, show and look-ups need it.
struct Collection: Sendable {
    /// `security_group`, as in bodies.
    let name: String
    /// `security_groups`, as in bodies.
    let plural: String
    /// `security-groups`, as in paths.
    let path: String
    let table: Table
    /// The table's own name in the database.
    let relation: String
    let notFound: @Sendable (String) -> ResourceError
    /// Rows that a project sees beside its own.
    let shared: @Sendable (String) -> SQL
    /// SQL condition for all rows that a project can see, if it can be written more efficiently than `own OR shared`.
    let seen: (@Sendable (String) -> SQL)?
    /// Further attributes for policy: name and SQL expression.
    let targets: [(name: String, expression: String)]

    init(
        _ name: String, plural: String? = nil, path: String? = nil, table: Table, relation: String? = nil,
        targets: [(name: String, expression: String)] = [],
        shared: @escaping @Sendable (String) -> SQL = { _ in "FALSE" }, visible: (@Sendable (String) -> SQL)? = nil,
        notFound: @escaping @Sendable (String) -> ResourceError
    ) {
        self.name = name
        self.plural = plural ?? name + "s"
        self.path = path ?? self.plural
        self.table = table
        self.relation = relation ?? self.plural
        self.targets = targets
        self.shared = shared
        seen = visible
        self.notFound = notFound
    }

    var readAction: String { "get_\(name)" }

    /// The same, in a cloud whose agents are all in one availability zone: they serve every one of these.
    func served(in zone: String) -> Collection {
        let literal = "'" + JSONValue.array([.string(zone)]).description.replacing("'", with: "''") + "'::json"
        let fields = table.fields + [Field("availability_zones", .json, literal)]
        return Collection(
            name, plural: plural, path: path,
            table: Table(table.source, key: table.key, defaultSort: table.defaultSort, fields: fields), relation: relation,
            targets: targets, shared: shared, visible: seen, notFound: notFound)
    }

    /// What the caller may see.
    func visible(_ context: RequestContext) throws -> SQL {
        if context.allows(readAction) { return "TRUE" }
        guard let project = try context.caller.projectID else { return "FALSE" }
        return seen?(project) ?? "(t.project_id = \(project) OR \(shared(project)))"
    }

    // MARK: look-up

    /// The row that a request names.
    ///
    /// - Throws: 404 where there is none that the caller may see, 403 where they may not do the route's action.
    func find(_ database: Database, _ context: RequestContext, action: String? = nil) async throws -> Authorized<Subject> {
        let text = context.parameter("id")
        guard let id = UUID128(text) else { throw notFound(text) }
        let subject = try await database.read { try self.subject($0, context, id) }
        let decision = try context.authorize(subject, target: subject.target, action: action)
        try context.checkRevision(subject)
        return decision
    }

    /// - Throws: 404 where there is no such row that the caller may see.
    func subject(_ connection: Connection, _ context: RequestContext, _ id: UUID128) throws -> Subject {
        guard let subject = try subjects(connection, context, [id])[id] else { throw notFound("\(id)") }
        return subject
    }

    /// Those of the rows that the caller may see.
    func subjects(_ connection: Connection, _ context: RequestContext, _ ids: [UUID128]) throws -> [UUID128: Subject] {
        guard !ids.isEmpty else { return [:] }
        let extra = targets.enumerated().map { ", (\($1.expression))::text AS target\($0)" }.joined()
        let rows = try connection.query(
            """
            SELECT t.id, t.project_id, t.generation\(raw: extra) FROM \(raw: table.source)
            WHERE t.id \(anyOf: ids) AND \(try visible(context))
            """)
        var result: [UUID128: Subject] = [:]
        for row in rows {
            let id = try row.uuid("id")
            let project = try row.string("project_id")
            var target = PolicyTarget.project(project)
            for (index, item) in targets.enumerated() {
                target.attributes[item.name] = try row.optionalString("target\(index)")
            }
            result[id] = Subject(id: id, projectID: project, revision: try row.int("generation"), target: target)
        }
        return result
    }

    // MARK: answers

    func show(_ database: Database, _ context: RequestContext) async throws -> Response {
        let id = context.parameter("id")
        guard let uuid = UUID128(id) else { throw notFound(id) }
        let subject = try await database.read { try self.subject($0, context, uuid) }
        // Shared rows belong to another project, so check the policy as if the caller's project owned them.
        let isOwners = context.allows(readAction, target: subject.target)
        try context.authorize(target: isOwners ? subject.target : .project(context.caller.projectID), action: readAction)
        try context.checkRevision(subject)
        let names = context.query.fields
        let response = try await database.read { connection in
            try one(connection, context, UUID128(id), status: 200, only: names)
        }
        guard let response else { throw notFound(id) }
        return response
    }

    private func one(
        _ connection: Connection, _ context: RequestContext, _ id: UUID128?, status: Int, only names: Set<String>? = nil
    ) throws -> Response? {
        var writer = JSONWriter()
        var found = false
        try writer.object {
            $0.name(name)
            found = try table.show(connection, context, where: "t.id = \(id)", only: names, into: &$0)
        }
        return found ? .json(status, bytes: writer.bytes) : nil
    }

    /// The answer to a create request and its audit record.
    func created(_ connection: Connection, _ context: RequestContext, _ ids: [UUID128], isBulk: Bool) throws -> Change {
        if !isBulk, let id = ids.first { return try changed(connection, context, id, status: 201) }
        let fields = table.visible(context)
        let rows = try table.query(connection, fields, where: "t.id \(anyOf: ids)")
        let places = Dictionary(
            (0..<rows.count).map { (Table.keyText(rows, row: $0), $0) }, uniquingKeysWith: { first, _ in first })
        var writer = JSONWriter(capacity: 256 + rows.count * 1024)
        writer.object {
            $0.arrayField(plural) { list in
                for row in ids.compactMap({ places[$0.description] }) {
                    list.object { Table.render(rows, row: row, fields, into: &$0) }
                }
            }
        }
        return Change(
            .json(201, bytes: writer.bytes), name, nil, content: ["ids": JSONValue(ids.map(\.description))])
    }

    /// The answer to a change of one resource.
    func changed(_ connection: Connection, _ context: RequestContext, _ id: UUID128, status: Int = 200) throws -> Change {
        guard let response = try one(connection, context, id, status: status), let bytes = response.bytes else {
            throw notFound("\(id)")
        }
        return Change(response, name, id.description, content: try JSONValue.parse(bytes))
    }

    func deleted(_ id: UUID128) -> Change { Change(.empty(204), name, id.description) }

    // MARK: lists

    private static let notFilters: Set<String> = ["limit", "marker", "sort_key", "sort_dir", "fields", "page_reverse"]

    func list(_ database: Database, _ context: RequestContext) async throws -> Response {
        try context.authorize(target: .project(context.caller.projectID), action: readAction)
        var request = try context.listRequest(
            filters: Set(table.fields.filter { $0.filter != nil }.map(\.name)), ignoring: ["page_reverse"], strict: true)
        var scope = try visible(context)
        try rewrite(&request)
        for filter in request.filters where !maySee(filter.name, context) { scope = "FALSE" }
        let isReversed = try Collection.isReversed(context)
        if isReversed {
            if request.sort.isEmpty { request.sort = [("id", request.descending ?? false)] }
            for index in request.sort.indices { request.sort[index].descending.toggle() }
        }
        let asked = request
        return try await database.read { [scope] connection in
            try page(connection, context, asked, scope: scope, isReversed: isReversed)
        }
    }

    /// A filter on a field that the caller may not see matches nothing.
    private func maySee(_ name: String, _ context: RequestContext) -> Bool {
        guard let action = table.fields.first(where: { $0.name == name })?.visibleBy, action != Field.filterOnly else {
            return true
        }
        return context.allows(action)
    }

    /// `fixed_ips=ip_address=10.0.0.3` is the filter `fixed_ips.ip_address` with the value `10.0.0.3`.
    private func rewrite(_ request: inout ListRequest) throws {
        for index in request.filters.indices where request.filters[index].name == "fixed_ips" {
            let parts = request.filters[index].value.split(separator: "=", maxSplits: 1)
            guard parts.count == 2, ["ip_address", "subnet_id", "ip_address_substr"].contains(parts[0]) else {
                throw ResourceError.badRequest(
                    "Invalid value for the filter fixed_ips: '\(request.filters[index].value.prefix(64))'. It must be ip_address=… or subnet_id=…."
                )
            }
            request.filters[index] = ("fixed_ips.\(parts[0])", String(parts[1]))
        }
    }

    /// Whether the page before the marker is asked for.
    static func isReversed(_ context: RequestContext) throws -> Bool {
        guard let text = context.query["page_reverse"] else { return false }
        guard let value = BodySchema.boolean(text) else {
            throw ResourceError.badRequest("Invalid input for page_reverse. Value: '\(text.prefix(32))'. It must be a boolean.")
        }
        return value
    }

    private func page(
        _ connection: Connection, _ context: RequestContext, _ request: ListRequest, scope: SQL, isReversed: Bool
    ) throws -> Response {
        let fields = table.visible(context, only: request.fields)
        let page = try table.page(connection, context, request, fields: fields, scope: scope)
        let order = isReversed ? Array((0..<page.count).reversed()) : Array(0..<page.count)
        var writer = JSONWriter(capacity: 256 + page.count * 768)
        writer.object {
            $0.arrayField(plural) { list in
                for row in order { list.object { Table.render(page.rows, row: row, fields, into: &$0) } }
            }
            guard let first = order.first.flatMap({ Table.keyText(page.rows, row: $0) }),
                let last = order.last.flatMap({ Table.keyText(page.rows, row: $0) })
            else { return }
            let hasNext = isReversed ? request.marker != nil : page.more
            let hasPrevious = isReversed ? page.more : request.marker != nil
            guard hasNext || hasPrevious else { return }
            $0.arrayField(plural + "_links") { list in
                if hasNext { Collection.link(&list, "next", context, marker: last, isReversed: false) }
                if hasPrevious { Collection.link(&list, "previous", context, marker: first, isReversed: true) }
            }
        }
        return .json(bytes: writer.bytes)
    }

    private static func link(
        _ list: inout JSONWriter, _ relation: String, _ context: RequestContext, marker: String, isReversed: Bool
    ) {
        var items = context.query.items.filter { $0.name != "marker" && $0.name != "page_reverse" }
        items.append((name: "marker", value: marker))
        if isReversed { items.append((name: "page_reverse", value: "True")) }
        let text = items.map { "\(Query.encode($0.name))=\(Query.encode($0.value))" }.joined(separator: "&")
        list.object {
            $0.field("rel", relation)
            $0.field("href", "\(context.publicURL)\(context.path)?\(text)")
        }
    }
}

extension Field {
    /// A policy action that no caller has, for fields that can be used as filters but are never shown.
    static let filterOnly = "filter_only"

    /// A `uuid` column, filtered through its index.
    static func uuid(_ name: String, _ expression: String? = nil, filterable: Bool = true) -> Field {
        let column = expression ?? "t.\(name)"
        return Field(
            name, .text, column,
            filter: filterable ? .custom { UUID128($0).map { "\(raw: column) = \($0)" } ?? "FALSE" } : nil, sortable: true)
    }

    /// A text column with an equality filter.
    static func text(_ name: String, _ expression: String? = nil, visibleBy: String? = nil) -> Field {
        Field(name, .text, expression, filter: .equals, sortable: true, visibleBy: visibleBy)
    }

    /// An IP address; filters accept any notation.
    static func address(_ name: String) -> Field {
        Field(name, .text, filter: .custom { text in IPAddress(text).map { "t.\(raw: name) = \($0)" } ?? "FALSE" }, sortable: true)
    }

    /// The same for a network in CIDR form.
    static func network(_ name: String) -> Field {
        Field(
            name, .text, filter: .custom { text in IPNetwork(text).map { "t.\(raw: name) = \($0.description)" } ?? "FALSE" },
            sortable: true)
    }

    /// The same for a hardware address.
    static func mac(_ name: String) -> Field {
        Field(
            name, .text, filter: .custom { text in MACAddress(text).map { "t.\(raw: name) = \($0.description)" } ?? "FALSE" },
            sortable: true)
    }

    static func flag(_ name: String, _ expression: String? = nil) -> Field {
        Field(name, .boolean, expression, filter: .boolean, sortable: true)
    }

    static func number(_ name: String, _ expression: String? = nil, visibleBy: String? = nil) -> Field {
        Field(name, .number, expression, filter: .equals, sortable: true, visibleBy: visibleBy)
    }

    static func filter(_ name: String, _ condition: @escaping @Sendable (String) throws -> SQL) -> Field {
        Field(name, .text, "NULL", filter: .custom(condition), visibleBy: filterOnly)
    }

    /// Id, owner, description and the like: what every resource has.
    static let standard: [Field] = [
        .uuid("id"), .text("name"), .text("tenant_id", "t.project_id"), .text("project_id"), .text("description"),
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
