import Contracts
import Database
import JSON
import Kernel
package import Messaging
import PlacementCore
import WebAPI

/// Applies Compute's messages about hosts. The operator's custom traits (`CUSTOM_`) are kept, without those that agents announce.
extension Placement {
    /// - Throws: `PoisonMessage` for an invalid message.
    package func register(_ message: Message) async throws {
        switch try message.bodyType() {
        case HostChanged.type:
            let host = try Placement.checked(try message.decode())
            try await database.write { try register($0, host) }
        case HostRemoved.type:
            let removed: HostRemoved = try message.decode()
            try await database.write { try unregister($0, removed.host) }
        case let type: throw PoisonMessage("unknown message \(type)")
        }
        fleet.markStale([""])
    }

    private static func checked(_ host: HostChanged) throws(PoisonMessage) -> HostChanged {
        guard (1...200).contains(host.host.utf8.count) else { throw PoisonMessage("host: \(host.host) is not a host name") }
        guard let id = UUID128(host.providerID) else { throw PoisonMessage("resource_provider_id: \(host.providerID) is not a UUID") }
        var host = host
        host.providerID = id.description
        return host
    }

    private func register(_ connection: Connection, _ host: HostChanged) throws {
        let now = ambient.now
        let id = try ensure(connection, host, at: now)
        let old = try InventoryStore.load(connection, providers: [id])[id] ?? [:]
        var wanted: [String: Inventory] = [:]
        for (name, amount) in host.inventories {
            guard StandardResourceClasses.set.contains(name) || PlacementName.isCustom(name) else {
                throw PoisonMessage("inventories: \(name) is not a resource class")
            }
            wanted[name] = try Placement.inventory(name, amount, old[name])
        }
        let custom = host.traits.filter(PlacementName.isCustom)
        try addCustom(connection, classes: wanted.keys.filter(PlacementName.isCustom), traits: custom, at: now)
        let kept = try connection.query(
            "SELECT trait FROM provider_traits WHERE resource_provider_id = \(id)::uuid AND trait LIKE 'CUSTOM\\_%'"
        ).map { try $0.string("trait") }.filter { !$0.hasPrefix(ServerNeeds.agentTraits) }
        let traits = Set(host.traits.filter { StandardTraits.set.contains($0) } + custom + kept).sorted()
        // Classes with allocations are kept until the allocations are gone.
        let used = try InventoryStore.usages(connection, providers: [id])[id] ?? [:]
        try InventoryStore.remove(connection, provider: id, keeping: Array(wanted.keys) + Array(used.keys))
        for (name, inventory) in wanted where old[name] != inventory {
            try InventoryStore.put(connection, provider: id, name, inventory, at: now)
        }
        try TraitStore.replace(connection, provider: id, traits)
        try Placement.announce(connection, [""])
    }

    /// The provider of a host, locked; created if it does not exist.
    private func ensure(_ connection: Connection, _ host: HostChanged, at now: Timestamp) throws -> String {
        let known = try connection.query(
            """
            SELECT id FROM resource_providers WHERE host = \(host.host) OR name = \(host.host) OR id = \
            \(host.providerID)::uuid ORDER BY (host = \(host.host)) DESC NULLS LAST, (name = \(host.host)) DESC \
            LIMIT 1
            """
        )
        guard let id = try known.first?.string("id") else {
            let row: Changes = [
                "id": "\(host.providerID)", "name": "\(host.host)", "root_id": "\(host.providerID)", "host": "\(host.host)",
                "enabled": "\(host.enabled)", "forced_down": "\(host.forcedDown)",
            ]
            try connection.execute(row.insertion("resource_providers", at: now))
            return host.providerID
        }
        _ = try ProviderStore.touch(connection, provider: id, expected: nil, at: now)
        try connection.execute(
            """
            UPDATE resource_providers SET name = \(host.host), host = \(host.host), enabled = \(host.enabled),
                forced_down = \(host.forcedDown) WHERE id = \(id)::uuid
            """)
        return id
    }

    private static func inventory(_ name: String, _ amount: HostChanged.Amount, _ old: Inventory?) throws -> Inventory {
        let inventory = Inventory(
            total: amount.total ?? old?.total ?? 0, reserved: amount.reserved ?? old?.reserved ?? 0,
            minUnit: amount.minUnit ?? old?.minUnit ?? 1, maxUnit: amount.maxUnit ?? old?.maxUnit ?? Int(Int32.max),
            stepSize: amount.stepSize ?? old?.stepSize ?? 1, allocationRatio: amount.allocationRatio ?? old?.allocationRatio ?? 1)
        guard inventory.total >= 1, (0...inventory.total).contains(inventory.reserved), inventory.minUnit >= 1,
            inventory.maxUnit >= 1, inventory.stepSize >= 1, inventory.allocationRatio > 0
        else { throw PoisonMessage("inventories.\(name): \(amount) is not an inventory") }
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

    /// The host was removed and gets no more servers. Its provider is deleted once it has no allocations.
    private func unregister(_ connection: Connection, _ name: String) throws {
        let rows = try connection.query("UPDATE resource_providers SET host = NULL WHERE host = \(name) RETURNING id")
        guard let id = try rows.first?.string("id") else { return }
        try Placement.announce(connection, [""])
        do { try connection.savepoint { try ProviderStore.remove($0, id: id, at: ambient.now) } } catch let error as ResourceError
            where error.code == .conflict
        {
            // Allocations or children remain; the operator can see them and the provider.
        }
    }
}
