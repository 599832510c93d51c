import ComputeAgentCore
package import Kernel
package import OVSDB

/// The purpose of a device on the switch; stored with it, so that leftovers can be distinguished from devices of others.
package enum SwitchPortKind: String, Sendable {
    case tap, metadata
}

/// A device and its logical port.
package struct SwitchPort: Sendable, Hashable {
    package let device: String
    /// The logical port's name in OVN.
    package let interfaceID: String
    package let mac: MACAddress
    package let kind: SwitchPortKind
    package let networkID: String
    package let serverID: String?

    static let kindKey = "wolke-kind"

    var externalIDs: SmallMap<String, String> {
        var ids: SmallMap<String, String> = [
            "iface-id": interfaceID, "attached-mac": mac.description, "iface-status": "active",
            SwitchPort.kindKey: kind.rawValue, "wolke-network": networkID,
        ]
        if let serverID { ids["vm-id"] = serverID }
        return ids
    }
}

/// The ports of the integration bridge, through the switch's own database.
package actor SwitchPorts {
    package nonisolated let client: OVSDBClient
    private let bridge: String

    package init(client: OVSDBClient, bridge: String) {
        self.client = client
        self.bridge = bridge
    }

    /// The tables and columns that a client needs.
    package static let monitors = [
        OVSDBMonitor("Bridge", columns: ["name", "ports", "external_ids", "datapath_type"]),
        OVSDBMonitor("Port", columns: ["name", "interfaces"]),
        OVSDBMonitor("Interface", columns: ["name", "external_ids"]),
        OVSDBMonitor("Open_vSwitch", columns: ["next_cfg", "cur_cfg", "datapaths", "external_ids"]),
        OVSDBMonitor("Datapath", columns: ["capabilities"]),
    ]

    private func interface(_ device: String) async -> OVSDBRow? {
        await client.rows("Interface").values.first { $0["name"]?.string == device }
    }

    private func port(_ device: String) async -> UUID128? {
        await client.rows("Port").first { $0.value["name"]?.string == device }?.key
    }

    /// The switch has the device under that logical port's name.
    package func isPlugged(_ device: String, interfaceID: String) async -> Bool {
        await interface(device)?["external_ids"]?["iface-id"] == interfaceID
    }

    /// Whether the switch has the device, under any port.
    package func has(_ device: String) async -> Bool { await interface(device) != nil }

    /// Devices of ours on the switch.
    package func owned() async -> [(device: String, kind: SwitchPortKind, networkID: String)] {
        await client.rows("Interface").values.compactMap { row in
            guard let device = row["name"]?.string, let ids = row["external_ids"],
                let kind = ids[SwitchPort.kindKey].flatMap({ SwitchPortKind(rawValue: $0) })
            else { return nil }
            return (device, kind, ids["wolke-network"] ?? "")
        }
    }

    private func bridgeRow() async -> OVSDBRow? {
        await client.rows("Bridge").values.first { $0["name"]?.string == bridge }
    }

    /// The type of the bridge's datapath, `system` (the kernel's) or `netdev` (userspace); nil while the bridge is not known.
    package func datapath() async -> String? {
        guard let row = await bridgeRow() else { return nil }
        let type = row["datapath_type"]?.string ?? ""
        return type.isEmpty ? "system" : type
    }

    /// The physical networks that ovn-controller connects to bridges of this host (ovn-controller(8), `ovn-bridge-mappings`); nil while
    /// the switch's database is not known.
    package func physicalNetworks() async -> [String]? {
        guard let ids = await client.rows("Open_vSwitch").values.first?["external_ids"] else { return nil }
        let own = ids["system-id"].flatMap { ids["ovn-bridge-mappings-" + $0] }
        let mappings = (own ?? ids["ovn-bridge-mappings"] ?? "").split(separator: ",")
        return mappings.map { String($0.prefix { $0 != ":" }.filter { $0 != " " }) }.sorted()
    }

    /// Logical ports with a device on this host, including devices of other owners.
    package func logicalPorts() async -> Set<String> {
        Set(await client.rows("Interface").values.compactMap { $0["external_ids"]?["iface-id"] })
    }

    /// Zones of connection tracking, by the name of the port or router to which ovn-controller assigned them.
    package func zones() async -> [String: Int] {
        guard let ids = await bridgeRow()?["external_ids"]?.entries else { return [:] }
        return ZoneLimits.zones(zip(ids.keys, ids.values))
    }

    /// Adds the device to the bridge, or corrects its logical port.
    ///
    /// - Throws: `OVSDBError`.
    package func plug(_ port: SwitchPort) async throws {
        if let row = await interface(port.device) {
            // ovn-controller uses the same column, so only our own keys are changed.
            let current = row["external_ids"] ?? .empty
            let wrong = port.externalIDs.filter { current[$0.key] != $0.value }
            if wrong.isEmpty { return }
            try await client.transact([
                .mutate(
                    table: "Interface", where: [.equal("name", OVSDBValue(port.device))],
                    mutations: [
                        .delete("external_ids", OVSDBValue(strings: wrong.keys)),
                        .insert("external_ids", OVSDBValue(wrong)),
                    ])
            ])
            return
        }
        guard await bridgeRow() != nil else {
            throw ResourceError.unavailable("the switch has no bridge \(bridge)")
        }
        try await client.transact([
            .insert(
                table: "Interface",
                row: ["name": OVSDBValue(port.device), "external_ids": OVSDBValue(port.externalIDs)], name: "interface"),
            .insert(
                table: "Port",
                row: ["name": OVSDBValue(port.device), "interfaces": .set([.namedUUID("interface")])], name: "port"),
            .mutate(
                table: "Bridge", where: [.equal("name", OVSDBValue(bridge))],
                mutations: [.insert("ports", .set([.namedUUID("port")]))]),
        ])
    }

    /// Takes the device from the bridge; an absent one counts as taken.
    ///
    /// - Throws: `OVSDBError`.
    package func unplug(_ device: String) async throws {
        guard let uuid = await port(device) else { return }
        try await client.transact([
            .mutate(
                table: "Bridge", where: [.equal("name", OVSDBValue(bridge))],
                mutations: [.delete("ports", OVSDBValue(uuid))])
        ])
    }

    /// Removes the capability `ct_zero_snat` from a userspace datapath.
    ///
    /// OVN commits connections with an all-zero source translation if the datapath has the capability. The userspace datapath of Open
    /// vSwitch before 3.1.3 aborts when such a connection has expired and its addresses and ports are used again, which any guest can
    /// cause. Only zones that also hold translated connections need it; a port's zone never does.
    ///
    /// - Returns: whether the capability was present.
    /// - Throws: `OVSDBError`.
    package func protectDatapath() async throws -> Bool {
        guard case .map(let datapaths)? = await client.rows("Open_vSwitch").values.first?["datapaths"],
            let row = datapaths[.string("netdev")]?.uuidValue,
            await client.rows("Datapath")[row]?["capabilities"]?["ct_zero_snat"] == "true"
        else { return false }
        try await client.transact([
            .mutate(
                table: "Datapath", where: [.uuid(row)],
                mutations: [
                    .delete("capabilities", OVSDBValue(strings: ["ct_zero_snat"])),
                    .insert("capabilities", OVSDBValue(["ct_zero_snat": "false"])),
                ])
        ])
        return true
    }

    /// Waits, for a limited time, until ovs-vswitchd has applied the database's state.
    package func settle(_ time: any TimeSource) async throws {
        try await client.transact([
            .mutate(table: "Open_vSwitch", where: [], mutations: [.add("next_cfg", 1)])
        ])
        func row() async -> OVSDBRow? { await client.rows("Open_vSwitch").values.first }
        let wanted = await row()?["next_cfg"]?.integer ?? 0
        for _ in 0..<40 {
            if await row()?["cur_cfg"]?.integer ?? 0 >= wanted { return }
            try await time.sleep(for: .milliseconds(25))
        }
    }
}
