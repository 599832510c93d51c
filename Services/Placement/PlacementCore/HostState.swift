package import Kernel

/// Why a host takes no servers.
package enum Outage: Sendable, Hashable {
    case disabled, forcedDown, silent

    /// For the operator.
    package var words: String {
        switch self {
        case .disabled: "the compute service is disabled"
        case .forcedDown: "the compute service is forced down"
        case .silent: "the host has not sent a heartbeat for too long"
        }
    }
}

/// An aggregate with the data that the scheduler needs.
package struct HostAggregate: Sendable, Hashable {
    package var id: Int
    package var metadata: [String: String]

    package init(id: Int, metadata: [String: String]) {
        self.id = id
        self.metadata = metadata
    }

    /// Projects for which the aggregate is reserved; nil if it is not reserved.
    package var tenants: Set<String>? {
        var tenants: Set<String>?
        for (name, value) in metadata where name.hasPrefix("filter_tenant_id") {
            tenants = (tenants ?? []).union(value.split(separator: ",").map { $0.filter { $0 != " " } })
        }
        return tenants
    }
}

/// A host with the data that the scheduler needs.
package struct HostState: Sendable, Hashable {
    /// The resource provider's id.
    package var id: UUID128
    package var name: String
    package var outage: Outage?
    package var zone: String
    /// Ids of the host's aggregates.
    package var aggregates: [Int]
    package var traits: Set<String>
    /// Such as `x86_64`; nil if unknown.
    package var architecture: String?
    /// Such as `qemu`, in lower case; nil if unknown.
    package var hypervisorType: String?
    package var inventories: [String: Inventory]
    package var used: [String: Int]

    package init(
        id: UUID128, name: String, outage: Outage? = nil, zone: String = "nova", aggregates: [Int] = [],
        traits: Set<String> = [], architecture: String? = nil, hypervisorType: String? = nil,
        inventories: [String: Inventory] = [:], used: [String: Int] = [:]
    ) {
        self.id = id
        self.name = name
        self.outage = outage
        self.zone = zone
        self.aggregates = aggregates
        self.traits = traits
        self.architecture = architecture
        self.hypervisorType = hypervisorType
        self.inventories = inventories
        self.used = used
    }

    /// The free amount of a class; 0 without an inventory.
    package func free(_ resourceClass: String) -> Int {
        max(0, (inventories[resourceClass]?.capacity ?? 0) - (used[resourceClass] ?? 0))
    }

    /// Whether an allocation of these amounts fits.
    package func fits(_ resources: [ResourceAmount]) -> Bool {
        for need in resources {
            guard let inventory = inventories[need.resourceClass], inventory.admits(need.amount),
                need.amount + (used[need.resourceClass] ?? 0) <= inventory.capacity
            else { return false }
        }
        return true
    }

    /// Whether the hosts are equal apart from their usage, so that all filters but those of resources give the same result.
    func isSameKind(as other: HostState) -> Bool {
        id == other.id && name == other.name && outage == other.outage && zone == other.zone
            && aggregates == other.aggregates && traits == other.traits && architecture == other.architecture
            && hypervisorType == other.hypervisorType
    }
}

/// An amount of a resource class.
package struct ResourceAmount: Sendable, Hashable {
    package var resourceClass: String
    package var amount: Int

    package init(_ resourceClass: String, _ amount: Int) {
        self.resourceClass = resourceClass
        self.amount = amount
    }
}
