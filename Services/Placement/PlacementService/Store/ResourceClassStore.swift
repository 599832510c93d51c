import Authorization
import Database
import Kernel
import PlacementCore

/// Statements for resource classes.
enum ResourceClassStore {
    static func exists(_ connection: Connection, _ name: String) throws -> Bool {
        if StandardResourceClasses.set.contains(name) { return true }
        return !(try connection.query("SELECT 1 AS one FROM resource_classes WHERE name = \(name)").isEmpty)
    }

    /// The standard classes, followed by the custom ones ordered by name.
    static func names(_ connection: Connection) throws -> [String] {
        StandardResourceClasses.all
            + (try connection.query("SELECT name FROM resource_classes ORDER BY name").map { try $0.string("name") })
    }

    /// - Returns: whether the class was created.
    static func insert(_ connection: Connection, _ name: Authorized<String>, at now: Timestamp) throws -> Bool {
        let name = try name.value(for: "placement:resource_classes:create", "placement:resource_classes:update")
        return
            !(try connection.query(
                """
                INSERT INTO resource_classes (name, created_at, updated_at)
                VALUES (\(name), \(now), \(now)) ON CONFLICT DO NOTHING RETURNING name
                """
            ).isEmpty)
    }

    /// Locks a class until the transaction ends.
    ///
    /// - Throws: 400 for a standard class, 404 for an unknown one, 409 for a class in use.
    static func lockUnused(_ connection: Connection, _ name: String) throws {
        guard !StandardResourceClasses.set.contains(name) else {
            throw ResourceError.badRequest("Cannot update or delete standard resource class \(name).")
        }
        guard !(try connection.query("SELECT 1 AS one FROM resource_classes WHERE name = \(name) FOR UPDATE").isEmpty) else {
            throw ResourceError.notFound("No such resource class: \(name).")
        }
        guard try connection.query("SELECT 1 AS one FROM inventories WHERE resource_class = \(name) LIMIT 1").isEmpty else {
            throw ResourceError.conflict("Error in changing resource class \(name): it is in use in inventory.")
        }
    }

    static func delete(_ connection: Connection, _ name: Authorized<String>) throws {
        let name = try name.value(for: "placement:resource_classes:delete", "placement:resource_classes:update")
        try connection.execute("DELETE FROM resource_classes WHERE name = \(name)")
    }
}
