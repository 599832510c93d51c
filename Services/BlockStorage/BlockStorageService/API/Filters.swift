import Database
import JSON
import Kernel
import WebAPI

extension Field.Filter {
    /// `metadata={"k": "v"}`: rows whose metadata has all of the items.
    static let metadata = custom { "t.metadata @> \(try MetadataFilter.parse($0))::jsonb" }

    /// Snapshots of volumes in an availability zone.
    static let volumesZone = custom {
        "EXISTS (SELECT 1 FROM volumes v WHERE v.id = t.volume_id AND v.availability_zone = \($0))"
    }

    /// A boolean column whose field is shown as text.
    static func flag(_ name: String, _ column: String) -> Field.Filter {
        .custom { value in
            guard let wanted = BodySchema.boolean(value) else {
                throw ResourceError.badRequest(
                    "Invalid input for query parameter \(name). Value: '\(value.prefix(64))'. It must be true or false.")
            }
            return "\(raw: column) = \(wanted)"
        }
    }

    /// `name~=part` (3.31): rows whose text contains the value.
    static func part(_ column: String) -> Field.Filter {
        .all { request in
            guard request.context.version(atLeast: 3, 31) else {
                throw ResourceError.badRequest("Invalid query parameter '\(request.name)': it needs version 3.31 or later.")
            }
            return "position(\(request.values.first ?? "") in coalesce(\(raw: column), '')) > 0"
        }
    }

    /// `is_public=true|false|none` of types; `none` is for both kinds.
    static let visibility = all { request in
        guard let text = request.values.first, text.lowercased() != "none" else { return "TRUE" }
        guard let wanted = BodySchema.boolean(text.lowercased()) else {
            throw ResourceError.badRequest("Invalid is_public filter [\(text.prefix(64))]")
        }
        return "t.is_public = \(wanted)"
    }

    private static let comparisons = ["gt": ">", "gte": ">=", "eq": "=", "neq": "<>", "lt": "<", "lte": "<="]

    /// `created_at=gt:2026-01-31T12:00:00,lt:2026-02-01T00:00:00`
    ///
    /// - Parameter column: a column of type `timestamptz`.
    static func time(_ column: String) -> Field.Filter {
        .custom { text in
            let terms = try text.split(separator: ",", omittingEmptySubsequences: false).map { try term(String($0), column) }
            return SQL.joined(terms, separator: " AND ")
        }
    }

    private static func term(_ text: String, _ column: String) throws -> SQL {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let (comparison, time) = parts.count == 2 && comparisons[parts[0]] != nil ? (parts[0], parts[1]) : ("eq", text)
        guard let moment = Timestamp(time) else {
            throw ResourceError.badRequest(
                """
                Invalid timestamp '\(text.prefix(64))': expected OPERATOR:TIME with one of \
                \(comparisons.keys.sorted().joined(separator: ", ")) and an ISO 8601 time, for example \
                gt:2026-01-31T12:00:00.
                """
            )
        }
        return "\(raw: column) \(raw: comparisons[comparison] ?? "=") \(moment)"
    }
}

/// A map of strings in a query; clients also write it as a Python dictionary.
enum MetadataFilter {
    /// - Throws: 400 if the value is not a map of strings.
    static func parse(_ text: String, name: String = "metadata") throws -> String {
        for candidate in [text, text.replacing("'", with: "\"")] {
            if let value = parsed(candidate) { return value }
        }
        throw ResourceError.badRequest("The filter '\(name)' must be an object of texts, not '\(text.prefix(64))'.")
    }

    private static func parsed(_ text: String) -> String? {
        do {
            let value = try JSONValue.parse(Array(text.utf8))
            guard let object = value.objectValue, object.members.allSatisfy({ $0.value.stringValue != nil }) else { return nil }
            return value.description
        } catch {
            return nil
        }
    }
}

/// `GET /resource_filters`
enum ResourceFilters {
    private static let absent = [
        ("backup", "backups"), ("group", "groups"), ("group_snapshot", "group_snapshots"), ("message", "messages"),
    ]

    static let form = BodySchema.object([
        .init(
            "resource_filters",
            .list(.object([.init("resource", .text, required: true), .init("filters", .list(.text), required: true)])), required: true)
    ])

    /// The names of the filters that a list has in the request's version, without substring filters.
    private static func names(_ kind: ResourceKind, _ context: RequestContext) -> [String] {
        let names = kind.table.fields.map(\.name).filter { !$0.hasSuffix("~") && kind.table.filterField($0, context) != nil }
        return Set(names).sorted()
    }

    /// `{"resource_filters": […]}`, of all lists or of the one that `resource` names.
    static func answer(_ context: RequestContext) -> Response {
        let present: [(String, ResourceKind)] = [
            ("volume", .volumes), ("snapshot", .snapshots), ("attachment", .attachments), ("volume_type", .volumeTypes),
        ]
        let all =
            present.map { name, kind in (name, names(kind, context)) }
            + absent.compactMap { name, path in AbsentResource.all.first { $0.path == path }.map { (name, $0.filters.sorted()) } }
        let wanted = context.query["resource"]
        let shown = all.filter { wanted == nil || $0.0 == wanted }.map { name, filters -> JSONValue in
            ["resource": .string(name), "filters": JSONValue(filters)]
        }
        return .json(200, ["resource_filters": .array(shown)])
    }
}
