// The messages that Compute sends to `MessageQueue.placementHosts`.

/// A host with the data that Placement needs.
package struct HostChanged: MessageBody, Hashable {
    package static let type = "host"

    /// The inventory of a resource class. Missing members keep the value that Placement has.
    package struct Amount: Codable, Sendable, Hashable {
        package var total: Int?
        package var reserved: Int?
        package var minUnit: Int?
        package var maxUnit: Int?
        package var stepSize: Int?
        package var allocationRatio: Double?

        private enum CodingKeys: String, CodingKey {
            case total, reserved
            case minUnit = "min_unit"
            case maxUnit = "max_unit"
            case stepSize = "step_size"
            case allocationRatio = "allocation_ratio"
        }

        package init(
            total: Int?, reserved: Int? = nil, minUnit: Int? = nil, maxUnit: Int? = nil, stepSize: Int? = nil,
            allocationRatio: Double? = nil
        ) {
            self.total = total
            self.reserved = reserved
            self.minUnit = minUnit
            self.maxUnit = maxUnit
            self.stepSize = stepSize
            self.allocationRatio = allocationRatio
        }
    }

    package var host: String
    package var providerID: String
    /// Inventories by resource class.
    package var inventories: [String: Amount]
    package var traits: [String]
    package var enabled: Bool
    package var forcedDown: Bool

    private enum CodingKeys: String, CodingKey {
        case host, inventories, traits, enabled
        case providerID = "resource_provider_id"
        case forcedDown = "forced_down"
    }

    package init(
        host: String, providerID: String, inventories: [String: Amount], traits: [String], enabled: Bool, forcedDown: Bool
    ) {
        self.host = host
        self.providerID = providerID
        self.inventories = inventories
        self.traits = traits
        self.enabled = enabled
        self.forcedDown = forcedDown
    }
}

/// A deleted host, on which no servers may be placed any more.
package struct HostRemoved: MessageBody, Hashable {
    package static let type = "host_removed"

    package var host: String
    /// Nil if the host never had a hypervisor.
    package var providerID: String?

    private enum CodingKeys: String, CodingKey {
        case host
        case providerID = "resource_provider_id"
    }

    package init(host: String, providerID: String?) {
        self.host = host
        self.providerID = providerID
    }
}
