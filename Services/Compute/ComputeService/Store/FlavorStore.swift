import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// The statements about flavors, their extra specs and the projects that may use private ones.
enum FlavorStore {
    /// A flavor to insert. Sizes are in MiB and GiB, as clients give them.
    struct Draft: Sendable {
        let id: UUID128
        /// The id that clients see.
        let flavorID: String
        let name: String
        let description: String?
        let vcpus: Int
        let memory: Int
        let root: Int
        let ephemeral: Int
        let swap: Int
        let factor: Double
        let isPublic: Bool
    }

    private static let specsMax = 128

    /// - Throws: 409 for an id or a name that is taken.
    static func insert(_ connection: Connection, _ decision: Authorized<Draft>, at now: Timestamp) throws {
        let draft = try decision.value(for: "os_compute_api:os-flavor-manage:create")
        let row: Changes = [
            "id": "\(draft.id)", "flavorid": "\(draft.flavorID)", "name": "\(draft.name)", "description": "\(draft.description)",
            "vcpus": "\(draft.vcpus)", "memory_mb": "\(draft.memory)", "root_gb": "\(draft.root)", "ephemeral_gb": "\(draft.ephemeral)",
            "swap_mb": "\(draft.swap)", "rxtx_factor": "\(draft.factor)", "is_public": "\(draft.isPublic)",
        ]
        do {
            _ = try connection.savepoint { try $0.execute(row.insertion("flavors", at: now, isUpdated: false)) }
        } catch let error as DatabaseError where error.isUniqueViolation {
            throw ResourceError.conflict(
                error.constraint == "flavors_name_key"
                    ? "Flavor with name \(draft.name) already exists." : "Flavor with ID \(draft.flavorID) already exists.")
        }
    }

    static func setDescription(_ connection: Connection, of decision: Authorized<String>, _ description: String?, at now: Timestamp) throws
    {
        let id = try decision.value(for: "os_compute_api:os-flavor-manage:update")
        try connection.execute("UPDATE flavors SET description = \(description), updated_at = \(now) WHERE flavorid = \(id)")
    }

    /// - Throws: 404 if there is no such flavor.
    static func delete(_ connection: Connection, _ decision: Authorized<String>) throws {
        let id = try decision.value(for: "os_compute_api:os-flavor-manage:delete")
        guard try connection.execute("DELETE FROM flavors WHERE flavorid = \(id)") == 1 else { throw ResourceKind.flavors.notFound(id) }
    }

    // MARK: extra specs

    /// - Throws: 404 if there is no such flavor in `scope`.
    static func specs(_ connection: Connection, _ id: String, scope: SQL, lock: Bool = false) throws -> JSONObject {
        let rows = try connection.query(
            "SELECT t.extra_specs FROM flavors t WHERE t.flavorid = \(id) AND \(scope) \(raw: lock ? "FOR UPDATE" : "")")
        guard let row = rows.first else { throw ResourceKind.flavors.notFound(id) }
        return try row.object("extra_specs")
    }

    /// Changes the extra specs with `change`.
    ///
    /// - Returns: the new ones.
    /// - Throws: 404 if there is no such flavor, 400 for too many, and what `change` throws.
    static func changeSpecs(
        _ connection: Connection, _ decision: Authorized<String>, for action: String, at now: Timestamp,
        _ change: (inout JSONObject) throws -> Void
    ) throws -> JSONObject {
        let id = try decision.value(for: action)
        var specs = try specs(connection, id, scope: "true", lock: true)
        try change(&specs)
        guard specs.count <= specsMax else { throw ResourceError.badRequest("A flavor has at most \(specsMax) extra specs.") }
        try connection.execute(
            "UPDATE flavors SET extra_specs = \(specs)::jsonb, generation = generation + 1, updated_at = \(now) WHERE flavorid = \(id)")
        return specs
    }

    // MARK: access

    /// The projects that may use a private flavor.
    ///
    /// - Throws: 404 if there is no such flavor, or if it is public.
    static func projects(_ connection: Connection, of id: String) throws -> [String] {
        let rows = try connection.query(
            """
            SELECT f.is_public, a.project_id FROM flavors f LEFT JOIN flavor_access a ON a.flavor_id = f.id
            WHERE f.flavorid = \(id) ORDER BY a.project_id
            """)
        guard let first = rows.first else { throw ResourceKind.flavors.notFound(id) }
        if try first.bool("is_public") { throw ResourceError.notFound("Access list not available for public flavors.") }
        return try rows.compactMap { try $0.optionalString("project_id") }
    }

    /// - Throws: 400 if there is no such project, 404 if there is no such flavor, 409 if it is public or the project has access.
    static func add(_ connection: Connection, project: String, to decision: Authorized<String>) throws {
        let id = try decision.value(for: "os_compute_api:os-flavor-access:add_tenant_access")
        try ProjectCheck.require(connection, project: project)
        let row = try connection.query("SELECT id, is_public FROM flavors WHERE flavorid = \(id)").first
        guard let row else { throw ResourceKind.flavors.notFound(id) }
        if try row.bool("is_public") { throw ResourceError.conflict("Can not add access to a public flavor.") }
        let added = try connection.execute(
            "INSERT INTO flavor_access (flavor_id, project_id) VALUES (\(try row.string("id")), \(project)) ON CONFLICT DO NOTHING")
        if added == 0 {
            throw ResourceError.conflict("Flavor access already exists for flavor \(id) and project \(project) combination.")
        }
    }

    /// - Throws: 404 if the project has no access to such a flavor.
    static func remove(_ connection: Connection, project: String, from decision: Authorized<String>) throws {
        let id = try decision.value(for: "os_compute_api:os-flavor-access:remove_tenant_access")
        let removed = try connection.execute(
            """
            DELETE FROM flavor_access a USING flavors f
            WHERE f.id = a.flavor_id AND f.flavorid = \(id) AND a.project_id = \(project)
            """)
        if removed == 0 {
            throw ResourceError.notFound("Flavor access not found for \(id.prefix(255)) / \(project.prefix(64)) combination.")
        }
    }
}
