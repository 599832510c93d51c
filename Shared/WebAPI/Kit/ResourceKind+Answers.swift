import Authorization
package import Database
package import JSON
package import Kernel

/// Responses that show resources.
extension ResourceKind {
    /// A response, and the time of the latest change of its rows, if the table has it.
    package typealias Dated = (response: Response, modified: Timestamp?)

    // MARK: one resource

    /// The resource in the path, for a caller who may see it.
    ///
    /// - Throws: 404 if the caller may see no such resource, 403 if the caller may read none of their own.
    package func show(_ database: Database, _ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let subject = try await database.read { try self.subject($0, context, id) }
        // A row that is visible because it is shared belongs to another project: callers who may read their own may read it.
        let isOwners = context.allows(readAction, target: subject.target)
        try context.authorize(target: isOwners ? subject.target : .project(context.caller.projectID), action: readAction)
        try context.checkRevision(subject)
        let names = context.query.fields
        return try await database.read { try one($0, context, where: "t.id = \(id)", id: "\(id)", only: names) }
    }

    /// The row that matches `condition`.
    ///
    /// - Throws: the kind's 404 naming `id`.
    package func one(
        _ connection: Connection, _ context: RequestContext, where condition: SQL, id: String, status: Int = 200,
        only names: Set<String>? = nil
    ) throws -> Response {
        try dated(connection, context, where: condition, id: id, status: status, only: names).response
    }

    /// The same with the time of the last change.
    package func dated(
        _ connection: Connection, _ context: RequestContext, where condition: SQL, id: String, status: Int = 200,
        only names: Set<String>? = nil
    ) throws -> Dated {
        guard let found = try oneOrNone(connection, context, where: condition, status: status, only: names) else { throw notFound(id) }
        return found
    }

    /// The row that matches `condition`; nil if there is none.
    package func oneOrNone(
        _ connection: Connection, _ context: RequestContext, where condition: SQL, status: Int = 200, only names: Set<String>? = nil
    ) throws -> Dated? {
        let fields = table.visible(context, only: names)
        let rows = try table.query(connection, fields, where: condition)
        guard !rows.isEmpty else { return nil }
        let writer = RowWriter(fields, context)
        let response: Response
        switch envelope {
        case .named, .nested:
            response = try .object(status) {
                $0.name(name)
                try writer.object(rows, row: 0, into: &$0)
            }
        case .bare, .keyed: response = try .object(status) { try writer.members(rows, row: 0, into: &$0) }
        }
        return (response, try table.newest(rows, count: 1))
    }

    // MARK: changes

    /// The response to a change of one resource, which is also stored in the audit record.
    package func changed(
        _ connection: Connection, _ context: RequestContext, _ id: UUID128, status: Int = 200
    ) throws -> Change {
        let response = try one(connection, context, where: "t.id = \(id)", id: "\(id)", status: status)
        return Change(answer: response, name, id.description)
    }

    /// The response to a change of the row with the key `id`. The audit record contains the resource without its envelope.
    package func change(_ connection: Connection, _ context: RequestContext, status: Int = 200, id: String) throws -> Change {
        let response = try one(connection, context, where: "\(raw: table.key) = \(id)", id: id, status: status)
        switch envelope {
        case .named, .nested: return Change(answer: response, name, id, member: name)
        case .bare, .keyed: return Change(answer: response, name, id)
        }
    }

    /// The response to a create request, and its audit record.
    package func created(_ connection: Connection, _ context: RequestContext, _ ids: [UUID128], isBulk: Bool) throws -> Change {
        if !isBulk, let id = ids.first { return try changed(connection, context, id, status: 201) }
        let fields = table.visible(context)
        let rows = try table.query(connection, fields, where: "t.id \(anyOf: ids)")
        let places = Dictionary(
            (0..<rows.count).map { (Table.keyText(rows, row: $0), $0) }, uniquingKeysWith: { first, _ in first })
        let writer = RowWriter(fields, context)
        let response = try Response.object(201, capacity: 256 + rows.count * 1024) {
            try $0.arrayField(plural) { list in
                for row in ids.compactMap({ places[$0.description] }) { try writer.object(rows, row: row, into: &list) }
            }
        }
        return Change(response, name, nil, content: ["ids": JSONValue(ids.map(\.description))])
    }

    package func deleted(_ id: UUID128) -> Change { Change(.empty(204), name, id.description) }

    // MARK: lists

    /// Parses the query.
    ///
    /// - Throws: 400 naming parameter, value and rule.
    package func listRequest(_ context: RequestContext) throws -> ListRequest {
        var grammar = grammar
        grammar.ignoring.formUnion(table.privilegedFilters)
        return try ListRequest(context, grammar) { table.filterField($0, context)?.filter }
    }

    /// One page of the rows that the caller may see, after the decision about the route's action.
    package func list(_ database: Database, _ context: RequestContext) async throws -> Response {
        try context.authorize(target: .project(context.caller.projectID))
        let request = try listRequest(context)
        let scope = try visibility.rows(context)
        return try await database.read { try list($0, context, request, scope: scope).response }
    }

    /// One page of the rows that match all of `conditions`.
    package func list(_ connection: Connection, _ context: RequestContext, where conditions: [SQL]) throws -> Response {
        let scope = conditions.isEmpty ? "TRUE" : SQL.joined(conditions, separator: " AND ")
        return try list(connection, context, listRequest(context), scope: scope).response
    }

    /// One page of the rows in `scope`.
    ///
    /// - Parameters:
    ///   - head: members of the response before the list.
    ///   - tail: members at its end.
    package func list(
        _ connection: Connection, _ context: RequestContext, _ request: ListRequest, scope: SQL,
        head: (inout JSONWriter) throws -> Void = { _ in }, tail: (inout JSONWriter) throws -> Void = { _ in }
    ) throws -> Dated {
        let isReversed = try pages.isReversible && context.isPageReversed()
        let request = isReversed ? request.reversed : request
        let fields = table.visible(context, only: request.fields)
        let page = try table.page(connection, context, request, fields: fields, scope: scope)
        let order = isReversed ? Array((0..<page.count).reversed()) : Array(0..<page.count)
        let writer = RowWriter(fields, context)
        let response = try Response.object(capacity: 256 + page.count * bytesPerRow) { object in
            try head(&object)
            try rows(page.rows, order, writer, into: &object)
            let hasMarker = request.marker != nil
            let facts = PageLinks.Page(
                collection: plural, first: order.first.flatMap { Table.keyText(page.rows, row: $0) },
                last: order.last.flatMap { Table.keyText(page.rows, row: $0) }, hasNext: isReversed ? hasMarker : page.more,
                hasPrevious: isReversed ? page.more : hasMarker, isFull: page.count > 0 && page.count == request.limit,
                isCut: page.more && request.limit == nil)
            pages.write(&object, facts, context)
            try tail(&object)
        }
        return (response, try table.newest(page.rows, count: page.count))
    }

    private func rows(_ rows: Rows, _ order: [Int], _ writer: RowWriter, into object: inout JSONWriter) throws {
        switch envelope {
        case .named, .bare:
            try object.arrayField(plural) { list in
                for row in order { try writer.object(rows, row: row, into: &list) }
            }
        case .nested:
            try object.arrayField(plural) { list in
                for row in order {
                    try list.object { try $0.objectField(name) { try writer.members(rows, row: row, into: &$0) } }
                }
            }
        case .keyed:
            try object.objectField(plural) { list in
                for row in order {
                    list.name(Table.keyText(rows, row: row) ?? "")
                    try writer.object(rows, row: row, into: &list)
                }
            }
        }
    }
}

extension Table {
    /// The latest of `modified` in the first `count` rows.
    package func newest(_ rows: Rows, count: Int) throws -> Timestamp? {
        guard modified != nil else { return nil }
        let column = rows.columnCount - 2
        // PostgreSQL's timestamps sort as texts: all are in UTC, and `+` sorts before `.`.
        let latest = (0..<count).compactMap { rows.utf8(row: $0, column: column) }.max { $0.lexicographicallyPrecedes($1) }
        return try latest.map { bytes in
            let text = String(decoding: bytes, as: UTF8.self)
            guard let time = Timestamp(text) else { throw ResourceError.internalError("'\(text)' is not a time") }
            return time
        }
    }
}

extension ListRequest {
    /// The opposite order, for the page before the marker.
    fileprivate var reversed: ListRequest {
        var request = self
        if request.sort.isEmpty { request.sort = [("id", request.descending ?? false)] }
        for index in request.sort.indices { request.sort[index].descending.toggle() }
        return request
    }
}

extension RequestContext {
    /// Whether the page before the marker is requested.
    package func isPageReversed() throws -> Bool {
        guard let text = query["page_reverse"] else { return false }
        guard let value = BodySchema.boolean(text) else {
            throw ResourceError.badRequest("Invalid input for page_reverse. Value: '\(text.prefix(32))'. It must be a boolean.")
        }
        return value
    }
}
