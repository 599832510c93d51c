import Database
import JSON
import Kernel

/// One field of a resource: its representation in the API and the source of its value.
package struct Field: Sendable {
    package enum Kind: Sendable {
        case text
        /// Numbers; written as PostgreSQL prints them.
        case number
        case boolean
        /// `json`/`jsonb` expressions; NULL becomes null.
        case json
        /// `timestamptz`, as `2026-01-31T12:34:56Z`.
        case timestamp
        /// `timestamptz`, as `2026-01-31T12:34:56.000000`.
        case timestampMicroseconds
    }

    package enum Filter: Sendable {
        case equals
        /// `true`, `false` and the other spellings of booleans.
        case boolean
        /// Regular expression, as Compute's `name`; see `SearchPattern` for what is accepted.
        case regex
        /// The SQL condition of a value.
        case custom(@Sendable (String) throws -> SQL)
    }

    package let name: String
    package let kind: Kind
    /// SQL expression over the table's aliases.
    package let expression: String
    package let filter: Filter?
    package let sortable: Bool
    package let versions: VersionRange
    /// Policy action that a caller needs to see the field; nil for everybody who sees the row.
    package let visibleBy: String?

    package init(
        _ name: String, _ kind: Kind = .text, _ expression: String? = nil, filter: Filter? = nil, sortable: Bool = false,
        versions: VersionRange = .all, visibleBy: String? = nil
    ) {
        self.name = name
        self.kind = kind
        self.expression = expression ?? "t.\(name)"
        self.filter = filter
        self.sortable = sortable
        self.versions = versions
        self.visibleBy = visibleBy
    }
}

/// A page of a list as asked for.
package struct ListRequest: Sendable {
    package var limit: Int?
    package var marker: String?
    /// How many rows are left out at the beginning.
    package var offset = 0
    package var sort: [(name: String, descending: Bool)] = []
    /// The direction of the list's own order, where the client names one and no key.
    package var descending: Bool?
    package var filters: [(name: String, value: String)] = []
    /// Names of `?fields=`; nil for all.
    package var fields: Set<String>?

    package init() {}
}

extension ListRequest {
    /// A page of a list held in memory, with the same paging rules as `Table`.
    ///
    /// - Parameters:
    ///   - items: in the list's own order.
    ///   - key: the member that markers name.
    ///   - isReversed: whether the page before the marker is meant, as with Network's `page_reverse`.
    /// - Throws: 400 for a marker that is not in the list, or a sort key that its items do not have.
    package func page(
        of items: [JSONValue], key: String = "id", isReversed: Bool = false
    ) throws -> (items: [JSONValue], more: Bool) {
        var items = items
        for (name, descending) in sort.reversed() {
            let values = items.compactMap { $0[name] }
            guard values.count == items.count else {
                let known = (items.first?.objectValue?.members ?? []).map(\.name).filter { key in items.allSatisfy { $0[key] != nil } }
                throw ListRequest.unknownSortKey(name, known)
            }
            // Compare by index if equal, so that the sort is stable and the order of later keys is kept.
            items = items.indices.sorted { left, right in
                let (first, second) = descending ? (values[right], values[left]) : (values[left], values[right])
                if ListRequest.isBefore(first, second) { return true }
                return ListRequest.isBefore(second, first) ? false : left < right
            }.map { items[$0] }
        }
        if sort.isEmpty, descending == true { items.reverse() }
        if isReversed { items.reverse() }
        if let marker {
            guard let place = items.firstIndex(where: { $0[key]?.stringValue == marker || $0[key]?.description == marker }) else {
                throw ResourceError.badRequest("marker [\(marker.prefix(64))] not found")
            }
            items.removeFirst(place + 1)
        }
        let page = Array(items.prefix(min(limit ?? Limits.pageSizeMax, Limits.pageSizeMax)))
        return (isReversed ? page.reversed() : page, items.count > page.count)
    }

    /// PostgreSQL's order: numbers by value, false before true, texts by bytes, null last.
    private static func isBefore(_ left: JSONValue, _ right: JSONValue) -> Bool {
        if left.isNull || right.isNull { return !left.isNull }
        if let left = left.intValue, let right = right.intValue { return left < right }
        if let left = left.doubleValue, let right = right.doubleValue { return left < right }
        if let left = left.boolValue, let right = right.boolValue { return !left && right }
        return (left.stringValue ?? left.description).utf8.lexicographicallyPrecedes((right.stringValue ?? right.description).utf8)
    }

    /// 400 naming parameter, value and rule.
    package static func unknownSortKey(_ name: String, _ known: [String]) -> ResourceError {
        let rule = known.isEmpty ? "This list cannot be sorted." : "It must be one of \(known.sorted().joined(separator: ", "))."
        return .badRequest("Invalid input for query parameter sort_key. Value: '\(name.prefix(64))'. \(rule)")
    }
}

/// Rows that are read, filtered, sorted, paged and rendered by declaration: from PostgreSQL's bytes to JSON's.
package struct Table: Sendable {
    /// `servers t LEFT JOIN …`; the main table's alias is `t`.
    package let source: String
    package let fields: [Field]
    /// Unique column, the last sort key of every list.
    package let key: String
    package let defaultSort: [(name: String, descending: Bool)]
    /// The status for a marker that is not in the list: 400, in Block Storage 404.
    let missingMarker: ResourceError.Code

    package init(
        _ source: String, key: String = "t.id", defaultSort: [(name: String, descending: Bool)] = [],
        missingMarker: ResourceError.Code = .badRequest, fields: [Field]
    ) {
        self.missingMarker = missingMarker
        self.source = source
        self.key = key
        self.defaultSort = defaultSort
        self.fields = fields
    }

    /// The fields that this request shows.
    package func visible(_ context: RequestContext, only names: Set<String>? = nil) -> [Field] {
        fields.filter { field in
            field.versions.contains(context.version) && (names?.contains(field.name) ?? true)
                && (field.visibleBy.map { context.allows($0) } ?? true)
        }
    }

    // MARK: reading

    /// The rows that fit `condition`, with the columns of `fields` in order and the key last.
    package func query(
        _ connection: Connection, _ fields: [Field], where condition: SQL, suffix: SQL = ""
    ) throws -> Rows {
        let columns = fields.map(\.expression).joined(separator: ", ") + (fields.isEmpty ? "" : ", ") + key
        return try connection.query(
            "SELECT \(raw: columns) FROM \(raw: source) WHERE \(condition) \(suffix)")
    }

    /// Renders one row's fields as members of the object under way.
    package static func render(_ rows: Rows, row: Int, _ fields: [Field], into writer: inout JSONWriter) {
        for (column, field) in fields.enumerated() {
            writer.name(field.name)
            renderValue(rows, row: row, column: column, field, into: &writer)
        }
    }

    /// Renders one cell as the value that its field declares.
    package static func renderValue(
        _ rows: Rows, row: Int, column: Int, _ field: Field, into writer: inout JSONWriter
    ) {
        guard let bytes = rows.utf8(row: row, column: column) else {
            writer.null()
            return
        }
        switch field.kind {
        case .text: writer.string(utf8: bytes)
        case .number, .json: writer.raw(bytes)
        case .boolean: writer.value(bytes.first == UInt8(ascii: "t"))
        case .timestamp: writer.timestamp(bytes, microseconds: false)
        case .timestampMicroseconds: writer.timestamp(bytes, microseconds: true)
        }
    }

    /// One object by condition, or nil.
    package func show(
        _ connection: Connection, _ context: RequestContext, where condition: SQL, only names: Set<String>? = nil,
        into writer: inout JSONWriter
    ) throws -> Bool {
        let fields = visible(context, only: names)
        let rows = try query(connection, fields, where: condition)
        guard !rows.isEmpty else { return false }
        writer.object { Table.render(rows, row: 0, fields, into: &$0) }
        return true
    }

    /// `{"NAME": {…}}` for the row that fits `condition`, or nil.
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
        var conditions = [scope]
        for group in Table.grouped(request.filters) {
            conditions.append(try filter(group.name, group.values, context))
        }
        let order = try sortKeys(request)
        if let marker = request.marker {
            conditions.append(try after(connection, marker, order, scope: scope))
        }
        let limit = min(request.limit ?? Limits.pageSizeMax, Limits.pageSizeMax)
        let orderText = order.map { "\($0.expression) \($0.descending ? "DESC" : "ASC")" }.joined(separator: ", ")
        let rows = try query(
            connection, fields, where: SQL.joined(conditions, separator: " AND "),
            suffix: "ORDER BY \(raw: orderText) LIMIT \(limit + 1) OFFSET \(request.offset)")
        return (rows, min(rows.count, limit), limit > 0 && rows.count > limit)
    }

    /// How many rows all pages together have.
    package func count(
        _ connection: Connection, _ context: RequestContext, _ request: ListRequest, scope: SQL
    ) throws -> Int {
        let filters = try Table.grouped(request.filters).map { try filter($0.name, $0.values, context) }
        let condition = SQL.joined([scope] + filters, separator: " AND ")
        return try connection.query("SELECT count(*) AS n FROM \(raw: source) WHERE \(condition)")[0].int("n")
    }

    /// `{"servers": […], "servers_links": […]}`.
    package func list(
        _ connection: Connection, _ context: RequestContext, collection: String, _ request: ListRequest, scope: SQL,
        links: Bool = true
    ) throws -> Response {
        let fields = visible(context, only: request.fields)
        let page = try self.page(connection, context, request, fields: fields, scope: scope)
        var writer = JSONWriter(capacity: 256 + page.count * 768)
        writer.object {
            $0.arrayField(collection) { list in
                for row in 0..<page.count {
                    list.object { Table.render(page.rows, row: row, fields, into: &$0) }
                }
            }
            if links, page.more, page.count > 0, let last = Table.keyText(page.rows, row: page.count - 1) {
                $0.arrayField(collection + "_links") { list in
                    list.object {
                        $0.field("rel", "next")
                        $0.field("href", context.nextLink(marker: last))
                    }
                }
            }
        }
        return .json(bytes: writer.bytes)
    }

    /// The key of a row of `query`.
    package static func keyText(_ rows: Rows, row: Int) -> String? {
        rows.utf8(row: row, column: rows.columnCount - 1).map { String(decoding: $0, as: UTF8.self) }
    }

    private static func grouped(_ filters: [(name: String, value: String)]) -> [(name: String, values: [String])] {
        var groups: [(name: String, values: [String])] = []
        for (name, value) in filters {
            if let index = groups.firstIndex(where: { $0.name == name }) {
                groups[index].values.append(value)
            } else {
                groups.append((name, [value]))
            }
        }
        return groups
    }

    /// A repeated filter means any of its values.
    private func filter(_ name: String, _ values: [String], _ context: RequestContext) throws -> SQL {
        guard let field = fields.first(where: { $0.name == name && $0.filter != nil && $0.versions.contains(context.version) }),
            let filter = field.filter
        else { throw ResourceError.badRequest("Invalid query parameter '\(name.prefix(64))': the list has no filter of this name.") }
        let alternatives = try values.map { value -> SQL in
            switch filter {
            case .equals: return "(\(raw: field.expression))::text = \(value)"
            case .boolean:
                guard let bool = BodySchema.boolean(value) else {
                    throw ResourceError.badRequest(
                        "Invalid input for query parameter \(name). Value: '\(value.prefix(64))'. It must be true or false.")
                }
                return "\(raw: field.expression) = \(bool)"
            case .regex:
                return try SearchPattern(value, parameter: name).condition("(\(field.expression))::text")
            case .custom(let condition): return try condition(value)
            }
        }
        return "(" + SQL.joined(alternatives, separator: " OR ") + ")"
    }

    private func sortKeys(_ request: ListRequest) throws -> [(expression: String, descending: Bool)] {
        let usual = defaultSort.map { (name: $0.name, descending: request.descending ?? $0.descending) }
        let asked = request.sort.isEmpty ? usual : request.sort
        var keys = try asked.map { item -> (expression: String, descending: Bool) in
            guard let field = fields.first(where: { $0.name == item.name && $0.sortable }) else {
                throw ListRequest.unknownSortKey(item.name, fields.filter(\.sortable).map(\.name))
            }
            return (field.expression, item.descending)
        }
        if !keys.contains(where: { $0.expression == key }) {
            keys.append((key, keys.last?.descending ?? request.descending ?? false))
        }
        return keys
    }

    /// The condition for rows after `marker`. NULL sorts as in PostgreSQL: after all values, and before them in descending
    /// order.
    private func after(
        _ connection: Connection, _ marker: String, _ order: [(expression: String, descending: Bool)], scope: SQL
    ) throws -> SQL {
        let columns = order.enumerated().map { "(\($1.expression))::text AS k\($0)" }.joined(separator: ", ")
        let rows = try connection.query(
            "SELECT \(raw: columns) FROM \(raw: source) WHERE (\(raw: key))::text = \(marker) AND \(scope)")
        guard let row = rows.first else { throw ResourceError(missingMarker, "marker [\(marker)] not found") }
        let values = try order.indices.map { try row.optionalString("k\($0)") }
        var alternatives: [SQL] = []
        var ties: [SQL] = []
        for (item, value) in zip(order, values) {
            if let beyond = beyond(value, item) { alternatives.append("(" + SQL.joined(ties + [beyond], separator: " AND ") + ")") }
            ties.append(value == nil ? "(\(raw: item.expression)) IS NULL" : "\(raw: item.expression) = \(value)")
        }
        return "(" + SQL.joined(alternatives, separator: " OR ") + ")"
    }

    /// The condition for values that sort after `value`; nil if there are none.
    private func beyond(_ value: String?, _ item: (expression: String, descending: Bool)) -> SQL? {
        switch (value, item.descending) {
        case (nil, false): nil
        case (nil, true): "(\(raw: item.expression)) IS NOT NULL"
        case (_, true): "\(raw: item.expression) < \(value)"
        // The key is never NULL, and the comparison must be one that its index supports.
        case (_, false) where item.expression == key: "\(raw: item.expression) > \(value)"
        case (_, false): "(\(raw: item.expression) > \(value) OR (\(raw: item.expression)) IS NULL)"
        }
    }
}

extension JSONWriter {
    /// PostgreSQL's `2026-01-31 12:34:56.123456+00` (sessions run in UTC) as ISO 8601.
    mutating func timestamp(_ text: UnsafeBufferPointer<UInt8>, microseconds: Bool) {
        guard text.count >= 19 else {
            string(utf8: text)
            return
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(30)
        bytes.append(UInt8(ascii: "\""))
        bytes.append(contentsOf: text[0..<10])
        bytes.append(UInt8(ascii: "T"))
        bytes.append(contentsOf: text[11..<19])
        if microseconds {
            var fraction: [UInt8] = []
            if text.count > 20, text[19] == UInt8(ascii: ".") {
                for byte in text[20...] {
                    guard byte >= 48, byte <= 57 else { break }
                    fraction.append(byte)
                }
            }
            while fraction.count < 6 { fraction.append(48) }
            bytes.append(UInt8(ascii: "."))
            bytes.append(contentsOf: fraction)
        } else {
            bytes.append(UInt8(ascii: "Z"))
        }
        bytes.append(UInt8(ascii: "\""))
        raw(bytes)
    }
}

extension RequestContext {
    /// Reads paging, sorting, `fields` and filters from the query.
    ///
    /// - Parameters:
    ///   - filters: names of filters that the list has.
    ///   - ignoring: names that the caller reads itself.
    ///   - hasOffset: whether `offset` leaves out rows.
    ///   - strict: whether other parameters are refused. By default Compute refuses them from 2.75 on, as Nova does.
    /// - Throws: 400 naming parameter, value and rule.
    package func listRequest(
        filters: Set<String>, ignoring: Set<String> = [], hasOffset: Bool = false, strict: Bool? = nil
    ) throws -> ListRequest {
        let strict = strict ?? (service.faults == .compute && version(atLeast: 2, 75))
        var request = ListRequest()
        var directions: [String] = []
        request.fields = query.fields
        for (name, value) in query.pagingItems {
            switch name {
            case "limit": request.limit = try limit(value)
            case "marker": request.marker = value.isEmpty ? nil : value
            case "sort_key": request.sort.append((value, false))
            case "sort_dir": directions.append(try direction(value))
            case "fields": break
            case "offset" where hasOffset: request.offset = try offset(value)
            case _ where filters.contains(name): request.filters.append((name, value))
            case _ where ignoring.contains(name): break
            default:
                if strict { throw ResourceError.badRequest("Invalid query parameter '\(name.prefix(64))'.") }
            }
        }
        guard directions.count <= max(request.sort.count, 1) else {
            throw ResourceError.badRequest(
                "Invalid query parameter 'sort_dir': there are \(directions.count) directions for \(request.sort.count) sort keys.")
        }
        for (index, direction) in directions.enumerated() {
            if index < request.sort.count {
                request.sort[index].descending = direction == "desc"
            } else {
                request.descending = direction == "desc"
            }
        }
        return request
    }

    /// - Throws: 400 if the value is not a non-negative integer.
    package func offset(_ text: String) throws -> Int {
        guard let offset = Int(text), (0...Int(Int32.max)).contains(offset) else {
            throw ResourceError.badRequest(
                "Invalid input for query parameter offset. Value: '\(text.prefix(64))'. It must be a whole number from 0 on.")
        }
        return offset
    }

    private func limit(_ text: String) throws -> Int {
        guard let limit = Int(text), limit >= 0 else {
            throw ResourceError.badRequest(
                "Invalid input for query parameter limit. Value: '\(text.prefix(64))'. It must be a whole number from 0 on.")
        }
        // Zero means an empty page in Compute and Block Storage, and no limit elsewhere.
        return limit == 0 && !service.faults.pageOfZeroIsEmpty ? Limits.pageSizeMax : limit
    }

    private func direction(_ text: String) throws -> String {
        guard ["asc", "desc"].contains(text) else {
            throw ResourceError.badRequest(
                "Invalid input for query parameter sort_dir. Value: '\(text.prefix(64))'. It must be asc or desc.")
        }
        return text
    }

    /// This request's URL with another marker.
    package func nextLink(marker: String) -> String {
        var items = query.items.filter { $0.name != "marker" }
        items.append((name: "marker", value: marker))
        let text = items.map { "\(Query.encode($0.name))=\(Query.encode($0.value))" }.joined(separator: "&")
        return "\(publicURL)\(path)?\(text)"
    }
}
