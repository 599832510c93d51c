import ComputeAgentService
import Kernel
import Libvirt

/// A guest's move from one machine to another, as two libvirt daemons carry it out.
final class SimulatedMove: @unchecked Sendable {
    private let uuid: String
    private unowned let source: SimulatedMachine
    private unowned let target: SimulatedMachine
    private unowned let world: World
    private let startedAt: UInt64
    private let endsAt: UInt64
    private var ended: ((Result<Void, any Error>) -> Void)?

    private static let memory = 512 << 20

    private init(
        _ uuid: String, _ source: SimulatedMachine, _ target: SimulatedMachine, _ world: World, takes duration: Duration,
        _ ended: @escaping (Result<Void, any Error>) -> Void
    ) {
        self.uuid = uuid
        self.source = source
        self.target = target
        self.world = world
        self.ended = ended
        startedAt = world.executor.now
        endsAt = startedAt + UInt64(duration.microseconds) * 1000
    }

    /// - Parameters:
    ///   - devices: the guest's devices on the target.
    ///   - ended: called once.
    /// - Throws: `LibvirtError` if it cannot begin.
    static func begin(
        _ uuid: String, from source: SimulatedMachine, to target: SimulatedMachine, _ devices: SimulatedDevices, _ world: World,
        _ ended: @escaping (Result<Void, any Error>) -> Void
    ) throws {
        guard let domain = source.domains[uuid] else { throw LibvirtError.noDomain(uuid, call: "move") }
        guard domain.live != nil, domain.move == nil, target.domains[uuid] == nil else { throw LibvirtError.invalidState(call: "move") }
        guard !target.refused.contains(uuid) else { throw LibvirtError.badDefinition("the other host refuses it", call: "move") }
        // The agent must have created the tap before the guest arrives.
        guard devices.taps.allSatisfy({ target.links[$0] != nil }) else { throw LibvirtError.badDefinition("no tap", call: "move") }
        let duration = world.between(.milliseconds(200), .seconds(20))
        let move = SimulatedMove(uuid, source, target, world, takes: duration, ended)
        try source.change(uuid, "move") { $0.move = move }
        var incoming = SimulatedMachine.Domain(definition: devices)
        (incoming.live, incoming.state, incoming.isIncoming) = (devices, .paused, true)
        target.replace(uuid, incoming)
        world.executor.after(duration) { move.finish() }
    }

    func state(at now: UInt64) -> DomainMoveState {
        var state = DomainMoveState()
        let part = Double(min(now, endsAt) - startedAt) / Double(max(1, endsAt - startedAt))
        state.memoryTotal = SimulatedMove.memory
        state.memoryProcessed = Int(Double(SimulatedMove.memory) * part)
        state.memoryRemaining = state.memoryTotal - state.memoryProcessed
        return state
    }

    /// Cancels the move; the guest stays, unless it has already left.
    func abort() { fail(LibvirtError.invalidState(call: "move was aborted")) }

    /// Ends the move; the guest is on the source or was stopped there.
    func fail(_ error: any Error) {
        guard let ended else { return }
        self.ended = nil
        world.count("move failed")
        leave()
        if target.domains[uuid]?.isIncoming == true { target.replace(uuid, nil) }
        ended(.failure(error))
    }

    private func leave() {
        guard var domain = source.domains[uuid], domain.move === self else { return }
        domain.move = nil
        source.replace(uuid, domain)
    }

    private func finish() {
        guard let ended else { return }
        guard let domain = source.domains[uuid], domain.live != nil, let incoming = target.domains[uuid], incoming.isIncoming else {
            return fail(LibvirtError.noConnection(call: "move"))
        }
        guard !world.happens(world.faults.hostTrouble, "move without a connection") else {
            return fail(LibvirtError.noConnection(call: "move"))
        }
        self.ended = nil
        // The source is stopped before the target runs.
        var stopped = domain
        (stopped.state, stopped.move, stopped.isLeaving) = (.paused, nil, domain.state == .running)
        source.replace(uuid, stopped)
        var arrived = incoming
        (arrived.state, arrived.isIncoming) = (domain.state, false)
        (arrived.boots, arrived.memory) = (domain.boots, domain.memory)
        target.replace(uuid, arrived)
        world.count("moved")
        // libvirt keeps a guest stopped if it does not learn whether the guest runs on the target.
        guard !world.happens(world.faults.hostTrouble / 2, "move without an answer") else {
            return ended(.failure(LibvirtError.noConnection(call: "move")))
        }
        source.replace(uuid, nil)
        ended(.success(()))
    }
}
