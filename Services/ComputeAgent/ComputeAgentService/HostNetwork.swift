package import ComputeAgentCore
import Glibc
package import Kernel
import OVSDB
import Synchronization

/// The host side of the servers' networks: taps on the switch, and the metadata service of each network.
package struct HostNetwork: Sendable {
    private let links: any HostLinks
    private let ports: any SwitchBridge
    private let metadata: any MetadataService
    private let time: any TimeSource
    private let guards = RouterGuards()
    private let setGuard: @Sendable (_ tap: String, _ isOn: Bool) async throws -> Void

    /// - Parameter setGuard: instead of `Links.guardRouters`.
    package init(
        links: any HostLinks, ports: any SwitchBridge, metadata: any MetadataService, time: any TimeSource,
        setGuard: (@Sendable (_ tap: String, _ isOn: Bool) async throws -> Void)? = nil
    ) {
        self.time = time
        self.setGuard = setGuard ?? { try await links.guardRouters($0, $1) }
        self.links = links
        self.ports = ports
        self.metadata = metadata
    }

    /// - Parameters:
    ///   - hasQueues: whether the guest's interface has several queues.
    ///   - isOff: whether no guest uses the tap, so that one of the other kind is replaced. Only called for such a tap.
    /// - Throws: `CommandError`, `OVSDBError`.
    package func plug(_ port: DesiredPort, serverID: String, hasQueues: Bool = false, isOff: @Sendable () async throws -> Bool = { false })
        async throws
    {
        if links.exists(port.tapName), try await links.hasQueues(port.tapName) != hasQueues, try await isOff() {
            try await links.remove(port.tapName)
        }
        if !links.exists(port.tapName), await ports.has(port.tapName) {
            // Otherwise the switch would keep listening to the deleted device.
            try await ports.unplug(port.tapName)
            try await ports.settle(time)
        }
        try await links.ensureTap(port.tapName, mtu: port.mtu, hasQueues: hasQueues)
        try await guardRouters(port)
        try await ports.plug(
            SwitchPort(
                device: port.tapName, interfaceID: port.id, mac: port.mac, kind: .tap, networkID: port.networkID,
                serverID: serverID))
    }

    /// Drops router advertisements from the guest, unless port security is disabled.
    ///
    /// Every secured port is guarded, also one without an IPv6 address: an address pair, which can be added while the guest
    /// runs, lets it send IPv6.
    ///
    /// - Throws: `FileError` if the kernel refuses the program.
    private func guardRouters(_ port: DesiredPort) async throws {
        guard links.exists(port.tapName), !guards.isSet(port.tapName, links.index(port.tapName), port.isSecured) else { return }
        try await setGuard(port.tapName, port.isSecured)
        guards.set(port.tapName, links.index(port.tapName), port.isSecured)
    }

    /// Takes the port from the switch and removes its tap.
    package func unplug(_ port: LocalServerRecord.PluggedPort) async throws {
        try await ports.unplug(port.tap)
        try await links.remove(port.tap)
    }

    /// Whether the tap is there and the switch has it under the port's id.
    package func isPlugged(_ port: LocalServerRecord.PluggedPort) async -> Bool {
        guard links.exists(port.tap) else { return false }
        return await ports.isPlugged(port.tap, interfaceID: port.id)
    }

    /// Ensures the metadata service of the ports' networks, and the router advertisement guard and the MTU of the ports' taps.
    package func ensureMetadata(_ wanted: [DesiredPort]) async throws {
        for port in wanted {
            try await guardRouters(port)
            try await links.setMTU(port.tapName, port.mtu)
            guard let end = port.metadataPort else { continue }
            try await metadata.ensure(port.networkID, port: end, mtu: port.mtu)
        }
    }

    /// Whether metadata answers on every network that has it, and the ports' guards are as they should be.
    package func isMetadataReady(_ wanted: [DesiredPort]) async -> Bool {
        for port in wanted {
            guard !links.exists(port.tapName) || guards.isSet(port.tapName, links.index(port.tapName), port.isSecured) else { return false }
            guard let end = port.metadataPort else { continue }
            guard await metadata.isReady(port.networkID, port: end) else { return false }
        }
        return true
    }

    /// Stops the metadata service of networks without servers on this host.
    package func closeUnusedMetadata() async throws { try await metadata.prune() }

    /// Removes leftovers of servers and networks that are no longer on this host.
    ///
    /// - Parameter known: returns the taps of all servers; called after the existing taps were listed. A server is recorded
    ///   before its tap is created, so a tap unknown at that point is certainly a leftover.
    package func prune(known: @Sendable () async -> Set<String>) async throws {
        try await metadata.prune()
        let owned = await ports.owned()
        let taps = await known()
        for port in owned where port.kind == .tap && !taps.contains(port.device) {
            // Leftovers are found through the switch, so remove the switch's entry last; an interrupted removal is then repeated.
            try await links.remove(port.device)
            try await ports.unplug(port.device)
        }
    }

    /// See `SwitchPorts.protectDatapath`.
    package func protectDatapath() async throws -> Bool { try await ports.protectDatapath() }

    /// - Throws: `ResourceError` 503 if there is no session with the switch.
    package func requireSwitch() async throws { try await ports.requireSession() }
}

/// The guard state that this process has set, by device. No other process sets it.
private final class RouterGuards: Sendable {
    private struct Setting: Equatable {
        let index: UInt32
        let isOn: Bool
    }

    private let settings = Mutex<[String: Setting]>([:])

    /// A recreated device has another index and no guard.
    func isSet(_ device: String, _ index: UInt32, _ isOn: Bool) -> Bool {
        settings.withLock { $0[device] } == Setting(index: index, isOn: isOn)
    }

    func set(_ device: String, _ index: UInt32, _ isOn: Bool) {
        settings.withLock { $0[device] = Setting(index: index, isOn: isOn) }
    }
}
