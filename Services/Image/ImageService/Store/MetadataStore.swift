import Authorization
import Database
import ImageCore
import JSON
import Kernel
import WebAPI

/// The SQL for metadata definitions, which runs inside the transaction of the request.
///
/// Changes of a namespace's parts lock the namespace, so that names are unique and its parts cannot outnumber the limit.
enum MetadataStore {
    static func find(_ connection: Connection, _ name: String, locked: Bool = false) throws -> MetadataNamespace? {
        try connection.query(
            """
            SELECT t.id, \(raw: Attributes.selection) FROM metadef_namespaces t
            WHERE t.namespace = \(name) \(raw: locked ? "FOR UPDATE" : "")
            """
        ).first.map { row in
            let found = try Attributes(row)
            return MetadataNamespace(
                id: try row.uuid("id"), name: found.name, visibility: found.visibility, isProtected: found.isProtected, owner: found.owner)
        }
    }

    // MARK: namespaces

    /// The attributes of a namespace from a request's body; a replacement sets missing attributes to their defaults.
    struct Attributes: StoredRow {
        var name: String
        var displayName: String?
        var summary: String?
        var visibility: MetadataNamespace.Visibility
        var isProtected: Bool
        var owner: String?

        static let relation = "metadef_namespaces"
        static let blank = Attributes(name: "", visibility: .private, isProtected: false)
        static let columns: [Column<Attributes>] = [
            Column("namespace", \.name), Column("display_name", \.displayName), Column("description", \.summary),
            Column("visibility", \.visibility), Column("protected", \.isProtected), Column("project_id", \.owner),
        ]
    }

    /// - Throws: 409 if the name is taken.
    static func insert(
        _ connection: Connection, _ namespace: Authorized<Attributes>, id: UUID128, now: Timestamp
    ) throws {
        let new = try namespace.value(for: "add_metadef_namespace")
        try insertRow(connection, new, id, now)
        try markCustomized(connection, new.name)
    }

    private static func insertRow(_ connection: Connection, _ new: Attributes, _ id: UUID128, _ now: Timestamp) throws {
        var row = new.values()
        row.set("id", id)
        let rows = try connection.query("\(row.insertion(Attributes.relation, at: now)) ON CONFLICT (namespace) DO NOTHING RETURNING id")
        guard !rows.isEmpty else {
            throw ResourceError.conflict("The metadata definition namespace=\(new.name) already exists.")
        }
    }

    /// - Throws: 409 if the new name is taken.
    static func replace(
        _ connection: Connection, _ namespace: Authorized<MetadataNamespace>, with new: Attributes, now: Timestamp
    ) throws {
        let before = try namespace.value(for: "modify_metadef_namespace")
        do {
            try new.values().apply(connection, Attributes.relation, before.id, at: now)
        } catch let error as DatabaseError where error.isUniqueViolation {
            throw ResourceError.conflict(
                "Invalid update. It would result in a duplicate metadata definition namespace with the same name of \(new.name)")
        }
        try markCustomized(connection, before.name)
    }

    static func delete(_ connection: Connection, _ namespace: Authorized<MetadataNamespace>) throws {
        let namespace = try namespace.value(for: "delete_metadef_namespace")
        try connection.execute("DELETE FROM metadef_namespaces WHERE id = \(namespace.id)")
        try markCustomized(connection, namespace.name)
    }

    /// A built-in namespace that was changed is no longer replaced by a newer release.
    private static func markCustomized(_ connection: Connection, _ name: String) throws {
        try connection.execute("UPDATE metadef_loads SET customized = true WHERE namespace = \(name) AND NOT customized")
    }

    // MARK: parts

    /// The tables of a namespace's parts.
    enum Part: String, Sendable {
        case objects = "metadef_objects"
        case properties = "metadef_properties"
        case tags = "metadef_tags"

        /// The name in messages: `object`.
        var word: String {
            switch self {
            case .objects: "object"
            case .properties: "property"
            case .tags: "tag"
            }
        }

        fileprivate var table: SQL { "\(raw: rawValue)" }

        func notFound(_ name: String, in namespace: String) -> ResourceError {
            .notFound("The metadata definition \(word) with name=\(name.prefix(80)) was not found in namespace=\(namespace).")
        }

        fileprivate func duplicate(_ name: String, in namespace: String) -> ResourceError {
            .conflict("A metadata definition \(word) with name=\(name) already exists in namespace=\(namespace).")
        }
    }

    /// The columns of a part from a request's body.
    struct Content: Sendable {
        let name: String
        let columns: Changes

        static func object(_ body: JSONValue) -> Content {
            Content(
                name: body["name"]?.stringValue ?? "",
                columns: [
                    "description": "\(body["description"]?.stringValue)", "required": json(body["required"]),
                    "properties": json(body["properties"]),
                ])
        }

        static func property(_ name: String, _ definition: JSONValue) -> Content {
            var definition = definition.objectValue ?? [:]
            definition["name"] = nil
            return Content(name: name, columns: ["definition": "\(JSONValue.object(definition))::jsonb"])
        }

        static func tag(_ name: String) -> Content { Content(name: name, columns: [:]) }

        private static func json(_ value: JSONValue?) -> SQL { value.map { "\($0)::jsonb" } ?? "NULL" }
    }

    /// - Throws: 409 if the name is taken, 413 for too many parts.
    static func add(
        _ connection: Connection, _ part: Part, _ content: [Content], to namespace: Authorized<MetadataNamespace>, now: Timestamp
    ) throws {
        let namespace = try namespace.value(for: "add_metadef_object", "add_metadef_property", "add_metadef_tag", "add_metadef_tags")
        try markCustomized(connection, namespace.name)
        try add(connection, part, content, to: namespace.id, named: namespace.name, now: now)
    }

    /// The parts of a new namespace.
    static func addAll(
        _ connection: Connection, _ part: Part, _ content: [Content], to namespace: Authorized<Attributes>, id: UUID128, now: Timestamp
    ) throws {
        let new = try namespace.value(for: "add_metadef_namespace")
        try add(connection, part, content, to: id, named: new.name, now: now)
    }

    private static func add(
        _ connection: Connection, _ part: Part, _ content: [Content], to id: UUID128, named namespace: String, now: Timestamp
    ) throws {
        for item in content {
            var row: Changes = ["namespace_id": "\(id)", "name": "\(item.name)"]
            row.merge(item.columns)
            let rows = try connection.query(
                "\(row.insertion(part.rawValue, at: now)) ON CONFLICT (namespace_id, name) DO NOTHING RETURNING name")
            guard !rows.isEmpty else { throw part.duplicate(item.name, in: namespace) }
        }
        try requireRoom(connection, part.rawValue, in: id)
    }

    private static func requireRoom(_ connection: Connection, _ table: String, in id: UUID128) throws {
        let count = try connection.query("SELECT count(*) AS n FROM \(raw: table) WHERE namespace_id = \(id)")[0].int("n")
        guard count <= MetadataLimits.partsMax else {
            throw ResourceError(
                .tooLarge, "A namespace has at most \(MetadataLimits.partsMax) definitions of a kind. Attempted: \(count).")
        }
    }

    /// - Throws: 404 if there is no part of this name, 409 if the new name is taken.
    static func replacePart(
        _ connection: Connection, _ part: Part, _ name: String, of namespace: Authorized<MetadataNamespace>, with new: Content,
        now: Timestamp
    ) throws {
        let namespace = try namespace.value(for: "modify_metadef_object", "modify_metadef_property", "modify_metadef_tag")
        var changes: Changes = ["name": "\(new.name)"]
        changes.merge(new.columns)
        do {
            let changed = try changes.apply(
                connection, part.rawValue, where: "namespace_id = \(namespace.id) AND name = \(name)", at: now)
            guard changed == 1 else { throw part.notFound(name, in: namespace.name) }
        } catch let error as DatabaseError where error.isUniqueViolation {
            throw part.duplicate(new.name, in: namespace.name)
        }
        try markCustomized(connection, namespace.name)
    }

    /// - Throws: 404 if there is no part of this name.
    static func removePart(_ connection: Connection, _ part: Part, _ name: String, of namespace: Authorized<MetadataNamespace>) throws {
        let namespace = try namespace.value(for: "delete_metadef_object", "remove_metadef_property", "delete_metadef_tag")
        guard try exists(connection, part, name, of: namespace) else { throw part.notFound(name, in: namespace.name) }
        try namespace.requireDeletable(part.word, name)
        try connection.execute("DELETE FROM \(part.table) WHERE namespace_id = \(namespace.id) AND name = \(name)")
        try markCustomized(connection, namespace.name)
    }

    private static func exists(_ connection: Connection, _ part: Part, _ name: String, of namespace: MetadataNamespace) throws -> Bool {
        try !connection.query("SELECT 1 FROM \(part.table) WHERE namespace_id = \(namespace.id) AND name = \(name)").isEmpty
    }

    /// Removes all parts of a kind.
    static func removeParts(_ connection: Connection, _ part: Part, of namespace: Authorized<MetadataNamespace>) throws {
        let namespace = try namespace.value(for: "delete_metadef_namespace", "delete_metadef_tags")
        try namespace.requireDeletable()
        try removeAll(connection, part, of: namespace)
    }

    /// Replaces all tags.
    static func replaceTags(
        _ connection: Connection, _ tags: [Content], of namespace: Authorized<MetadataNamespace>, now: Timestamp
    ) throws {
        let found = try namespace.value(for: "add_metadef_tags")
        try removeAll(connection, .tags, of: found)
        try add(connection, .tags, tags, to: found.id, named: found.name, now: now)
    }

    private static func removeAll(_ connection: Connection, _ part: Part, of namespace: MetadataNamespace) throws {
        try connection.execute("DELETE FROM \(part.table) WHERE namespace_id = \(namespace.id)")
        try markCustomized(connection, namespace.name)
    }

    // MARK: types of resources

    /// - Throws: 409 if the namespace already applies to this type, 413 for too many types.
    static func associate(
        _ connection: Connection, _ associations: [JSONValue], with namespace: Authorized<MetadataNamespace>, now: Timestamp
    ) throws {
        let namespace = try namespace.value(for: "add_metadef_resource_type_association")
        try markCustomized(connection, namespace.name)
        try associate(connection, associations, to: namespace.id, named: namespace.name, now: now)
    }

    /// The types of resources of a new namespace.
    static func associateAll(
        _ connection: Connection, _ associations: [JSONValue], with namespace: Authorized<Attributes>, id: UUID128, now: Timestamp
    ) throws {
        let new = try namespace.value(for: "add_metadef_namespace")
        try associate(connection, associations, to: id, named: new.name, now: now)
    }

    private static func associate(
        _ connection: Connection, _ associations: [JSONValue], to id: UUID128, named namespace: String, now: Timestamp
    ) throws {
        for association in associations {
            let type = association["name"]?.stringValue ?? ""
            try connection.execute(
                """
                INSERT INTO metadef_resource_types (name, created_at, updated_at) VALUES (\(type), \(now), \(now))
                ON CONFLICT (name) DO NOTHING
                """)
            let rows = try connection.query(
                """
                INSERT INTO metadef_associations (namespace_id, resource_type, prefix, properties_target, created_at, updated_at)
                VALUES (\(id), \(type), \(association["prefix"]?.stringValue), \(association["properties_target"]?.stringValue),
                    \(now), \(now))
                ON CONFLICT (namespace_id, resource_type) DO NOTHING RETURNING resource_type
                """)
            guard !rows.isEmpty else {
                throw ResourceError.conflict(
                    """
                    The metadata definition resource-type association of resource-type=\(type) to namespace=\(namespace) already exists.
                    """)
            }
        }
        try requireRoom(connection, "metadef_associations", in: id)
    }

    /// - Throws: 404 if the namespace does not apply to this type.
    static func dissociate(_ connection: Connection, _ type: String, from namespace: Authorized<MetadataNamespace>) throws {
        let namespace = try namespace.value(for: "remove_metadef_resource_type_association")
        guard try prefix(connection, type, of: namespace) != nil else {
            throw ResourceError.notFound("Failed to find resource type \(type.prefix(80)) to delete")
        }
        try namespace.requireDeletable("resource-type-association", type)
        try connection.execute("DELETE FROM metadef_associations WHERE namespace_id = \(namespace.id) AND resource_type = \(type)")
        try markCustomized(connection, namespace.name)
    }

    /// The prefix of a type's properties, or an empty string; nil if the namespace does not apply to the type.
    static func prefix(_ connection: Connection, _ type: String, of namespace: MetadataNamespace) throws -> String? {
        try connection.query(
            """
            SELECT coalesce(prefix, '') AS prefix FROM metadef_associations
            WHERE namespace_id = \(namespace.id) AND resource_type = \(type)
            """
        ).first?.string("prefix")
    }

    // MARK: definitions that come with the cloud

    /// Adds a namespace of this release, or replaces the one of an earlier release, unless it was changed or deleted.
    ///
    /// - Returns: whether anything was written.
    static func load(
        _ connection: Connection, _ loaded: LoadedDefinitions.Namespace, digest: String, id: UUID128, now: Timestamp
    ) throws -> Bool {
        try connection.query("SELECT pg_advisory_xact_lock(hashtextextended(\("metadef " + loaded.name)::text, 7))")
        let earlier = try connection.query("SELECT digest, customized FROM metadef_loads WHERE namespace = \(loaded.name)").first
        if let earlier {
            guard try !earlier.bool("customized"), try earlier.string("digest") != digest else { return false }
            try connection.execute("DELETE FROM metadef_namespaces WHERE namespace = \(loaded.name)")
        }
        let isTaken = try find(connection, loaded.name) != nil
        try connection.execute(
            """
            INSERT INTO metadef_loads (namespace, digest, customized) VALUES (\(loaded.name), \(digest), \(isTaken))
            ON CONFLICT (namespace) DO UPDATE SET digest = excluded.digest
            """)
        guard !isTaken else { return false }
        let attributes = Attributes(
            name: loaded.name, displayName: loaded.title, summary: loaded.summary, visibility: .public, isProtected: true, owner: nil)
        try insertRow(connection, attributes, id, now)
        let associations = loaded.associations.map { item in
            JSONValue.object([
                "name": .string(item.resourceType), "prefix": JSONValue(item.prefix), "properties_target": JSONValue(item.target),
            ])
        }
        try associate(connection, associations, to: id, named: loaded.name, now: now)
        try add(
            connection, .properties, loaded.properties.map { Content.property($0.name, $0.definition) }, to: id, named: loaded.name,
            now: now)
        return true
    }
}

extension MetadataNamespace.Visibility: ColumnValue {}
