import JSON
import Kernel

/// The phases of a run: tenants work under faults, the faults stop, the checks run.
struct Story {
    private let world: World
    private let history = History()

    /// Simulated time within which everything must converge after the faults have stopped.
    private static let patience: Duration = .seconds(600)

    /// The maximum error of a clock; one clock changes at each jump.
    private static let clockErrors: [Duration] = [.seconds(20), .seconds(300), .seconds(6 * 3600)]

    init(_ world: World) { self.world = world }

    func tell() async throws {
        var scene = Scene(world)
        try await scene.build()
        try await world.executor.sleep(.seconds(12))
        try await safety(scene)
        let auditor = Auditor(world, history)
        try peace()
        guard try await converge(auditor, "after the faults") else { return }
        try auditor.check()
        try await clean()
        guard try await converge(auditor, "after the last delete") else { return }
        try auditor.check()
        try auditor.checkEmpty()
    }

    // MARK: phases

    private func safety(_ scene: Scene) async throws {
        world.trace("faults begin")
        world.faults.isOn = true
        let ends = Ends()
        disturb(ends)
        let (world, history) = (world, history)
        try await withThrowingTaskGroup(of: Void.self) { group in
            if world.random.below(2) == 0 {
                let outages = 1 + world.random.below(2)
                group.addTask { try await Operator(world, history, number: 7).run(outages: outages) }
            }
            let moves = world.random.below(8)
            group.addTask { try await Operator(world, history, number: 6).move(times: moves) }
            for project in Scene.projects {
                for number in 1...2 {
                    let count = 6 + world.random.below(8)
                    group.addTask {
                        try await Workload(world, scene, history, project: project, number: number).run(operations: count)
                    }
                }
            }
            try await group.waitForAll()
        }
        ends.isOver = true
        world.maximum("accepted", history.accepted)
    }

    private final class Ends: @unchecked Sendable { var isOver = false }

    /// Clocks that jump, and outages of the database or broker for all processes.
    private func disturb(_ ends: Ends) {
        let world = world
        if world.faults.clockInterval > 0 {
            let names = world.allProcesses.map(\.name)
            for name in names where world.random.below(2) == 0 { setClock(of: name) }
            repeating(ends, world.faults.clockInterval) { setClock(of: names[world.random.below(names.count)]) }
        }
        if world.faults.outageInterval > 0 {
            repeating(ends, world.faults.outageInterval) {
                let length = world.between(.milliseconds(500), .seconds(15))
                world.store.awayUntil = world.executor.now + UInt64(length.microseconds) * 1000
                world.trace("the database is away for \(length)")
                world.count("outage")
            }
        }
    }

    private func setClock(of name: String) {
        let most = Story.clockErrors[world.random.below(Story.clockErrors.count)]
        let error = world.between(.zero - most, most)
        world.clockErrors[name] = error
        world.trace("clock of \(name) is off by \(error)")
        world.count("clock jump")
    }

    private func repeating(_ ends: Ends, _ seconds: Int, _ action: @escaping () -> Void) {
        world.executor.after(world.between(.seconds(1), .seconds(2 * seconds))) {
            guard !ends.isOver else { return }
            action()
            repeating(ends, seconds, action)
        }
    }

    private func peace() throws {
        world.trace("faults end")
        world.faults.isOn = false
        world.store.awayUntil = 0
        // A wrong clock is a fault that does not end: everything must converge with it, too.
        if world.random.below(2) == 0 { world.clockErrors = [:] }
        try world.startAll()
    }

    private func converge(_ auditor: Auditor, _ when: String) async throws -> Bool {
        let started = world.executor.now
        while true {
            let open = try auditor.open()
            if open.isEmpty {
                world.trace("all is done \(when)")
                world.maximum("convergence", Int((world.executor.now - started) / 1_000_000_000))
                return true
            }
            guard world.executor.now - started < UInt64(Story.patience.microseconds) * 1000 else {
                for text in open { world.violation("I12: \(when), still: \(text)") }
                return false
            }
            try await world.executor.sleep(.seconds(2))
        }
    }

    /// Tenants delete all their resources.
    private func clean() async throws {
        for kind in ["floatingip", "server", "volume", "port", "security_group"] {
            for resource in history.all(kind) where !resource.deleteAccepted {
                let tenant = Tenant(world: world, token: resource.project, number: 9)
                var answer = try await tenant.call(resource.service, "DELETE", "\(resource.path)/\(resource.id)")
                // Volumes and ports are in use until their servers are deleted.
                for _ in 0..<60 where answer.status == 400 || answer.status == 409 {
                    try await world.executor.sleep(.seconds(2))
                    answer = try await tenant.call(resource.service, "DELETE", "\(resource.path)/\(resource.id)")
                }
                guard answer.isAccepted else {
                    world.violation("I1: \(kind) \(resource.id) cannot be deleted: \(answer.status) \(answer.json)")
                    continue
                }
                history.deleting(kind, resource.id)
            }
        }
        try await leftVolumes()
    }

    /// Root volumes that are kept when their server is deleted.
    private func leftVolumes() async throws {
        for project in Scene.projects {
            let tenant = Tenant(world: world, token: project, number: 8)
            for _ in 0..<60 {
                let list = try await tenant.call("block-storage", "GET", "/v3/\(project)/volumes")
                let ids = (list.json["volumes"]?.arrayValue ?? []).compactMap { $0["id"]?.stringValue }
                if ids.isEmpty { break }
                for id in ids { _ = try await tenant.call("block-storage", "DELETE", "/v3/\(project)/volumes/\(id)") }
                try await world.executor.sleep(.seconds(2))
            }
        }
    }
}
