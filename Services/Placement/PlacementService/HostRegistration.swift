import Database
import JSON
import Kernel
import Messaging
import PlacementCore

/// Takes up what Compute says about its hosts on the queue `placement.hosts`.
///
/// A message is `{"type": "host", "host", "resource_provider_id", "inventories": {CLASS: {total, reserved, min_unit,
/// max_unit, step_size, allocation_ratio}}, "traits": […], "enabled", "forced_down"}`, or `{"type": "host_removed", "host"}`.
/// Members of an inventory that are missing keep their values. Traits of the operator's own (`CUSTOM_`) stay.
extension Placement {
    package static let hostsQueue = "placement.hosts"

    private struct Host: Sendable {
        let name: String
        let id: String
        let inventories: [(String, JSONValue)]
        let traits: [String]
        let enabled: Bool
        let forcedDown: Bool

        init(_ body: JSONValue) throws {
            guard let name = body["host"]?.stringValue, (1...200).contains(name.utf8.count) else {
                throw PoisonMessage("host: \(body["host"] ?? .null) is no host name")
            }
            guard let id = body["resource_provider_id"]?.stringValue.flatMap({ UUID128($0) }) else {
                throw PoisonMessage("resource_provider_id: \(body["resource_provider_id"] ?? .null) is no uuid")
            }
            guard let inventories = body["inventories"]?.objectValue else {
                throw PoisonMessage("inventories: \(body["inventories"] ?? .null) is no object")
            }
            self.name = name
            self.id = id.description
            self.inventories = inventories.members.map { ($0.name, $0.value) }
            traits = (body["traits"]?.arrayValue ?? []).compactMap(\.stringValue)
            enabled = body["enabled"]?.boolValue ?? true
            forcedDown = body["forced_down"]?.boolValue ?? false
        }
    }

    /// - Throws: `PoisonMessage` for what cannot be understood.
    package func register(_ body: JSONValue) async throws {
        switch body["type"]?.stringValue {
        case "host":
            let host = try Host(body)
            try await database.write { try register($0, host) }
        case "host_removed":
            let name = body["host"]?.stringValue ?? ""
            try await database.write { try unregister($0, name) }
        case let type: throw PoisonMessage("unknown type \(type ?? "none")")
        }
        fleet.markStale([""])
    }

    private func register(_ connection: Connection, _ host: Host) throws {
        let now = ambient.now
        let id = try ensure(connection, host, at: now)
        let old = try InventoryStore.load(connection, providers: [id])[id] ?? [:]
        var wanted: [String: Inventory] = [:]
        for (name, document) in host.inventories {
            guard StandardResourceClasses.set.contains(name) || PlacementName.isCustom(name) else {
                throw PoisonMessage("inventories: \(name) is no resource class")
            }
            wanted[name] = try Placement.inventory(name, document, old[name])
        }
        let custom = host.traits.filter(PlacementName.isCustom)
        try addCustom(connection, classes: wanted.keys.filter(PlacementName.isCustom), traits: custom, at: now)
        let kept = try connection.query(
            "SELECT trait FROM provider_traits WHERE resource_provider_id = \(id)::uuid AND trait LIKE 'CUSTOM\\_%'"
        ).map { try $0.string("trait") }
        let traits = Set(host.traits.filter { StandardTraits.set.contains($0) } + custom + kept).sorted()
        // Classes of which something is taken stay until it is given back.
        let used = try InventoryStore.usages(connection, providers: [id])[id] ?? [:]
        try InventoryStore.remove(connection, provider: id, keeping: Array(wanted.keys) + Array(used.keys))
        for (name, inventory) in wanted where old[name] != inventory {
            try InventoryStore.put(connection, provider: id, name, inventory, at: now)
        }
        try Placement.replaceTraits(connection, provider: id, traits)
        try Placement.announce(connection, [""])
    }

    /// The provider of a host, locked; made when there is none.
    private func ensure(_ connection: Connection, _ host: Host, at now: Timestamp) throws -> String {
        let known = try connection.query(
            "SELECT id FROM resource_providers WHERE host = \(host.name) OR name = \(host.name) OR id = \(host.id)::uuid ORDER BY (host = \(host.name)) DESC NULLS LAST, (name = \(host.name)) DESC LIMIT 1")
        guard let id = try known.first?.string("id") else {
            try connection.execute(
                """
                INSERT INTO resource_providers (id, name, root_id, host, enabled, forced_down, created_at, updated_at)
                VALUES (\(host.id)::uuid, \(host.name), \(host.id)::uuid, \(host.name), \(host.enabled), \(host.forcedDown), \(now), \(now))
                """)
            return host.id
        }
        _ = try Placement.touch(connection, provider: id, expected: nil, at: now)
        try connection.execute(
            """
            UPDATE resource_providers SET name = \(host.name), host = \(host.name), enabled = \(host.enabled),
                forced_down = \(host.forcedDown) WHERE id = \(id)::uuid
            """)
        return id
    }

    private static func inventory(_ name: String, _ document: JSONValue, _ old: Inventory?) throws -> Inventory {
        func int(_ member: String, _ otherwise: Int) -> Int { document[member]?.intValue ?? otherwise }
        let inventory = Inventory(
            total: int("total", old?.total ?? 0), reserved: int("reserved", old?.reserved ?? 0),
            minUnit: int("min_unit", old?.minUnit ?? 1), maxUnit: int("max_unit", old?.maxUnit ?? Int(Int32.max)),
            stepSize: int("step_size", old?.stepSize ?? 1),
            allocationRatio: document["allocation_ratio"]?.doubleValue ?? old?.allocationRatio ?? 1)
        guard inventory.total >= 1, (0...inventory.total).contains(inventory.reserved), inventory.minUnit >= 1,
            inventory.maxUnit >= 1, inventory.stepSize >= 1, inventory.allocationRatio > 0
        else { throw PoisonMessage("inventories.\(name): \(document) is no inventory") }
        return inventory
    }

    private func addCustom(_ connection: Connection, classes: [String], traits: [String], at now: Timestamp) throws {
        for (table, names) in [("resource_classes", classes), ("traits", traits)] where !names.isEmpty {
            try connection.execute(
                """
                INSERT INTO \(raw: table) (name, created_at, updated_at)
                SELECT name, \(now), \(now) FROM unnest(\(names)::text[]) AS name ON CONFLICT DO NOTHING
                """)
        }
    }

    /// The host is no more: nothing is placed on it. Its provider goes when nothing is taken of it.
    private func unregister(_ connection: Connection, _ name: String) throws {
        let rows = try connection.query("UPDATE resource_providers SET host = NULL WHERE host = \(name) RETURNING id")
        guard let id = try rows.first?.string("id") else { return }
        try Placement.announce(connection, [""])
        do { try connection.savepoint { try ProviderStore.remove($0, id: id, at: ambient.now) } } catch let error as ResourceError
        where error.code == .conflict {
            // Allocations or children are left; the operator sees them and the provider.
        }
    }
}
