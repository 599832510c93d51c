import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// The statements about chassis.
enum ChassisStore {
    /// What clients can change; nil if there is no such chassis.
    static func document(_ connection: Connection, _ id: UUID128) throws -> JSONObject? {
        try connection.query(
            """
            SELECT json_build_object('description', description, 'extra', extra) AS document FROM bare_metal_chassis
            WHERE id = \(id) FOR UPDATE
            """
        ).first?.object("document")
    }

    static func insert(_ connection: Connection, _ chassis: Authorized<UUID128>, _ changes: Changes, at now: Timestamp) throws {
        let id = try chassis.value(for: "baremetal:chassis:create")
        var changes = changes
        changes.set("id", id)
        do {
            try connection.execute(changes.insertion("bare_metal_chassis", at: now, isUpdated: false))
        } catch let error as DatabaseError where error.constraint == "bare_metal_chassis_pkey" {
            throw ResourceError.conflict("A chassis with this UUID already exists.")
        }
    }

    static func update(_ connection: Connection, _ chassis: Authorized<UUID128>, _ changes: Changes, at now: Timestamp) throws {
        let id = try chassis.value(for: "baremetal:chassis:update")
        try changes.apply(connection, "bare_metal_chassis", id, at: now)
    }

    static func delete(_ connection: Connection, _ chassis: Authorized<UUID128>) throws {
        let id = try chassis.value(for: "baremetal:chassis:delete")
        do {
            guard try connection.execute("DELETE FROM bare_metal_chassis WHERE id = \(id)") == 1 else {
                throw ResourceError.notFound("Chassis \(id) could not be found.")
            }
        } catch let error as DatabaseError where error.constraint == "bare_metal_nodes_chassis_uuid_fkey" {
            throw ResourceError.badRequest("Chassis \(id) is not empty: it has nodes.")
        }
    }
}
