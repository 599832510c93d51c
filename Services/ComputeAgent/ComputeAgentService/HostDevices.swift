package import ComputeAgentCore
package import Kernel
import OVSDB

/// Network devices of a host. `Links` are the kernel's; the simulation has its own.
package protocol HostLinks: Sendable {
    /// The device's index, which changes when the device is recreated; 0 if there is no device of this name.
    func index(_ name: String) -> UInt32
    /// Creates a persistent tap, set up and without addresses.
    ///
    /// - Parameter hasQueues: whether it can have several queues. A tap that exists is not changed.
    func ensureTap(_ name: String, mtu: Int, hasQueues: Bool) async throws
    /// Sets the MTU of a device if it differs. Ignores an absent device.
    func setMTU(_ name: String, _ mtu: Int) async throws
    /// Whether the tap was created for several queues; QEMU must open it accordingly.
    func hasQueues(_ name: String) async throws -> Bool
    /// Whether router advertisements from the device are dropped (`isOn`).
    func guardRouters(_ name: String, _ isOn: Bool) async throws
    /// Removes a device; an absent one counts as removed.
    func remove(_ name: String) async throws
}

extension HostLinks {
    func exists(_ name: String) -> Bool { index(name) != 0 }
}

/// The integration bridge of a host. `SwitchPorts` is Open vSwitch's; the simulation has its own.
package protocol SwitchBridge: Sendable {
    /// - Throws: `ResourceError` 503 while there is no session with the switch.
    func requireSession() async throws
    /// The bridge has the device under that logical port's name.
    func isPlugged(_ device: String, interfaceID: String) async -> Bool
    /// Whether the bridge has the device, under any port.
    func has(_ device: String) async -> Bool
    /// The agent's devices on the bridge.
    func owned() async -> [(device: String, kind: SwitchPortKind, networkID: String)]
    /// Adds the device to the bridge, or corrects its logical port.
    func plug(_ port: SwitchPort) async throws
    /// Removes the device from the bridge; succeeds if it is absent.
    func unplug(_ device: String) async throws
    /// Waits, for a limited time, until the switch has applied the state of its database.
    func settle(_ time: any TimeSource) async throws
    /// See `SwitchPorts.protectDatapath`.
    func protectDatapath() async throws -> Bool
}

extension SwitchPorts: SwitchBridge {
    package func requireSession() async throws {
        guard await client.isConnected else {
            throw ResourceError.unavailable("the switch's database is away: \(await client.problem ?? "no session yet")")
        }
    }
}

/// The metadata service of the networks of a host's servers. `MetadataNetworks` answers guests; the simulation has no guests.
package protocol MetadataService: Sendable {
    /// Starts the metadata service of a network.
    func ensure(_ networkID: String, port: MetadataPort, mtu: Int) async throws
    /// Whether the service of a network answers.
    func isReady(_ networkID: String, port: MetadataPort) async -> Bool
    /// Stops the services of networks without servers on this host.
    func prune() async throws
}

extension MetadataNetworks: MetadataService {}
