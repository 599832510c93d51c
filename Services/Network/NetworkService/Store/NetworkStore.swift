import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

/// A validated create request for a network.
struct NetworkDraft: Sendable {
    let id: UUID128
    let owner: Authorized<String>
    let body: JSONObject
    let provider: ProviderAttributes
    let mtu: Int
    let tags: [String]

    /// - Throws: 400 for attributes that contradict each other.
    init(_ body: JSONObject, id: UUID128, owner: Authorized<String>, _ options: NetworkOptions) throws {
        self.id = id
        self.owner = owner
        self.body = body
        tags = try body.tags() ?? []
        let asked = body.text("provider:network_type")
        let physical = body.text("provider:physical_network")
        guard let kind = ProviderAttributes.Kind(rawValue: asked ?? (physical == nil ? "geneve" : "flat")) else {
            throw NetworkFault.invalidInput(
                "Network type value '\(asked ?? "")' not supported; it is one of \(ProviderAttributes.Kind.allCases.map(\.rawValue)).")
        }
        provider = ProviderAttributes(
            kind: kind, physicalNetwork: physical, segmentationID: body.int("provider:segmentation_id"))
        try provider.validate()
        if let physical, !options.physicalNetworks.contains(physical) {
            throw NetworkFault.invalidInput("physical_network '\(physical)' unknown for \(kind.rawValue) provider network.")
        }
        let most = kind == .geneve ? options.tenantMTU : options.physicalMTU
        let wanted = body.int("mtu") ?? 0
        mtu = wanted == 0 ? most : try NetworkDraft.mtu(wanted, most: most)
        for zone in body.list("availability_zone_hints") ?? [] where zone.stringValue != options.availabilityZone {
            throw ResourceError.notFound(
                "AvailabilityZone \(zone.stringValue ?? "") could not be found.", type: "AvailabilityZoneNotFound")
        }
    }

    static func mtu(_ wanted: Int, most: Int) throws -> Int {
        guard (NetworkLimits.mtuMin...most).contains(wanted) else {
            throw NetworkFault.invalidInput("Requested MTU \(wanted) is not possible: it must be \(NetworkLimits.mtuMin) to \(most).")
        }
        return wanted
    }
}

extension NetworkAPI {
    /// - Throws: 409 over quota, for a second default network, and for a provider network that is in use.
    func insertNetwork(_ connection: Connection, _ draft: NetworkDraft) throws {
        let project = try draft.owner.value(for: "create_network")
        try reserve(connection, project, NetworkQuotas.networks)
        _ = try defaultGroup(connection, project: project)
        let segment: SQL =
            draft.provider.kind == .geneve
            ? "coalesce(\(draft.provider.segmentationID)::integer, nextval('network_segment_ids')::integer)"
            : "\(draft.provider.segmentationID)"
        var row = ResourceKind.networks.changes(draft.body)
        row.set("id", draft.id)
        row.set("project_id", project)
        row.set("shared", draft.body.bool("shared") ?? false)
        row.set("external", draft.body.bool("router:external") ?? false)
        row.set("mtu", draft.mtu)
        row.set("provider_type", draft.provider.kind.rawValue)
        row.set("physical_network", draft.provider.physicalNetwork)
        row.set("segmentation_id", sql: segment)
        row.set(json: "availability_zone_hints", draft.body["availability_zone_hints"] ?? [])
        row.set("tags", sql: "\(draft.tags)::text[]")
        do {
            try connection.execute(row.insertion("networks", at: ambient.now))
        } catch let error as DatabaseError where error.isUniqueViolation {
            throw NetworkAPI.conflict(error, draft.provider)
        }
    }

    private static func conflict(_ error: DatabaseError, _ provider: ProviderAttributes?) -> any Error {
        switch error.constraint {
        case "networks_flat":
            ResourceError.conflict(
                "Unable to create the flat network. Physical network \(provider?.physicalNetwork ?? "") is in use.",
                type: "FlatNetworkInUse")
        case "networks_vlan":
            ResourceError.conflict(
                """
                Unable to create the network. The VLAN \(provider?.segmentationID ?? 0) on physical network \
                \(provider?.physicalNetwork ?? "") is in use.
                """,
                type: "VlanIdInUse")
        case "networks_default":
            ResourceError.conflict("A default external network already exists.", type: "DefaultExternalNetworkExists")
        default: error
        }
    }

    func updateNetwork(_ connection: Connection, _ network: Authorized<Subject>, _ body: JSONObject, mtu: Int?) throws {
        let id = try network.value(for: "update_network").id
        let rows = try connection.query(
            "SELECT external, shared, provider_type, mtu FROM networks WHERE id = \(id) FOR UPDATE")
        guard let row = rows.first else { throw ResourceKind.networks.notFound("\(id)") }
        var changes = ResourceKind.networks.changes(body)
        if let mtu {
            if try row.string("provider_type") == ProviderAttributes.Kind.geneve.rawValue {
                _ = try NetworkDraft.mtu(mtu, most: options.tenantMTU)
            }
            changes.set("mtu", mtu)
        }
        if let shared = body.bool("shared") {
            if try !shared && row.bool("shared") { try requireUnshared(connection, network.value) }
            changes.set("shared", shared)
        }
        if let external = body.bool("router:external") {
            if try !external && row.bool("external") { try requireNoGateways(connection, id) }
            changes.set("external", external)
        }
        do { try changes.apply(connection, "networks", id, at: ambient.now) } catch let error as DatabaseError
            where error.isUniqueViolation
        { throw NetworkAPI.conflict(error, nil) }
        if let mtu, try mtu != row.int("mtu") {
            // Hosts set it on the taps of the network's guests, and include it in the guests' metadata.
            try ServerPorts.announce(connection, where: "network_id = \(id)", ambient: ambient)
        }
    }

    private func requireUnshared(_ connection: Connection, _ network: Subject) throws {
        let others = try connection.query(
            """
            SELECT 1 AS one FROM ports WHERE network_id = \(network.id) AND project_id NOT IN ('', \(network.projectID))
                AND device_owner <> \(DeviceOwner.metadata) LIMIT 1
            """)
        guard others.isEmpty else {
            throw ResourceError.conflict(
                "Unable to reconfigure sharing settings for network \(network.id). Multiple tenants are using it.",
                type: "InvalidSharedSetting")
        }
    }

    private func requireNoGateways(_ connection: Connection, _ network: UUID128) throws {
        let used = try connection.query(
            """
            SELECT 1 AS one FROM ports WHERE network_id = \(network)
                AND device_owner IN (\(DeviceOwner.routerGateway), \(DeviceOwner.floatingIP)) LIMIT 1
            """)
        guard used.isEmpty else {
            throw ResourceError.conflict(
                "External network \(network) cannot be updated to be made non-external, since it has existing gateway ports.",
                type: "ExternalNetworkInUse")
        }
    }

    /// - Throws: 409 `NetworkInUse` while there are ports other than the service's own.
    func deleteNetwork(_ connection: Connection, _ network: Authorized<Subject>) throws {
        let id = try network.value(for: "delete_network").id
        guard try !connection.query("SELECT id FROM networks WHERE id = \(id) FOR UPDATE").isEmpty else {
            throw ResourceKind.networks.notFound("\(id)")
        }
        // Floating IPs without a port are deleted together with their network.
        let idle = try connection.query(
            "DELETE FROM floating_ips WHERE floating_network_id = \(id) AND port_id IS NULL RETURNING floating_port_id, project_id")
        for row in idle {
            try connection.execute("DELETE FROM ports WHERE id = \(row.uuid("floating_port_id"))")
            try release(connection, row.string("project_id"), NetworkQuotas.floatingIPs)
        }
        let used = try connection.query(
            "SELECT 1 AS one FROM ports WHERE network_id = \(id) AND device_owner <> \(DeviceOwner.metadata) LIMIT 1")
        guard used.isEmpty else { throw NetworkFault.networkInUse(id) }
        try connection.execute("DELETE FROM ports WHERE network_id = \(id)")
        for row in try connection.query("DELETE FROM subnets WHERE network_id = \(id) RETURNING project_id") {
            try release(connection, row.string("project_id"), NetworkQuotas.subnets)
        }
        try connection.execute("DELETE FROM networks WHERE id = \(id)")
        try release(connection, network.value.projectID, NetworkQuotas.networks)
    }
}
