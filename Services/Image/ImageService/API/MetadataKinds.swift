import Authorization
import Database
import ImageCore
import JSON
import Kernel
import WebAPI

/// A time in a document that PostgreSQL composes.
private func time(_ column: String) -> String { "to_char(\(column) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')" }

/// Lists of definitions: unknown parameters are refused, the newest row is first.
private let definitionsGrammar = ListGrammar {
    $0.unknown = .refused
    $0.directions = .descending
    $0.hasFields = false
    $0.limitMax = ImageLimits.pageSizeMax
    $0.allowsEmptyPage = true
}

private let times = [Field("created_at", .timestamp, sortable: true), Field("updated_at", .timestamp, sortable: true)]

extension ResourceKind {
    /// Namespaces of metadata definitions, with the resource types that they apply to.
    static let metadataNamespaces = ResourceKind(
        "namespace",
        table: Table(
            "metadef_namespaces t", key: "t.namespace", keyType: .text, defaultSort: [("created_at", true)], missingMarker: .notFound,
            fields: [
                Field("namespace", sortable: true), Field("display_name", presence: .whenSet, sortedBy: "coalesce(t.display_name, '')"),
                Field("description", presence: .whenSet), Field("visibility", filter: .visibility, sortable: true),
                Field("protected", .boolean, sortable: true), Field("owner", .text, "t.project_id", presence: .whenSet),
            ] + times + [
                Field("self", .text, "'/v2/metadefs/namespaces/' || t.namespace"),
                Field("schema", .text, "'/v2/schemas/metadefs/namespace'"),
                Field(
                    "resource_type_associations", .json,
                    """
                    (SELECT json_agg(json_strip_nulls(json_build_object('name', a.resource_type, 'prefix', a.prefix,
                        'properties_target', a.properties_target, 'created_at', \(time("a.created_at")),
                        'updated_at', \(time("a.updated_at")))) ORDER BY a.place)
                    FROM metadef_associations a WHERE a.namespace_id = t.id)
                    """, presence: .whenSet, shape: .list(.object([], additional: .allowed))), .resourceTypes, .propertiesTarget,
            ]), relation: "metadef_namespaces", envelope: .bare, visibility: .namespaces, grammar: definitionsGrammar,
        pages: .paths(schema: "/v2/schemas/metadefs/namespaces"), notFound: { MetadataNamespace.notFound($0) })

    /// The same with objects, properties and tags.
    static let metadataNamespaceDetails = metadataNamespaces.adding([
        Field(
            "objects", .json,
            """
            (SELECT json_agg(json_strip_nulls(json_build_object('name', o.name, 'description', o.description, 'required', o.required,
                'properties', o.properties, 'created_at', \(time("o.created_at")), 'updated_at', \(time("o.updated_at")),
                'self', '/v2/metadefs/namespaces/' || t.namespace || '/objects/' || o.name,
                'schema', '/v2/schemas/metadefs/object')) ORDER BY o.place)
            FROM metadef_objects o WHERE o.namespace_id = t.id)
            """, presence: .whenSet, shape: .list(.object([], additional: .allowed))),
        Field(
            "properties", .json,
            "(SELECT json_object_agg(p.name, p.definition ORDER BY p.place) FROM metadef_properties p WHERE p.namespace_id = t.id)",
            presence: .whenSet, shape: .object([], additional: .allowed)),
        Field(
            "tags", .json,
            "(SELECT json_agg(json_build_object('name', g.name) ORDER BY g.place) FROM metadef_tags g WHERE g.namespace_id = t.id)",
            presence: .whenSet, shape: .list(.object([.init("name", .text, required: true)]))),
    ])

    /// Groups of properties that belong together.
    static let metadataObjects = ResourceKind(
        "object",
        table: Table(
            "metadef_objects t JOIN metadef_namespaces n ON n.id = t.namespace_id", key: "t.name", keyType: .text,
            defaultSort: [("created_at", true)], missingMarker: .notFound,
            fields: [
                Field("name", sortable: true), Field("description", presence: .whenSet),
                Field("required", .json, presence: .whenSet, shape: .list(.text)),
                Field("properties", .json, presence: .whenSet, shape: .object([], additional: .allowed)),
            ] + times + [
                Field("self", .text, "'/v2/metadefs/namespaces/' || n.namespace || '/objects/' || t.name"),
                Field("schema", .text, "'/v2/schemas/metadefs/object'"),
            ]), relation: "metadef_objects", envelope: .bare, visibility: .everything, grammar: definitionsGrammar,
        pages: PageLinks { writer, _, _ in writer.field("schema", "/v2/schemas/metadefs/objects") },
        notFound: { .notFound("The metadata definition object with name=\($0.prefix(80)) was not found in the namespace.") })

    /// Properties. Lists show them by name, without the name in the definition.
    static let metadataProperties = ResourceKind(
        "property", plural: "properties",
        table: Table(
            "metadef_properties t", key: "t.name", keyType: .text, defaultSort: [("created_at", true)], missingMarker: .notFound,
            fields: [Field("name", sortable: true), .sortKey("created_at"), .sortKey("updated_at"), Field("definition", .members)]),
        relation: "metadef_properties", envelope: .keyed, visibility: .everything, grammar: definitionsGrammar,
        notFound: { .notFound("The metadata definition property with name=\($0.prefix(80)) was not found in the namespace.") })

    /// Tags of a namespace; lists only show their names.
    static let metadataTags = ResourceKind(
        "tag",
        table: Table(
            "metadef_tags t", key: "t.name", keyType: .text, defaultSort: [("created_at", true)], missingMarker: .notFound,
            fields: [Field("name", sortable: true)] + times), relation: "metadef_tags", envelope: .bare, visibility: .everything,
        grammar: definitionsGrammar,
        notFound: { .notFound("The metadata definition tag with name=\($0.prefix(80)) was not found in the namespace.") })

    /// The resource types that a namespace applies to.
    static let metadataAssociations = ResourceKind(
        "resource_type_association",
        table: Table(
            "metadef_associations t", key: "t.resource_type", keyType: .text, defaultSort: [("created_at", true)],
            missingMarker: .notFound,
            fields: [
                Field("name", .text, "t.resource_type", sortable: true), Field("prefix", presence: .whenSet),
                Field("properties_target", presence: .whenSet),
            ] + times), relation: "metadef_associations", envelope: .bare, visibility: .everything, grammar: definitionsGrammar)

    /// All resource types that namespaces can apply to.
    static let metadataResourceTypes = ResourceKind(
        "resource_type",
        table: Table(
            "metadef_resource_types t", key: "t.name", keyType: .text, defaultSort: [("name", false)], missingMarker: .notFound,
            fields: [Field("name", sortable: true)] + times), relation: "metadef_resource_types", envelope: .bare,
        visibility: .everything, grammar: definitionsGrammar)
}

extension MetadataNamespace {
    /// The attributes of a namespace for policy.
    static func target(owner: String?, visibility: Visibility) -> PolicyTarget {
        ["project_id": owner, "tenant_id": owner, "owner": owner, "visibility": visibility.rawValue]
    }

    var target: PolicyTarget { MetadataNamespace.target(owner: owner, visibility: visibility) }
}

extension ResourceKind.Visibility {
    /// Public namespaces, the project's own, or all, depending on the rule of `get_metadef_namespace`.
    fileprivate static let namespaces = ResourceKind.Visibility { context in
        func sees(_ owner: String?, _ visibility: MetadataNamespace.Visibility) -> Bool {
            context.allows("get_metadef_namespace", target: MetadataNamespace.target(owner: owner, visibility: visibility))
        }
        if sees(nil, .private) { return "TRUE" }
        var rows: [SQL] = []
        if sees(nil, .public) { rows.append("t.visibility = 'public'") }
        if let project = try context.caller.projectID, sees(project, .private) { rows.append("t.project_id = \(project)") }
        return rows.isEmpty ? "FALSE" : "(" + SQL.joined(rows, separator: " OR ") + ")"
    }
}

extension Field {
    /// `resource_types=A,B`, with `properties_target` for associations that have this target.
    fileprivate static let resourceTypes = Field.filter(
        "resource_types",
        .all { request in
            let names = request.values.flatMap { $0.split(separator: ",").map(String.init) }
            let target: SQL = request.context.query["properties_target"].map { " AND a.properties_target = \($0)" } ?? ""
            return """
                EXISTS (SELECT 1 FROM metadef_associations a
                WHERE a.namespace_id = t.id AND a.resource_type = ANY(\(names)::text[])\(target))
                """
        })

    fileprivate static let propertiesTarget = Field.filter("properties_target") { target in
        "EXISTS (SELECT 1 FROM metadef_associations a WHERE a.namespace_id = t.id AND a.properties_target = \(target))"
    }
}

extension Field.Filter {
    fileprivate static let visibility = custom { value in
        guard MetadataNamespace.Visibility(rawValue: value) != nil else {
            throw ResourceError.badRequest("Invalid visibility value: '\(value.prefix(64))'. It must be public or private.")
        }
        return "t.visibility = \(value)"
    }
}
