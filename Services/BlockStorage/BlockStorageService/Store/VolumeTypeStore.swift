import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// A volume type as requests decide on it.
struct VolumeTypeRecord: StoredRow {
    var id: String
    var name: String
    var isPublic: Bool
    var specs: JSONObject

    static let relation = "volume_types"
    static let blank = VolumeTypeRecord(id: "", name: "", isPublic: false, specs: [:])
    static let columns: [Column<VolumeTypeRecord>] = [
        Column("id", \.id, .once), Column("name", \.name), Column("is_public", \.isPublic), Column("extra_specs", \.specs),
    ]
}

/// The statements about volume types.
extension BlockStorageStore {
    /// For `volume_types t`: those that a project may use.
    static func usableTypes(by project: String) -> SQL {
        "(t.is_public OR EXISTS (SELECT 1 FROM volume_type_access a WHERE a.volume_type_id = t.id AND a.project_id = \(project)))"
    }

    private static func type(_ connection: Connection, where condition: SQL) throws -> VolumeTypeRecord? {
        try connection.query("SELECT \(raw: VolumeTypeRecord.selection) FROM volume_types t WHERE \(condition)").first.map {
            try VolumeTypeRecord($0)
        }
    }

    static func type(_ connection: Connection, _ id: String) throws -> VolumeTypeRecord? {
        try type(connection, where: "t.id = \(id)::uuid")
    }

    static func type(_ connection: Connection, named name: String) throws -> VolumeTypeRecord? {
        try type(connection, where: "t.name = \(name)")
    }

    /// A type that the project may use, by name or id.
    static func usableType(_ connection: Connection, _ name: String, project: String) throws -> VolumeTypeRecord? {
        try type(
            connection,
            where: "(t.name = \(name) OR t.id::text = \(name)) AND \(usableTypes(by: project))")
    }

    /// - Returns: whether the name was free.
    static func insertType(
        _ connection: Connection, _ decision: Authorized<VolumeTypeRecord>, description: String?, at now: Timestamp
    ) throws -> Bool {
        var row = try decision.value(for: "volume_extension:type_create").values()
        row.set("description", description)
        return try !connection.query(
            "\(row.insertion(VolumeTypeRecord.relation, at: now, isUpdated: false)) ON CONFLICT (name) DO NOTHING RETURNING id"
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
