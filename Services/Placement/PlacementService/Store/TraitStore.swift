import Authorization
import Database
import Kernel
import PlacementCore

/// Statements for traits and the traits of providers.
enum TraitStore {
    /// The standard traits, followed by the custom ones ordered by name.
    ///
    /// - Parameter associated: whether a provider must have the trait; nil for both.
    static func names(_ connection: Connection, associated: Bool?) throws -> [String] {
        let names = StandardTraits.all + (try connection.query("SELECT name FROM traits ORDER BY name").map { try $0.string("name") })
        guard let associated else { return names }
        let used = Set(try connection.query("SELECT DISTINCT trait FROM provider_traits").map { try $0.string("trait") })
        return names.filter { used.contains($0) == associated }
    }

    static func exists(_ connection: Connection, _ name: String) throws -> Bool {
        if StandardTraits.set.contains(name) { return true }
        return !(try connection.query("SELECT 1 AS one FROM traits WHERE name = \(name)").isEmpty)
    }

    /// - Returns: whether the trait was created.
    static func insert(_ connection: Connection, _ name: Authorized<String>, at now: Timestamp) throws -> Bool {
        let name = try name.value(for: "placement:traits:update")
        return
            !(try connection.query(
                "INSERT INTO traits (name, created_at, updated_at) VALUES (\(name), \(now), \(now)) ON CONFLICT DO NOTHING RETURNING name"
            ).isEmpty)
    }

    /// - Throws: 404 for an unknown trait, 409 for one that a provider has.
    static func delete(_ connection: Connection, _ name: Authorized<String>) throws {
        let name = try name.value(for: "placement:traits:delete")
        guard !(try connection.query("SELECT 1 AS one FROM traits WHERE name = \(name) FOR UPDATE").isEmpty) else {
            throw ResourceError.notFound("No such trait(s): \(name).")
        }
        guard try connection.query("SELECT 1 AS one FROM provider_traits WHERE trait = \(name) LIMIT 1").isEmpty else {
            throw ResourceError.conflict("The trait \(name) is in use by a resource provider.")
        }
        try connection.execute("DELETE FROM traits WHERE name = \(name)")
    }

    // MARK: a provider's traits

    static func names(_ connection: Connection, provider id: String) throws -> [String] {
        try connection.query("SELECT trait FROM provider_traits WHERE resource_provider_id = \(id)::uuid ORDER BY trait")
            .map { try $0.string("trait") }
    }

    /// Replaces a provider's traits.
    static func replace(_ connection: Connection, of provider: Authorized<String>, _ names: [String]) throws {
        let id = try provider.value(for: "placement:resource_providers:traits:update", "placement:resource_providers:traits:delete")
        try replace(connection, provider: id, names)
    }

    /// The same for messages about hosts.
    static func replace(_ connection: Connection, provider id: String, _ names: [String]) throws {
        try connection.execute("DELETE FROM provider_traits WHERE resource_provider_id = \(id)::uuid AND NOT trait = ANY(\(names)::text[])")
        try connection.execute(
            """
            INSERT INTO provider_traits (resource_provider_id, trait)
            SELECT \(id)::uuid, name FROM unnest(\(names)::text[]) AS name ON CONFLICT DO NOTHING
            """)
    }
}
