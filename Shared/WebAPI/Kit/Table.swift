package import Database
package import JSON
package import Kernel

/// Declares rows that are read, filtered, sorted, paged and rendered: from PostgreSQL's bytes to JSON.
package struct Table: Sendable {
    /// The type of a key's column. A marker is compared in this type, because a comparison of the column's text could not use an index.
    package enum KeyType: Sendable {
        case uuid
        case text
        case integer
    }

    /// `servers t LEFT JOIN …`; the main table's alias is `t`.
    package let source: String
    package private(set) var fields: [Field] { didSet { privilegedFilters = Table.privilegedFilters(fields) } }
    /// Names of parameters that only privileged callers can filter by. Others may send them without effect.
    private(set) var privilegedFilters: Set<String>
    /// A unique column, the last sort key of every list.
    package let key: String
    package private(set) var keyType: KeyType
    package let defaultSort: [(name: String, descending: Bool)]
    /// The time of a row's last change, for services that show it.
    package let modified: String?
    /// The status for an unknown marker: 400, in Block Storage 404.
    let missingMarker: ResourceError.Code

    package init(
        _ source: String, key: String = "t.id", keyType: KeyType = .uuid, defaultSort: [(name: String, descending: Bool)] = [],
        modified: String? = nil, missingMarker: ResourceError.Code = .badRequest, fields: [Field]
    ) {
        self.missingMarker = missingMarker
        self.source = source
        self.key = key
        self.keyType = keyType
        self.defaultSort = defaultSort
        self.modified = modified
        self.fields = fields
        privilegedFilters = Table.privilegedFilters(fields)
    }

    private static func privilegedFilters(_ fields: [Field]) -> Set<String> {
        Set(fields.filter { $0.filter?.privilege != nil }.map(\.name))
    }

    /// A copy with another type of key.
    package func keyed(by type: KeyType) -> Table {
        var table = self
        table.keyType = type
        return table
    }

    /// A copy with additional fields.
    package func adding(_ more: [Field]) -> Table {
        var table = self
        table.fields += more
        return table
    }

    /// A copy without some fields in responses.
    func hiding(_ isHidden: (String) -> Bool) -> Table {
        var table = self
        table.fields = fields.map { isHidden($0.name) ? $0.hidden : $0 }
        return table
    }

    /// A copy whose lists have no filters.
    var withoutFilters: Table {
        var table = self
        table.fields = fields.map(\.unfiltered)
        return table
    }

    var shownCount: Int { fields.count { $0.presence != .never } }

    /// The fields visible to this request.
    package func visible(_ context: RequestContext, only names: Set<String>? = nil) -> [Field] {
        fields.filter { field in
            field.presence != .never && (names?.contains(field.name) ?? true) && field.isKnown(to: context)
        }
    }

    // MARK: reading

    /// The rows that match `condition`, with the columns of `fields` in order, `modified` if there is one, and the key last.
    package func query(
        _ connection: Connection, _ fields: [Field], where condition: SQL, suffix: SQL = ""
    ) throws -> Rows {
        let columns = (fields.map(\.column) + (modified.map { [$0] } ?? []) + [key]).joined(separator: ", ")
        return try connection.query(
            "SELECT \(raw: columns) FROM \(raw: source) WHERE \(condition) \(suffix)")
    }

    /// One object by condition, or nil.
    package func show(
        _ connection: Connection, _ context: RequestContext, where condition: SQL, only names: Set<String>? = nil,
        into writer: inout JSONWriter
    ) throws -> Bool {
        let fields = visible(context, only: names)
        let rows = try query(connection, fields, where: condition)
        guard !rows.isEmpty else { return false }
        try RowWriter(fields, context).object(rows, row: 0, into: &writer)
        return true
    }

    /// `{"NAME": {…}}` for the row that matches `condition`, or nil.
    package func response(
        _ connection: Connection, _ context: RequestContext, name: String, status: Int = 200, where condition: SQL
    ) throws -> Response? {
        var writer = JSONWriter()
        var found = false
        try writer.object {
            $0.name(name)
            found = try show(connection, context, where: condition, into: &$0)
        }
        return found ? .json(status, bytes: writer.bytes) : nil
    }

    // MARK: lists

    /// One page of rows, and whether there may be another. `scope` restricts the rows to those that the caller may see.
    package func page(
        _ connection: Connection, _ context: RequestContext, _ request: ListRequest, fields: [Field], scope: SQL
    ) throws -> (rows: Rows, count: Int, more: Bool) {
        var conditions = try [scope] + self.conditions(connection, context, request)
        let order = try sortKeys(request, context)
        if let marker = request.marker {
            conditions.append(try after(connection, marker, order, scope: scope))
        }
        let orderText = order.map { "\($0.expression) \($0.descending ? "DESC" : "ASC")" }.joined(separator: ", ")
        let condition = SQL.joined(conditions, separator: " AND ")
        if request.isWhole {
            let rows = try query(connection, fields, where: condition, suffix: "ORDER BY \(raw: orderText)")
            return (rows, rows.count, false)
        }
        let limit = min(request.limit ?? Limits.pageSizeMax, Limits.pageSizeMax)
        let rows = try query(
            connection, fields, where: condition, suffix: "ORDER BY \(raw: orderText) LIMIT \(limit + 1) OFFSET \(request.offset)")
        return (rows, min(rows.count, limit), limit > 0 && rows.count > limit)
    }

    /// The number of rows on all pages.
    package func count(
        _ connection: Connection, _ context: RequestContext, _ request: ListRequest, scope: SQL
    ) throws -> Int {
        let condition = SQL.joined([scope] + (try conditions(connection, context, request)), separator: " AND ")
        return try connection.query("SELECT count(*) AS n FROM \(raw: source) WHERE \(condition)")[0].int("n")
    }

    /// `{"servers": […], "servers_links": […]}`.
    ///
    /// - Parameter fields: the fields to show; nil for all that the request may see.
    package func list(
        _ connection: Connection, _ context: RequestContext, collection: String, _ request: ListRequest, fields: [Field]? = nil,
        scope: SQL, links: Bool = true, bytesPerRow: Int = 768
    ) throws -> Response {
        let fields = fields ?? visible(context, only: request.fields)
        let page = try self.page(connection, context, request, fields: fields, scope: scope)
        let rows = RowWriter(fields, context)
        return try .object(capacity: 256 + page.count * bytesPerRow) { writer in
            try writer.arrayField(collection) { list in
                for row in 0..<page.count { try rows.object(page.rows, row: row, into: &list) }
            }
            guard links, page.more, let last = Table.keyText(page.rows, row: page.count - 1) else { return }
            PageLinks.link(&writer, collection + "_links", context.nextLink(marker: last))
        }
    }

    /// The key of a row of `query`.
    package static func keyText(_ rows: Rows, row: Int) -> String? {
        rows.utf8(row: row, column: rows.columnCount - 1).map { String(decoding: $0, as: UTF8.self) }
    }

    // MARK: filters

    private func conditions(_ connection: Connection, _ context: RequestContext, _ request: ListRequest) throws -> [SQL] {
        var groups: [(name: String, values: [String])] = []
        for (name, value) in request.filters {
            if let index = groups.firstIndex(where: { $0.name == name }) {
                groups[index].values.append(value)
            } else {
                groups.append((name, [value]))
            }
        }
        return try request.conditions
            + groups.map { try condition($0.name, $0.values, connection, context, requiresAll: request.requiresAll) }
    }

    /// The field for a query parameter, in the request's version and for its caller.
    package func filterField(_ name: String, _ context: RequestContext) -> Field? {
        filterField(name, context.version) { context.allows($0) }
    }

    func filterField(_ name: String, _ version: Microversion, isAllowed: (String) -> Bool = { _ in false }) -> Field? {
        fields.first { field in
            guard field.name == name, let filter = field.filter else { return false }
            return (filter.versions ?? field.versions).contains(version) || (filter.privilege.map(isAllowed) ?? false)
        }
    }

    private func condition(
        _ name: String, _ values: [String], _ connection: Connection, _ context: RequestContext, requiresAll: Bool
    ) throws -> SQL {
        guard let field = filterField(name, context), let filter = field.filter else {
            throw ResourceError.badRequest("Invalid query parameter '\(name.prefix(64))': the list has no filter of this name.")
        }
        // A filter by a field that the caller cannot see matches nothing, so that it does not reveal the value.
        if let action = field.visibleBy, !context.allows(action) { return "FALSE" }
        if case .all(let condition) = filter.condition {
            return try condition(Field.Filter.Request(name: name, values: values, context: context, connection: connection))
        }
        let terms = try values.map { try term($0, field, filter) }
        return "(" + SQL.joined(terms, separator: requiresAll ? " AND " : " OR ") + ")"
    }

    private func term(_ value: String, _ field: Field, _ filter: Field.Filter) throws -> SQL {
        switch filter.condition {
        case .equals, .all: return "(\(raw: field.expression))::text = \(value)"
        case .boolean:
            guard let bool = BodySchema.boolean(value) else {
                throw ResourceError.badRequest(
                    "Invalid input for query parameter \(field.name). Value: '\(value.prefix(64))'. It must be true or false.")
            }
            return "\(raw: field.expression) = \(bool)"
        case .regex: return try SearchPattern(value, parameter: field.name).condition("(\(field.expression))::text")
        case .each(let condition): return try condition(value)
        }
    }

    // MARK: order

    private func sortKeys(
        _ request: ListRequest, _ context: RequestContext
    ) throws -> [(expression: String, descending: Bool)] {
        let defaultKeys = defaultSort.map { (name: $0.name, descending: request.descending ?? $0.descending) }
        var keys = try (request.sort.isEmpty ? defaultKeys : request.sort).map { item -> (expression: String, descending: Bool) in
            func isKey(_ field: Field) -> Bool { field.sortable && (field.visibleBy.map { context.allows($0) } ?? true) }
            guard let expression = fields.first(where: { $0.name == item.name && isKey($0) })?.sortExpression else {
                throw ListRequest.unknownSortKey(item.name, fields.filter(isKey).map(\.name))
            }
            return (expression, item.descending)
        }
        if !keys.contains(where: { $0.expression == key }) {
            keys.append((key, keys.last?.descending ?? request.descending ?? false))
        }
        return keys
    }

    /// The condition for rows after `marker`.
    private func after(
        _ connection: Connection, _ marker: String, _ order: [(expression: String, descending: Bool)], scope: SQL
    ) throws -> SQL {
        let missing = ResourceError(missingMarker, "marker [\(marker.prefix(64))] not found")
        guard let isMarker = keyEquals(marker) else { throw missing }
        let columns = order.enumerated().map { "(\($1.expression))::text AS k\($0)" }.joined(separator: ", ")
        let rows = try connection.query("SELECT \(raw: columns) FROM \(raw: source) WHERE \(isMarker) AND \(scope)")
        guard let row = rows.first else { throw missing }
        return after(try order.indices.map { (order[$0].expression, order[$0].descending, try row.optionalString("k\($0)")) })
    }

    /// The condition for the row with a key from a client; nil if the text is not a valid key.
    package func keyEquals(_ text: String) -> SQL? {
        switch keyType {
        case .uuid: UUID128(text).map { "\(raw: key) = \($0)" }
        case .text: "\(raw: key) = \(text)"
        // A number that is too large for the column's type is still a number.
        case .integer: Int(text).map { "\(raw: key) = \($0)::bigint" }
        }
    }
}
