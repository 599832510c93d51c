import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// A volume type as requests decide on it.
struct VolumeTypeRecord: Sendable {
    let id: String
    let name: String
    let isPublic: Bool
    let specs: JSONObject
}

/// The statements about volume types.
extension BlockStorageStore {
    /// For `volume_types t`: those that a project may use.
    static func usableTypes(by project: String) -> SQL {
        "(t.is_public OR EXISTS (SELECT 1 FROM volume_type_access a WHERE a.volume_type_id = t.id AND a.project_id = \(project)))"
    }

    private static func type(_ connection: Connection, where condition: SQL) throws -> VolumeTypeRecord? {
        try connection.query("SELECT y.id, y.name, y.is_public, y.extra_specs FROM volume_types y WHERE \(condition)").first.map { row in
            VolumeTypeRecord(
                id: try row.string("id"), name: try row.string("name"), isPublic: try row.bool("is_public"),
                specs: try row.object("extra_specs"))
        }
    }

    static func type(_ connection: Connection, _ id: String) throws -> VolumeTypeRecord? {
        try type(connection, where: "y.id = \(id)::uuid")
    }

    static func type(_ connection: Connection, named name: String) throws -> VolumeTypeRecord? {
        try type(connection, where: "y.name = \(name)")
    }

    /// A type that the project may use, by name or id.
    static func usableType(_ connection: Connection, _ name: String, project: String) throws -> VolumeTypeRecord? {
        try type(
            connection,
            where: """
                (y.name = \(name) OR y.id::text = \(name))
                AND (y.is_public OR EXISTS (SELECT 1 FROM volume_type_access a
                    WHERE a.volume_type_id = y.id AND a.project_id = \(project)))
                """)
    }

    /// - Returns: whether the name was free.
    static func insertType(
        _ connection: Connection, _ decision: Authorized<Void>, id: String, name: String, description: String?, isPublic: Bool,
        specs: JSONObject, at now: Timestamp
    ) throws -> Bool {
        try decision.value(for: "volume_extension:type_create")
        return try !connection.query(
            """
            INSERT INTO volume_types (id, name, description, is_public, extra_specs, created_at)
            VALUES (\(id)::uuid, \(name), \(description), \(isPublic), \(specs)::jsonb, \(now))
            ON CONFLICT (name) DO NOTHING RETURNING id
            """
        ).isEmpty
    }

    static func isTaken(_ connection: Connection, typeName name: String, except id: String) throws -> Bool {
        try !connection.query("SELECT 1 AS one FROM volume_types WHERE name = \(name) AND id <> \(id)::uuid").isEmpty
    }

    static func isUsed(_ connection: Connection, type id: String) throws -> Bool {
        try connection.query("SELECT EXISTS (SELECT 1 FROM volumes WHERE volume_type_id = \(id)::uuid) AS used")[0].bool("used")
    }

    static func updateType(
        _ connection: Connection, _ decision: Authorized<Void>, _ id: String, _ changes: Changes, at now: Timestamp
    ) throws {
        try decision.value(for: "volume_extension:type_update")
        try changes.apply(connection, "volume_types", id, at: now, touching: true)
    }

    static func deleteType(_ connection: Connection, _ decision: Authorized<Void>, _ id: String) throws {
        try decision.value(for: "volume_extension:type_delete")
        try connection.execute("DELETE FROM volume_types WHERE id = \(id)::uuid")
    }

    static func setSpecs(
        _ connection: Connection, _ decision: Authorized<Void>, for action: String, type id: String, _ specs: JSONObject,
        at now: Timestamp
    ) throws {
        try decision.value(for: action)
        try connection.execute("UPDATE volume_types SET extra_specs = \(specs)::jsonb, updated_at = \(now) WHERE id = \(id)::uuid")
    }

    // MARK: access

    static func projects(_ connection: Connection, withAccessTo type: String) throws -> [String] {
        try connection.query(
            "SELECT project_id FROM volume_type_access WHERE volume_type_id = \(type)::uuid ORDER BY project_id"
        ).map { try $0.string("project_id") }
    }

    /// - Returns: whether the project had no access before.
    static func addAccess(_ connection: Connection, _ decision: Authorized<Void>, to type: String, project: String) throws -> Bool {
        try decision.value(for: "volume_extension:volume_type_access:addProjectAccess")
        return try !connection.query(
            """
            INSERT INTO volume_type_access (volume_type_id, project_id) VALUES (\(type)::uuid, \(project))
            ON CONFLICT DO NOTHING RETURNING project_id
            """
        ).isEmpty
    }

    /// - Returns: whether the project had access before.
    static func removeAccess(_ connection: Connection, _ decision: Authorized<Void>, to type: String, project: String) throws -> Bool {
        try decision.value(for: "volume_extension:volume_type_access:removeProjectAccess")
        return try connection.execute(
            "DELETE FROM volume_type_access WHERE volume_type_id = \(type)::uuid AND project_id = \(project)") == 1
    }
}
