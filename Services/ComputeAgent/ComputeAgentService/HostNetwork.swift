import ComputeAgentCore
import Kernel
import OVSDB

/// The servers' ends of their networks on this host: taps on the switch, and the networks' metadata.
package struct HostNetwork: Sendable {
    private let links: Links
    private let ports: SwitchPorts
    private let metadata: MetadataNetworks
    private let time: any TimeSource

    package init(links: Links, ports: SwitchPorts, metadata: MetadataNetworks, time: any TimeSource) {
        self.time = time
        self.links = links
        self.ports = ports
        self.metadata = metadata
    }

    /// - Throws: `CommandError`, `OVSDBError`.
    package func plug(_ port: DesiredPort, serverID: String) async throws {
        if !Links.exists(port.tapName), await ports.has(port.tapName) {
            // The switch would go on listening to the device that is gone.
            try await ports.unplug(port.tapName)
            try await ports.settle(time)
        }
        try await links.ensureTap(port.tapName, mtu: port.mtu)
        try await ports.plug(
            SwitchPort(
                device: port.tapName, interfaceID: port.id, mac: port.mac, kind: .tap, networkID: port.networkID,
                serverID: serverID))
    }

    /// Takes the port from the switch and removes its tap.
    package func unplug(_ port: ServerRecord.PluggedPort) async throws {
        try await ports.unplug(port.tap)
        try await links.remove(port.tap)
    }

    /// Whether the tap is there and the switch has it under the port's id.
    package func isPlugged(_ port: ServerRecord.PluggedPort) async -> Bool {
        guard Links.exists(port.tap) else { return false }
        return await ports.isPlugged(port.tap, interfaceID: port.id)
    }

    /// Makes the metadata of the ports' networks answer.
    package func ensureMetadata(_ wanted: [DesiredPort]) async throws {
        for port in wanted {
            guard let end = port.metadataPort else { continue }
            try await metadata.ensure(port.networkID, port: end, mtu: port.mtu)
        }
    }

    /// Whether metadata answers on every network that has it.
    package func isMetadataReady(_ wanted: [DesiredPort]) async -> Bool {
        for port in wanted {
            guard let end = port.metadataPort else { continue }
            guard await metadata.isReady(port.networkID, port: end) else { return false }
        }
        return true
    }

    /// Takes down the metadata of networks that no server here has any more.
    package func closeUnusedMetadata() async throws { try await metadata.prune() }

    /// Removes what is left of servers and networks that are not here any more.
    ///
    /// - Parameter known: the taps of all servers, asked for after it is known which taps there are: a server is
    ///   written down before its tap is made, so that a tap which nobody knows is really nobody's.
    package func prune(known: @Sendable () async -> Set<String>) async throws {
        try await metadata.prune()
        let owned = await ports.owned()
        let taps = await known()
        for port in owned where port.kind == .tap && !taps.contains(port.device) {
            try await ports.unplug(port.device)
            try await links.remove(port.device)
        }
    }

    /// See `SwitchPorts.protectDatapath`.
    package func protectDatapath() async throws -> Bool { try await ports.protectDatapath() }

    /// - Throws: `ResourceError` 503 while there is no session with the switch.
    package func requireSwitch() async throws {
        guard await ports.client.isConnected else {
            throw ResourceError.unavailable("the switch's database is away: \(await ports.client.problem ?? "no session yet")")
        }
    }
}
