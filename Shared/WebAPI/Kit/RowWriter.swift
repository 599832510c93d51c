package import Database
package import JSON
import Kernel

/// Writes rows of `Table.query` as JSON objects. Parts that are equal in all rows of a response, such as the beginning of links,
/// are computed once.
package struct RowWriter {

    private let fields: [Field]
    /// The link targets of each field.
    private let targets: [[LinkTarget]]
    /// Names of the fields, which members of a `members` column cannot use.
    private let names: Set<String>

    /// - Parameter fields: the fields of the query, in order.
    package init(_ fields: [Field], _ context: RequestContext) {
        self.fields = fields
        targets = fields.map { LinkTarget.resolve($0.links, context) }
        // The column's own name is not shown, so clients may use it for a member.
        names = Set(fields.filter { if case .members = $0.kind { false } else { true } }.map(\.name))
    }

    /// One row as an object.
    ///
    /// - Throws: an internal error if a `members` column does not contain an object.
    package func object(_ rows: Rows, row: Int, into writer: inout JSONWriter) throws {
        try writer.object { try members(rows, row: row, into: &$0) }
    }

    /// Writes the fields of one row as members of the current object.
    package func members(_ rows: Rows, row: Int, into writer: inout JSONWriter) throws {
        for (column, field) in fields.enumerated() {
            let bytes = rows.utf8(row: row, column: column)
            if case .members = field.kind {
                // `{}` is by far the most frequent value.
                if let bytes, bytes.count > 2 { try others(bytes, into: &writer) }
                continue
            }
            if bytes == nil, field.presence == .whenSet { continue }
            writer.name(field.name)
            try value(bytes, rows, row, column, into: &writer)
        }
    }

    private func value(_ bytes: UnsafeBufferPointer<UInt8>?, _ rows: Rows, _ row: Int, _ column: Int, into writer: inout JSONWriter) throws
    {
        switch fields[column].kind {
        case .links: LinkTarget.write(targets[column], Table.keyText(rows, row: row) ?? "", into: &writer)
        case .linkMap:
            let id = Table.keyText(rows, row: row) ?? ""
            writer.object { for target in targets[column] { $0.field(target.rel, target.href(id)) } }
        case .reference(_, let absent):
            guard let bytes else { return writer.value(absent) }
            let id = String(decoding: bytes, as: UTF8.self)
            writer.object {
                $0.field("id", id)
                $0.name("links")
                LinkTarget.write(targets[column], id, into: &$0)
            }
        case .extendedReference(_, let absent):
            guard let bytes else { return writer.value(absent) }
            try reference(bytes, targets[column], into: &writer)
        case let kind:
            guard let bytes else { return writer.null() }
            switch kind {
            case .number, .json: writer.raw(bytes)
            case .decimal: Double(String(decoding: bytes, as: UTF8.self)).map { writer.value($0) } ?? writer.raw(bytes)
            case .boolean: writer.value(bytes.first == UInt8(ascii: "t"))
            case .timestamp: writer.timestamp(bytes, microseconds: false)
            case .timestampMicroseconds: writer.timestamp(bytes, microseconds: true)
            default: writer.string(utf8: bytes)
            }
        }
    }

    private func reference(_ bytes: UnsafeBufferPointer<UInt8>, _ targets: [LinkTarget], into writer: inout JSONWriter) throws {
        let object: JSONObject?
        do { object = try JSONValue.parse(bytes, depthMax: 128).objectValue } catch {
            throw ResourceError.internalError("the column with a reference is not valid JSON: \(error)")
        }
        let members = object?.members ?? []
        let id = members.first { $0.name == "id" }?.value.stringValue ?? ""
        writer.object {
            $0.field("id", id)
            $0.name("links")
            LinkTarget.write(targets, id, into: &$0)
            for member in members where member.name != "id" { $0.field(member.name, member.value) }
        }
    }

    private func others(_ bytes: UnsafeBufferPointer<UInt8>, into writer: inout JSONWriter) throws {
        let object: JSONObject?
        do { object = try JSONValue.parse(bytes, depthMax: 128).objectValue } catch {
            throw ResourceError.internalError("the column with further members is not valid JSON: \(error)")
        }
        for member in object?.members ?? [] where !names.contains(member.name) {
            writer.field(member.name, member.value)
        }
    }
}

extension Field {
    /// The expression that the query selects for the field.
    var column: String {
        switch kind {
        case .links, .linkMap: "NULL"
        default: expression
        }
    }

    /// The link targets of the field; none for other kinds.
    package var links: [Link] {
        switch kind {
        case .links(let links), .linkMap(let links), .reference(let links, _), .extendedReference(let links, _): links
        default: []
        }
    }
}

/// A link in the response to one request, without the id.
private struct LinkTarget {
    let rel: String
    private let before: String
    private let after: String
    private let escapesID: Bool

    static func resolve(_ links: [Link], _ context: RequestContext) -> [LinkTarget] {
        links.filter { $0.versions.contains(context.version) }.map {
            LinkTarget(rel: $0.rel, before: $0.before(context), after: $0.after, escapesID: $0.escapesID)
        }
    }

    func href(_ id: String) -> String { before + (escapesID ? PercentEncoding.encode(id) : id) + after }

    static func write(_ targets: [LinkTarget], _ id: String, into writer: inout JSONWriter) {
        writer.array { list in
            for target in targets {
                list.object {
                    $0.field("rel", target.rel)
                    $0.field("href", target.href(id))
                }
            }
        }
    }
}

extension Link {
    /// Writes `[{"rel": …, "href": …}]` for something that is not a row.
    package static func write(_ links: [Link], _ id: String, _ context: RequestContext, into writer: inout JSONWriter) {
        LinkTarget.write(LinkTarget.resolve(links, context), id, into: &writer)
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
