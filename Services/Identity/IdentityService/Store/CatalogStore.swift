import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import WebAPI

/// The differences between the rows of regions, services and endpoints.
struct CatalogCollection: Sendable {
    let kind: ResourceKind
    /// Checks a body and sets the columns that do not take a member unchanged.
    fileprivate let complete: @Sendable (Connection, JSONObject, _ id: String, inout Changes) throws -> Void

    static let regions = CatalogCollection(kind: Identity.regions) { connection, body, id, _ in
        guard let parent = body["parent_region_id"]?.stringValue else { return }
        try Identity.requireNoCircle(connection, region: id, parent: parent)
    }

    static let services = CatalogCollection(kind: Identity.services) { _, _, _, _ in }

    static let endpoints = CatalogCollection(kind: Identity.endpoints) { connection, body, _, row in
        try Identity.checkEndpoint(connection, body)
        guard let region = try body.value(named: ["region_id", "region"], of: "endpoint") else { return }
        row.set("region_id", region.stringValue)
    }
}

/// The statements about the catalog.
extension Identity {
    func insert(
        _ connection: Connection, _ collection: CatalogCollection, _ decision: Authorized<JSONObject>, id: String
    ) throws {
        let kind = collection.kind
        let body = try decision.value(for: "identity:create_\(kind.name)")
        try storing(kind.name, body["name"]?.stringValue ?? id) {
            var row = kind.new(id, body)
            try collection.complete(connection, body, id, &row)
            try connection.execute(row.insertion(kind.relation, at: ambient.now))
        }
    }

    /// - Throws: 404 if it does not exist.
    func update(_ connection: Connection, _ collection: CatalogCollection, _ decision: Authorized<String>, _ body: JSONObject) throws {
        let kind = collection.kind
        let id = try decision.value(for: "identity:update_\(kind.name)")
        guard try !connection.query("SELECT id FROM \(raw: kind.relation) WHERE id = \(id) FOR UPDATE").isEmpty else {
            throw Identity.missing(kind.name, id)
        }
        var changes = kind.changes(body)
        try collection.complete(connection, body, id, &changes)
        try storing(kind.name, body["name"]?.stringValue ?? id) {
            try changes.apply(connection, kind.relation, id, at: ambient.now, touching: true)
        }
    }

    /// - Throws: 404 if it does not exist; 403 while something refers to it.
    func delete(_ connection: Connection, _ collection: CatalogCollection, _ decision: Authorized<String>) throws {
        let kind = collection.kind
        let id = try decision.value(for: "identity:delete_\(kind.name)")
        let removed: Int
        do {
            removed = try connection.execute("DELETE FROM \(raw: kind.relation) WHERE id = \(id)")
        } catch let error as DatabaseError where error.isForeignKeyViolation {
            throw ResourceError.forbidden(
                "Unable to delete \(kind.name) \(id) because it or its children have associated endpoints or regions.")
        }
        guard removed == 1 else { throw Identity.missing(kind.name, id) }
    }

    fileprivate static func requireNoCircle(_ connection: Connection, region: String, parent: String) throws {
        let circle = try connection.query(
            """
            WITH RECURSIVE up AS (
                SELECT r.id, r.parent_region_id FROM catalog_regions r WHERE r.id = \(parent)
                UNION SELECT r.id, r.parent_region_id FROM catalog_regions r JOIN up ON r.id = up.parent_region_id)
            SELECT id FROM up WHERE id = \(region)
            """)
        guard parent != region, circle.isEmpty else {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute parent_region_id. Value: \(parent). It is the region itself or below it.")
        }
    }

    fileprivate static func checkEndpoint(_ connection: Connection, _ body: JSONObject) throws {
        if let url = body["url"]?.stringValue, !CatalogURL.isUsable(url) {
            throw ResourceError.badRequest(
                """
                Invalid input for field/attribute url. Value: \(url.prefix(120)). It must be an http or https URL; \
                $(project_id)s, $(tenant_id)s and $(user_id)s are the only places in it.
                """
            )
        }
        if let service = body["service_id"]?.stringValue,
            try connection.query("SELECT id FROM catalog_services WHERE id = \(service)").isEmpty
        {
            throw ResourceError.badRequest("Could not find service: \(service).")
        }
        if let region = body["region_id"]?.stringValue ?? body["region"]?.stringValue,
            try connection.query("SELECT id FROM catalog_regions WHERE id = \(region)").isEmpty
        {
            // The old attribute `region` creates the region, as in Keystone.
            guard body["region_id"]?.stringValue == nil else { throw ResourceError.badRequest("Could not find region: \(region).") }
            try connection.execute(
                "INSERT INTO catalog_regions (id, created_at, updated_at) VALUES (\(region), now(), now()) ON CONFLICT DO NOTHING")
        }
    }
}
