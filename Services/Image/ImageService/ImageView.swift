import Database
import ImageCore
import JSON
import Kernel
import WebAPI

/// Images as clients see them.
enum ImageView {
    /// The attributes that every image has. Free properties follow them at the same level.
    static let fields: [Field] = [
        Field("id"), Field("name"), Field("status"), Field("visibility"), Field("protected", .boolean),
        Field("os_hidden", .boolean, "t.hidden"), Field("checksum"), Field("os_hash_algo"), Field("os_hash_value"),
        Field("owner", .text, "t.project_id"), Field("size", .number), Field("virtual_size", .number),
        Field("container_format"), Field("disk_format"), Field("created_at", .timestamp),
        Field("updated_at", .timestamp), Field("tags", .json, "to_json(t.tags)"), Field("min_ram", .number),
        Field("min_disk", .number), Field("self", .text, "'/v2/images/' || t.id"),
        Field("file", .text, "'/v2/images/' || t.id || '/file'"), Field("schema", .text, "'/v2/schemas/image'"),
    ]

    private static let columns =
        fields + [
            Field("properties", .json), Field("stores", .text, "CASE WHEN t.file_id IS NOT NULL THEN 'file' END"),
        ]

    /// Sort keys; empty values sort before all others.
    static let table = Table(
        "images t", defaultSort: [("created_at", true)],
        fields: [
            Field("id", sortable: true), Field("created_at", sortable: true), Field("updated_at", sortable: true),
            Field("status", sortable: true), Field("name", .text, "coalesce(t.name, '')", sortable: true),
            Field("container_format", .text, "coalesce(t.container_format, '')", sortable: true),
            Field("disk_format", .text, "coalesce(t.disk_format, '')", sortable: true),
            Field("size", .number, "coalesce(t.size, -1)", sortable: true),
            Field("owner", .text, "t.project_id", sortable: true), Field("min_disk", .number, sortable: true),
            Field("min_ram", .number, sortable: true), Field("visibility", sortable: true),
        ])

    private static func render(_ rows: Rows, row: Int, into writer: inout JSONWriter) {
        writer.object { object in
            Table.render(rows, row: row, fields, into: &object)
            if let store = rows.utf8(row: row, column: fields.count + 1) {
                object.name("stores")
                object.string(utf8: store)
            }
            // `{}` is the most frequent value by far.
            guard let bytes = rows.utf8(row: row, column: fields.count), bytes.count > 2 else { return }
            do {
                for member in try JSONValue.parse(bytes).objectValue?.members ?? [] {
                    object.field(member.name, member.value)
                }
            } catch {
                object.field("properties", String(decoding: bytes, as: UTF8.self))
            }
        }
    }

    /// The image's own answer.
    ///
    /// - Throws: 404 when it is gone.
    static func response(_ connection: Connection, _ id: String, status: Int = 200) throws -> Response {
        let rows = try table.query(connection, columns, where: "t.id = \(id)::uuid")
        guard !rows.isEmpty else { throw ImageView.notFound(id) }
        var writer = JSONWriter()
        render(rows, row: 0, into: &writer)
        return .json(status, bytes: writer.bytes)
    }

    static func notFound(_ id: String) -> ResourceError { .notFound("No image found with ID \(id.prefix(64))") }

    static func list(
        _ connection: Connection, _ context: RequestContext, _ request: ListRequest, scope: SQL
    ) throws -> Response {
        let page = try table.page(connection, context, request, fields: columns, scope: scope)
        var writer = JSONWriter(capacity: 512 + page.count * 1024)
        writer.object {
            $0.arrayField("images") { list in
                for row in 0..<page.count { render(page.rows, row: row, into: &list) }
            }
            if page.more, page.count > 0, let last = Table.keyText(page.rows, row: page.count - 1) {
                $0.field("next", link(context, marker: last))
            }
            $0.field("schema", "/v2/schemas/images")
            $0.field("first", link(context, marker: nil))
        }
        return .json(bytes: writer.bytes)
    }

    /// This list from `marker` on, as a path.
    private static func link(_ context: RequestContext, marker: String?) -> String {
        var items = context.query.items.filter { $0.name != "marker" }
        if let marker { items.append((name: "marker", value: marker)) }
        let query = items.map { "\(Query.encode($0.name))=\(Query.encode($0.value))" }.joined(separator: "&")
        return "/v2/images" + (query.isEmpty ? "" : "?" + query)
    }
}
