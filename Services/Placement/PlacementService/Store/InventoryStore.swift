import Authorization
import Database
import JSON
import Kernel
package import PlacementCore
package import WebAPI

extension Inventory: StoredRow {
    package static let relation = "inventories"
    package static let blank = Inventory(total: 0)
    package static let columns: [Column<Inventory>] = [
        Column("total", \.total), Column("reserved", \.reserved), Column("min_unit", \.minUnit), Column("max_unit", \.maxUnit),
        Column("step_size", \.stepSize), Column("allocation_ratio", \.allocationRatio),
    ]
}

/// Statements for inventories.
enum InventoryStore {
    /// By class, for each of the providers.
    static func load(_ connection: Connection, providers: [String]) throws -> [String: [String: Inventory]] {
        var result: [String: [String: Inventory]] = [:]
        let rows = try connection.query(
            """
            SELECT t.resource_provider_id, t.resource_class, \(raw: Inventory.selection)
            FROM inventories t WHERE t.resource_provider_id = ANY(\(providers)::uuid[])
            """)
        for row in rows {
            result[try row.string("resource_provider_id"), default: [:]][try row.string("resource_class")] = try Inventory(row)
        }
        return result
    }

    /// Allocated amounts by class, for each of the providers.
    static func usages(_ connection: Connection, providers: [String]) throws -> [String: [String: Int]] {
        var result: [String: [String: Int]] = [:]
        let rows = try connection.query(
            """
            SELECT resource_provider_id, resource_class, sum(used)::bigint AS used FROM allocations
            WHERE resource_provider_id = ANY(\(providers)::uuid[]) GROUP BY 1, 2
            """)
        for row in rows {
            result[try row.string("resource_provider_id"), default: [:]][try row.string("resource_class")] = try row.int("used")
        }
        return result
    }

    /// Inventories and allocated amounts of one provider, in one statement.
    static func state(
        _ connection: Connection, provider id: String
    ) throws -> (inventories: [String: Inventory], used: [String: Int]) {
        let rows = try connection.query(
            """
            SELECT t.resource_class, \(raw: Inventory.selection), coalesce((SELECT sum(a.used) FROM allocations a
                WHERE a.resource_provider_id = t.resource_provider_id AND a.resource_class = t.resource_class), 0)::bigint AS used
            FROM inventories t WHERE t.resource_provider_id = \(id)::uuid
            """)
        var inventories: [String: Inventory] = [:]
        var used: [String: Int] = [:]
        for row in rows {
            let name = try row.string("resource_class")
            inventories[name] = try Inventory(row)
            used[name] = try row.int("used")
        }
        return (inventories, used)
    }

    static func put(
        _ connection: Connection, on provider: Authorized<String>, _ resourceClass: String, _ inventory: Inventory, at now: Timestamp
    ) throws {
        let id = try provider.value(
            for: "placement:resource_providers:inventories:create", "placement:resource_providers:inventories:update")
        try put(connection, provider: id, resourceClass, inventory, at: now)
    }

    /// For messages about hosts.
    static func put(
        _ connection: Connection, provider id: String, _ resourceClass: String, _ inventory: Inventory, at now: Timestamp
    ) throws {
        var row = inventory.values()
        row.merge(["resource_provider_id": "\(id)", "resource_class": "\(resourceClass)"])
        try connection.execute(
            """
            \(row.insertion(Inventory.relation, at: now))
            ON CONFLICT (resource_provider_id, resource_class) DO UPDATE SET \(raw: Inventory.replacement)
            """)
    }

    /// Deletes inventories; the provider must be locked.
    ///
    /// - Parameter keeping: classes to keep.
    /// - Throws: 409 if any of them has allocations.
    static func remove(_ connection: Connection, from provider: Authorized<String>, keeping: [String]) throws {
        let id = try provider.value(
            for: "placement:resource_providers:inventories:update", "placement:resource_providers:inventories:delete")
        try remove(connection, provider: id, keeping: keeping)
    }

    /// For messages about hosts.
    static func remove(_ connection: Connection, provider id: String, keeping: [String]) throws {
        let used = try connection.query(
            """
            SELECT DISTINCT i.resource_class AS name FROM inventories i
            JOIN allocations a ON a.resource_provider_id = i.resource_provider_id AND a.resource_class = i.resource_class
            WHERE i.resource_provider_id = \(id)::uuid AND NOT i.resource_class = ANY(\(keeping)::text[]) ORDER BY 1
            """
        ).map { try $0.string("name") }
        guard used.isEmpty else {
            throw ResourceError.conflict(
                "update conflict: Inventory for '\(used.joined(separator: ", "))' on resource provider '\(id)' in use.",
                type: "placement.inventory.inuse")
        }
        try connection.execute(
            "DELETE FROM inventories WHERE resource_provider_id = \(id)::uuid AND NOT resource_class = ANY(\(keeping)::text[])")
    }
}

extension Inventory {
    /// Reads an inventory document that matches the schema.
    ///
    /// - Throws: 400 if its values contradict each other.
    init(_ document: JSONValue, resourceClass: String, mayReserveAll: Bool) throws {
        self.init(
            total: document["total"]?.intValue ?? 0, reserved: document["reserved"]?.intValue ?? 0,
            minUnit: document["min_unit"]?.intValue ?? 1, maxUnit: document["max_unit"]?.intValue ?? Int(Int32.max),
            stepSize: document["step_size"]?.intValue ?? 1, allocationRatio: document["allocation_ratio"]?.doubleValue ?? 1)
        let fits = mayReserveAll ? reserved <= total : reserved < total
        guard fits, minUnit <= maxUnit else {
            throw ResourceError.badRequest(
                fits
                    ? "Invalid inventory for '\(resourceClass)': min_unit \(minUnit) is greater than max_unit \(maxUnit)."
                    : """
                    Invalid inventory for '\(resourceClass)': the reserved value \(reserved) must be \
                    \(mayReserveAll ? "at most" : "less than") the total \(total).
                    """
            )
        }
        guard allocationRatio > 0, allocationRatio <= 3.40282e+38 else {
            throw ResourceError.badRequest("Invalid inventory for '\(resourceClass)': allocation_ratio \(allocationRatio) is not above 0.")
        }
    }
}
