import ComputeAgentCore
import ComputeAgentService
import JSON
import Kernel
import Synchronization
import TestKit
import Testing

/// The host side of ports on devices that fail.
@Suite struct HostNetworkTests {
    private final class Devices: HostLinks, SwitchBridge, MetadataService {
        struct State {
            var taps: Set<String> = []
            var plugged: Set<String> = []
            var failing = ""
            var mtus: [String: Int] = [:]
        }

        let state: Mutex<State>

        init(_ taps: Set<String>, failing: String) { state = Mutex(State(taps: taps, plugged: taps, failing: failing)) }

        private func step(_ name: String, _ body: (inout State) -> Void) throws {
            try state.withLock { state in
                guard state.failing != name else { throw ResourceError.unavailable(name) }
                body(&state)
            }
        }

        func index(_ name: String) -> UInt32 { state.withLock { $0.taps.contains(name) ? 1 : 0 } }
        func ensureTap(_ name: String, mtu: Int, hasQueues: Bool) async throws {}
        func setMTU(_ name: String, _ mtu: Int) async throws { try step("mtu") { $0.mtus[name] = mtu } }
        func hasQueues(_ name: String) async throws -> Bool { false }
        func guardRouters(_ name: String, _ isOn: Bool) async throws {}
        func remove(_ name: String) async throws { try step("remove") { $0.taps.remove(name) } }
        func requireSession() async throws {}
        func isPlugged(_ device: String, interfaceID: String) async -> Bool { state.withLock { $0.plugged.contains(device) } }
        func has(_ device: String) async -> Bool { state.withLock { $0.plugged.contains(device) } }
        func owned() async -> [(device: String, kind: SwitchPortKind, networkID: String)] {
            state.withLock { $0.plugged.sorted().map { ($0, .tap, "network") } }
        }
        func plug(_ port: SwitchPort) async throws {}
        func unplug(_ device: String) async throws { try step("unplug") { $0.plugged.remove(device) } }
        func settle(_ time: any TimeSource) async throws {}
        func protectDatapath() async throws -> Bool { false }
        func ensure(_ networkID: String, port: MetadataPort, mtu: Int) async throws {}
        func isReady(_ networkID: String, port: MetadataPort) async -> Bool { true }
        func prune() async throws {}
    }

    @Test func aChangedMTUReachesTheTapOfARunningGuest() async throws {
        let devices = Devices([], failing: "")
        let network = HostNetwork(links: devices, ports: devices, metadata: devices, time: ManualTime())
        var description = try #require(Fixture.port.objectValue)
        description["mtu"] = 1300
        let port = try #require(try Fixture.server(["ports": [.object(description)]]).ports.first)
        try await network.ensureMetadata([port])
        #expect(devices.state.withLock { $0.mtus } == [port.tapName: 1300])
    }

    /// Whichever half fails, the next audit removes the rest.
    @Test(arguments: ["unplug", "remove"]) func anInterruptedRemovalOfLeftoversIsRepeated(failing: String) async throws {
        let devices = Devices(["tapleft", "tapkept"], failing: failing)
        let network = HostNetwork(links: devices, ports: devices, metadata: devices, time: ManualTime())
        await #expect(throws: ResourceError.self) { try await network.prune { ["tapkept"] } }
        devices.state.withLock { $0.failing = "" }
        try await network.prune { ["tapkept"] }
        let left = devices.state.withLock { ($0.taps, $0.plugged) }
        #expect(left == (["tapkept"], ["tapkept"]))
    }
}
