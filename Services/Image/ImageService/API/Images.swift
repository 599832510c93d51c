import Database
import ImageCore
import JSON
import Kernel
import WebAPI

extension ResourceKind {
    /// Images. Their free properties are shown together with the attributes of every image.
    static let images = ResourceKind(
        "image",
        table: Table(
            "images t", defaultSort: [("created_at", true)],
            fields: [
                Field("id", filter: .listed("id", "t.id::text"), sortable: true),
                // Empty values sort before all others.
                Field("name", filter: .listed("name", "t.name"), sortedBy: "coalesce(t.name, '')"),
                Field("status", filter: .status, sortable: true), Field("visibility", sortable: true),
                Field("protected", .boolean, filter: .flag("protected", "t.protected")), Field("os_hidden", .boolean, "t.hidden"),
                Field("checksum", filter: .equals), Field("os_hash_algo", filter: .equals), Field("os_hash_value", filter: .equals),
                Field("owner", .text, "t.project_id", filter: .equals, sortable: true),
                Field(
                    "size", .number, "coalesce(t.size, t.staging_size)", filter: .number("size", "coalesce(t.size, t.staging_size)"),
                    sortedBy: "coalesce(t.size, -1)"),
                Field("virtual_size", .number, filter: .number("virtual_size")),
                Field(
                    "container_format", filter: .listed("container_format", "t.container_format"),
                    sortedBy: "coalesce(t.container_format, '')"),
                Field("disk_format", filter: .listed("disk_format", "t.disk_format"), sortedBy: "coalesce(t.disk_format, '')"),
                Field("created_at", .timestamp, filter: .time("created_at"), sortable: true),
                Field("updated_at", .timestamp, filter: .time("updated_at"), sortable: true),
                Field("tags", .json, "to_json(t.tags)"), Field("min_ram", .number, filter: .number("min_ram"), sortable: true),
                Field("min_disk", .number, filter: .number("min_disk"), sortable: true),
                Field("self", .text, "'/v2/images/' || t.id"), Field("file", .text, "'/v2/images/' || t.id || '/file'"),
                Field("schema", .text, "'/v2/schemas/image'"),
                Field(
                    "stores", .text,
                    "CASE WHEN t.file_id IS NULL THEN NULL WHEN t.stores = '{}' THEN 'file' ELSE array_to_string(t.stores, ',') END",
                    presence: .whenSet),
                Field("os_glance_importing_to_stores", .text, "array_to_string(t.importing_to, ',')", presence: .whenSet),
                Field("os_glance_failed_import", .text, "array_to_string(t.failed_import, ',')", presence: .whenSet),
                Field("properties", .members), .filter("tag") { "t.tags @> \([$0])::text[]" },
                .filter("size_min", .number("size_min", "t.size", ">=")), .filter("size_max", .number("size_max", "t.size", "<=")),
            ]),
        envelope: .bare, visibility: ResourceKind.Visibility { try ImageScope($0).rows($0) },
        grammar: ListGrammar {
            $0.ignoring = ImageScope.parameters
            $0.unknown = .filter { "t.properties ->> \($0) = \($1)" }
            $0.directions = .descending
            $0.hasSort = true
            $0.hasFields = false
            $0.limitMax = ImageLimits.pageSizeMax
            $0.allowsEmptyPage = true
            $0.requiresAll = true
        }, pages: .paths(schema: "/v2/schemas/images")
    ) { .notFound("No image found with ID \($0.prefix(64))") }

    /// The projects with which an image is shared.
    static let members = ResourceKind(
        "member",
        table: Table(
            "image_members t", key: "t.member_id", keyType: .text, defaultSort: [("member_id", false)],
            fields: [
                Field("member_id", sortable: true), Field("image_id"), Field("status"), Field("created_at", .timestamp),
                Field("updated_at", .timestamp), Field("schema", .text, "'/v2/schemas/member'"),
            ]), relation: "image_members", envelope: .bare, visibility: .everything,
        pages: PageLinks { writer, _, _ in writer.field("schema", "/v2/schemas/members") })
}

extension Field.Filter {
    /// A value, or several values as `in:a,b`.
    fileprivate static func listed(_ name: String, _ expression: String) -> Field.Filter {
        .custom { value in
            switch try ImageFilter.list(value, name: name) {
            case .oneOf(let values): "\(raw: expression) = ANY(\(values)::text[])"
            default: "\(raw: expression) = \(value)"
            }
        }
    }

    fileprivate static let status = custom { value in
        let words: [String] =
            switch try ImageFilter.list(value, name: "status") {
            case .equals(let word): [word]
            case .oneOf(let words): words
            case .compared: []
            }
        for word in words where !ImageStatus.filterable.contains(word) {
            throw ImageFilter.invalid("status", word, "one of \(ImageStatus.filterable.sorted())")
        }
        return "t.status = ANY(\(words)::text[])"
    }

    fileprivate static func flag(_ name: String, _ expression: String) -> Field.Filter {
        .custom { "\(raw: expression) = \(try ImageFilter.boolean($0, name: name))" }
    }

    fileprivate static func number(_ name: String, _ expression: String? = nil, _ comparison: String = "=") -> Field.Filter {
        let column = expression ?? "t.\(name)"
        return .custom { "\(raw: column) \(raw: comparison) \(try ImageFilter.number($0, name: name))" }
    }

    /// Times are shown in whole seconds, so they are compared in whole seconds.
    fileprivate static func time(_ name: String) -> Field.Filter {
        .custom { value in
            guard case .compared(let comparison, let time) = try ImageFilter.time(value, name: name) else { return "true" }
            return "date_trunc('second', t.\(raw: name)) \(raw: comparison.sql) \(time)::timestamptz"
        }
    }
}
