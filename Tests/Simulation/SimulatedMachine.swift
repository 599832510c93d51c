import ComputeAgentCore
import ComputeAgentService
import Kernel
import Libvirt

/// A hypervisor host: libvirt's domains, its devices and its switch, which outlive the agent. The agent's own files are real
/// files below the working directory.
final class SimulatedMachine: @unchecked Sendable {
    struct Domain {
        /// The disks and interfaces of the next start.
        var definition: SimulatedDevices
        /// The disks and interfaces of the running guest.
        var live: SimulatedDevices?
        var state: DomainState = .shutoff
        var reason: ShutoffReason = .unknown
        var hasManagedSave = false
        /// Number of starts.
        var boots = 0
        /// Identifies the guest's memory, which moves with the guest.
        var memory = 0
        /// The guest's move to another machine.
        var move: SimulatedMove?
        /// The backup of its disks that is in progress, or whose end has not been queried yet.
        var backup: Backup?

        struct Backup {
            let paths: [String]
            /// Nil when it was cancelled.
            var endsAt: UInt64?
        }

        var power: String {
            switch state {
            case .running: "running"
            case .paused: "paused"
            default: hasManagedSave ? "suspended" : "shutoff"
            }
        }

        /// Whether it waits for the memory of a guest of another machine.
        var isIncoming = false
        /// Whether libvirt has paused it for the last phase of a move.
        var isLeaving = false

        func summary(_ uuid: String) -> DomainSummary {
            DomainSummary(
                uuid: uuid, name: uuid, state: state, shutoffReason: reason, isMoving: isIncoming || isLeaving,
                hasManagedSave: hasManagedSave)
        }
    }

    let name: String
    private unowned let world: World
    private(set) var domains: [String: Domain] = [:]
    /// Servers whose definition this machine always refuses.
    var refused: Set<String> = []
    /// Indexes of network devices.
    var links: [String: UInt32] = [:]
    var nextLink: UInt32 = 1
    /// Devices on the integration bridge.
    private(set) var bridge: [String: SwitchPort] = [:]
    private var busyUntil: [String: UInt64] = [:]
    /// Without power nothing runs and the machine receives nothing.
    private(set) var isOff = false
    private var listeners: [Int: AsyncStream<LibvirtEvent>.Continuation] = [:]
    private var listenerNumbers = 0

    init(name: String, world: World) {
        self.name = name
        self.world = world
    }

    /// The directory of the agent's files. Absolute, because agents report it to each other; the same in every run.
    var directory: String { "/proc/self/cwd/" + name }

    /// The agent's records of servers.
    func records() throws -> [LocalServerRecord] { try StateStore.records(in: directory + "/records") }

    // MARK: domains

    /// Changes a domain like libvirt: one job of a domain at a time, which is completed even if the caller dies.
    func job<Value: Sendable>(
        _ uuid: String, takes duration: Duration, for process: SimulatedProcess, _ body: @escaping () throws -> Value
    ) async throws -> Value {
        let wait = Wait<Value>()
        let watch = process.watch { wait.finish(.failure(CancellationError())) }
        defer { process.unwatch(watch) }
        let now = world.executor.now
        let end = max(now, busyUntil[uuid] ?? 0) + UInt64(duration.microseconds) * 1000
        busyUntil[uuid] = end
        world.executor.after(.microseconds(Int64((end - now) / 1000))) { wait.finish(Result { try body() }) }
        return try await wait.kept()
    }

    /// Changes a domain immediately.
    ///
    /// - Throws: `LibvirtError` if it does not exist.
    func change(_ uuid: String, _ call: String, _ body: (inout Domain) throws -> Void) throws {
        guard var domain = domains[uuid] else { throw LibvirtError.noDomain(uuid, call: call) }
        let before = domain.state
        try body(&domain)
        check(uuid, domain)
        domains[uuid] = domain
        if domain.state != before { tell(uuid) }
    }

    func define(_ uuid: String, _ devices: SimulatedDevices) {
        var domain = domains[uuid] ?? Domain(definition: devices)
        domain.definition = devices
        check(uuid, domain)
        domains[uuid] = domain
    }

    func undefine(_ uuid: String) throws {
        guard let domain = domains[uuid] else { return }
        guard domain.live == nil else { throw LibvirtError.invalidState(call: "undefine") }
        domains[uuid] = nil
    }

    /// Stops the guest for `reason`.
    func stop(_ uuid: String, _ reason: ShutoffReason) {
        guard var domain = domains[uuid], domain.live != nil else { return }
        // libvirt has no definition of a guest before it has arrived.
        if domain.isIncoming { return replace(uuid, nil) }
        (domain.live, domain.state, domain.reason, domain.backup) = (nil, .shutoff, reason, nil)
        let move = domain.move
        domain.move = nil
        domains[uuid] = domain
        tell(uuid)
        move?.fail(LibvirtError.invalidState(call: "move"))
    }

    /// Replaces a domain, as libvirt itself does.
    func replace(_ uuid: String, _ domain: Domain?) {
        if let domain { check(uuid, domain) }
        domains[uuid] = domain
        tell(uuid)
    }

    /// The machine loses power. Its disks keep their content.
    func powerOff() {
        isOff = true
        for uuid in domains.keys.sorted() {
            if domains[uuid]?.isIncoming == true { replace(uuid, nil) } else { stop(uuid, .unknown) }
        }
        links = [:]
        for device in bridge.keys.sorted() { unplug(device) }
    }

    func powerOn() { isOff = false }

    private func tell(_ uuid: String) {
        world.trace("\(name) guest \(uuid) is \(domains[uuid]?.power ?? "absent")")
        for number in listeners.keys.sorted() { listeners[number]?.yield(.lifecycle(uuid: uuid, event: 0, detail: 0)) }
    }

    /// Changes of domains, until the process dies.
    func events(for process: SimulatedProcess) -> AsyncStream<LibvirtEvent> {
        listenerNumbers += 1
        let number = listenerNumbers
        let (stream, continuation) = AsyncStream.makeStream(of: LibvirtEvent.self)
        listeners[number] = continuation
        continuation.yield(.connected)
        _ = process.watch { [self] in listeners.removeValue(forKey: number)?.finish() }
        return stream
    }

    private func check(_ uuid: String, _ domain: Domain) {
        let volumes = domain.definition.volumes.union(domain.live?.volumes ?? [])
        for other in world.hosts.values {
            // A moving guest is stopped on one of the two machines.
            if other !== self, domain.state == .running, other.domains[uuid]?.state == .running {
                world.violation("I7: server \(uuid) runs on \(other.name) and on \(name)")
            }
            for (server, held) in other.domains where server != uuid {
                let shared = held.definition.volumes.union(held.live?.volumes ?? []).intersection(volumes)
                if !shared.isEmpty { world.violation("I6: servers \(uuid) and \(server) have the same volume") }
            }
        }
    }

    // MARK: guests

    /// From time to time QEMU crashes or a guest powers itself off.
    func liveOn() {
        world.executor.after(.seconds(7)) { [self] in
            for uuid in domains.keys.sorted() where domains[uuid]?.state == .running {
                guard world.happens(world.faults.guestCrashes, "guest crash") else { continue }
                stop(uuid, world.random.below(2) == 0 ? .failed : .guestShutdown)
            }
            liveOn()
        }
    }

    // MARK: switch

    func plug(_ port: SwitchPort) {
        if let old = bridge[port.device], old.interfaceID != port.interfaceID { unplug(port.device) }
        bridge[port.device] = port
        world.network.bound[port.interfaceID, default: []].insert(name)
    }

    func unplug(_ device: String) {
        guard let port = bridge.removeValue(forKey: device) else { return }
        world.network.bound[port.interfaceID]?.remove(name)
        if world.network.bound[port.interfaceID]?.isEmpty == true { world.network.bound[port.interfaceID] = nil }
    }
}

/// The devices of a domain that the control plane manages.
struct SimulatedDevices {
    var disks: [XMLTree]
    var interfaces: [XMLTree]

    /// - Throws: `XMLParseError`.
    static func domain(_ xml: String) throws -> (uuid: String, devices: SimulatedDevices) {
        let tree = try XMLTree.parse(xml)
        let devices = tree.child("devices")
        return (
            tree.child("uuid")?.text ?? "",
            SimulatedDevices(disks: devices?.all("disk") ?? [], interfaces: devices?.all("interface") ?? [])
        )
    }

    var rendered: String { XMLTree("domain", [:], [XMLTree("devices", [:], disks + interfaces)]).rendered }

    /// Volumes by id.
    var volumes: Set<String> {
        Set(disks.compactMap { $0.child("serial").flatMap { UUID128($0.text) }?.description })
    }

    /// The taps of its ports.
    var taps: Set<String> { Set(interfaces.compactMap { $0.child("target")?["dev"] }) }

    mutating func add(_ device: XMLTree) {
        remove(device)
        if device.name == "disk" { disks.append(device) } else { interfaces.append(device) }
    }

    mutating func remove(_ device: XMLTree) {
        let target = device.child("target")?["dev"]
        disks.removeAll { device.name == "disk" && $0.child("target")?["dev"] == target }
        interfaces.removeAll { device.name == "interface" && $0.child("target")?["dev"] == target }
    }
}

/// The ports that are plugged on each host, as OVN would report them.
final class SimulatedNetwork: @unchecked Sendable {
    /// A port of a moving guest is plugged in on two hosts.
    var bound: [String: Set<String>] = [:]
}
