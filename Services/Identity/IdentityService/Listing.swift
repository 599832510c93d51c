import Database
import JSON
import Kernel
import WebAPI

/// A kind of thing as Identity's API shows it: its table, its names on the wire, where it lives.
///
/// A field named `extra` holds what clients stored beside the known attributes; its members are shown at the top.
struct Listing: Sendable {
    let table: Table
    /// `project`
    let member: String
    /// `projects`
    let collection: String
    /// `/v3/projects`; nil where an object has no link of its own.
    let path: String?

    init(_ table: Table, member: String, collection: String, path: String? = nil) {
        self.table = table
        self.member = member
        self.collection = collection
        self.path = path ?? "/v3/\(collection)"
    }

    // MARK: rendering

    private func write(_ rows: Rows, row: Int, _ context: RequestContext, into writer: inout JSONWriter) throws {
        let shown = table.fields.filter { $0.name != "extra" }
        try writer.object { object in
            Table.render(rows, row: row, shown, into: &object)
            if shown.count < table.fields.count, let bytes = rows.utf8(row: row, column: shown.count), bytes.count > 2 {
                try writeExtra(bytes, beside: shown, into: &object)
            }
            if let path, let id = Table.keyText(rows, row: row) {
                object.objectField("links") { $0.field("self", "\(context.publicURL)\(path)/\(Query.encode(id))") }
            }
        }
    }

    private func writeExtra(
        _ bytes: UnsafeBufferPointer<UInt8>, beside shown: [Field], into object: inout JSONWriter
    ) throws {
        guard let extra = try JSONValue.parse(bytes).objectValue else { return }
        for member in extra.members where member.name != "links" && !shown.contains(where: { $0.name == member.name }) {
            object.field(member.name, member.value)
        }
    }

    // MARK: responses

    /// `{"project": {…}}`; nil where there is no such row.
    func show(
        _ connection: Connection, _ context: RequestContext, status: Int = 200, where condition: SQL
    ) throws -> Response? {
        let rows = try table.query(connection, table.fields, where: condition)
        guard !rows.isEmpty else { return nil }
        return try Response.object(status) {
            $0.name(member)
            try write(rows, row: 0, context, into: &$0)
        }
    }

    /// The response of a change to the row `id`, for `RequestContext.write`.
    func change(
        _ connection: Connection, _ context: RequestContext, status: Int, id: String
    ) throws -> Change {
        guard let response = try show(connection, context, status: status, where: "\(raw: table.key) = \(id)") else {
            throw ResourceError.internalError("\(member) \(id) is gone inside its own transaction")
        }
        return Change(answer: response, member, id, member: member)
    }

    /// `{"projects": […], "links": {…}}`, one page.
    func list(
        _ connection: Connection, _ context: RequestContext, where conditions: [SQL]
    ) throws -> Response {
        let request = try context.listRequest(filters: [])
        let scope = conditions.isEmpty ? SQL(stringLiteral: "true") : SQL.joined(conditions, separator: " AND ")
        let page = try table.page(connection, context, request, fields: table.fields, scope: scope)
        return try Response.object(capacity: 256 + page.count * 512) { object in
            try object.arrayField(collection) { list in
                for row in 0..<page.count { try write(page.rows, row: row, context, into: &list) }
            }
            object.objectField("links") {
                $0.field("next", page.more ? Table.keyText(page.rows, row: page.count - 1).map(context.nextLink) : nil)
                $0.field("self", context.selfLink)
                $0.name("previous")
                $0.null()
            }
            if page.more, request.limit == nil { object.field("truncated", true) }
        }
    }
}

extension RequestContext {
    /// This request's URL.
    var selfLink: String {
        let text = query.encoded
        return "\(publicURL)\(path)" + (text.isEmpty ? "" : "?" + text)
    }

    /// Conditions from the query: exact and inexact (`name__contains`) for texts, true or false for flags.
    func conditions(texts: [String: String] = [:], flags: [String: String] = [:]) throws -> [SQL] {
        var conditions: [SQL] = []
        for (parameter, value) in query.items {
            if let column = flags[parameter] {
                guard let flag = value.isEmpty ? true : BodySchema.boolean(value) else {
                    throw ResourceError.badRequest(
                        "Invalid input for query parameter \(parameter). Value: '\(value.prefix(64))'. It must be true or false.")
                }
                conditions.append("\(raw: column) = \(flag)")
                continue
            }
            let parts = parameter.split(separator: "_", omittingEmptySubsequences: false)
            if let column = texts[parameter] {
                conditions.append(value.isEmpty ? "coalesce(\(raw: column), '') = ''" : "\(raw: column) = \(value)")
            } else if parts.count >= 3, parts[parts.count - 2].isEmpty,
                let column = texts[parts.dropLast(2).joined(separator: "_")], let comparison = parts.last
            {
                guard let condition = Self.inexact(column, String(comparison), value) else {
                    throw ResourceError.badRequest(
                        "Invalid query parameter '\(parameter.prefix(64))': texts are compared by contains, startswith and endswith, or these with an i before."
                    )
                }
                conditions.append(condition)
            }
        }
        return conditions
    }

    private static func inexact(_ column: String, _ comparison: String, _ value: String) -> SQL? {
        var escaped = ""
        for character in value {
            if character == "%" || character == "_" || character == "\\" { escaped.append("\\") }
            escaped.append(character)
        }
        let insensitive = comparison.hasPrefix("i")
        let pattern: String
        switch insensitive ? String(comparison.dropFirst()) : comparison {
        case "contains": pattern = "%\(escaped)%"
        case "startswith": pattern = "\(escaped)%"
        case "endswith": pattern = "%\(escaped)"
        default: return nil
        }
        return insensitive ? "\(raw: column) ILIKE \(pattern)" : "\(raw: column) LIKE \(pattern)"
    }
}

extension JSONObject {
    /// The members that are not in `known`: what Keystone stores as they are.
    func extra(beside known: Set<String>) -> JSONObject {
        JSONObject(members.filter { !known.contains($0.name) && $0.name != "links" }.map { ($0.name, $0.value) })
    }
}

/// Turns violations of constraints into the API's errors.
@discardableResult
func storing<Value>(_ kind: String, _ name: String?, _ body: () throws -> Value) throws -> Value {
    do { return try body() } catch let error as DatabaseError {
        if error.isUniqueViolation {
            throw ResourceError.conflict(
                "Conflict occurred attempting to store \(kind) - Duplicate entry found with name \(name ?? "").")
        }
        if error.isForeignKeyViolation {
            throw ResourceError.badRequest("The \(kind) refers to something that does not exist, or is still referred to.")
        }
        if error.isCheckViolation {
            throw ResourceError.badRequest("The \(kind) breaks the rule \(error.constraint ?? "of its table").")
        }
        throw error
    }
}
