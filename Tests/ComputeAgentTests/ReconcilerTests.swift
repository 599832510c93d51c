import Contracts
import JSON
import Kernel
import Testing

@testable import ComputeAgentCore

@Suite struct ReconcilerTests {
    private func record(_ server: DesiredServer, applied: DesiredPower? = nil, plugged: Bool = false) -> LocalServerRecord {
        var record = LocalServerRecord(serverID: server.id)
        _ = record.accept(server)
        if let applied {
            record.appliedGeneration = server.generation
            record.appliedPower = applied
        }
        if plugged {
            record.pluggedPorts = server.ports.map { .init(id: $0.id, tap: $0.tapName, networkID: $0.networkID) }
        }
        return record
    }

    private func running(_ server: DesiredServer) -> ObservedDomain {
        ObservedDomain(
            power: .running,
            disks: [.init(target: "vda", serial: "root")]
                + server.volumes.map { .init(target: $0.device, serial: $0.volumeID) },
            interfaces: server.ports.map { .init(mac: $0.mac, tap: $0.tapName) })
    }

    @Test func everyOperationOfTheContractIsKnown() {
        #expect(ServerOperation.Kind.allCases.map(\.rawValue).sorted() == ServerSpec.Operation.Kind.known.map(\.rawValue).sorted())
    }

    @Test func firstStart() throws {
        let server = try Fixture.server()
        let plan = Reconciler.plan(server, observed: nil, record: record(server))
        #expect(plan == [.provision, .plug(server.ports), .define, .start(paused: false)])
    }

    @Test func matchingGuestNeedsNoAction() throws {
        let server = try Fixture.server(["volumes": [Fixture.volume]])
        let plan = Reconciler.plan(
            server, observed: running(server), record: record(server, applied: .running, plugged: true))
        #expect(plan.isEmpty)
    }

    @Test func aDeadQEMUIsStartedAgain() throws {
        let server = try Fixture.server()
        let record = record(server, applied: .running, plugged: true)
        let dead = ObservedDomain(power: .shutoff, offReason: .failure)
        #expect(Reconciler.plan(server, observed: dead, record: record).contains(.start(paused: false)))
        #expect(dead.reportedPower(desired: .running) == .crashed)
    }

    @Test func aGuestThatPoweredOffIsLeftAlone() throws {
        let server = try Fixture.server()
        let off = ObservedDomain(power: .shutoff, offReason: .guest)
        #expect(Reconciler.plan(server, observed: off, record: record(server, applied: .running, plugged: true)).isEmpty)
        // A newer desired state starts it.
        let newer = try Fixture.server(["generation": 2])
        var old = record(server, applied: .running, plugged: true)
        _ = old.accept(newer)
        #expect(Reconciler.plan(newer, observed: off, record: old).contains(.start(paused: false)))
    }

    @Test func operationsHappenOnce() throws {
        let server = try Fixture.server(["operation": ["id": "op1", "kind": "reboot-hard"]])
        var record = record(server, applied: .running, plugged: true)
        let plan = Reconciler.plan(server, observed: running(server), record: record)
        #expect(plan.first == .destroy)
        #expect(plan.last == .complete(operationID: "op1"))
        #expect(plan.contains(.start(paused: false)))
        record.lastOperationID = "op1"
        #expect(Reconciler.plan(server, observed: running(server), record: record).isEmpty)
    }

    @Test func softRebootAsksTheGuest() throws {
        let server = try Fixture.server(["operation": ["id": "op1", "kind": "reboot-soft"]])
        let record = record(server, applied: .running, plugged: true)
        #expect(Reconciler.plan(server, observed: running(server), record: record).first == .shutdown)
    }

    @Test func aRebuildFetchesItsImageBeforeAnythingIsLost() throws {
        let server = try Fixture.server(["operation": ["id": "op1", "kind": "rebuild"]])
        let record = record(server, applied: .running, plugged: true)
        let renewed: [AgentAction] = [.fetch, .discard(.rebuilt(withEphemeral: true)), .provision]
        let plan = Reconciler.plan(server, observed: running(server), record: record)
        #expect(
            plan == [.fetch, .shutdown] + renewed + [.plug(server.ports), .define, .start(paused: false), .complete(operationID: "op1")])
        // The agent ended after it had turned the guest off, or the server was off before.
        let off = ObservedDomain(power: .shutoff, offReason: .guest)
        #expect(Array(Reconciler.plan(server, observed: off, record: record).prefix(3)) == renewed)
        let stopped = try Fixture.server(["power": "shutoff", "operation": ["id": "op1", "kind": "rebuild", "preserve_ephemeral": true]])
        let still = Reconciler.plan(stopped, observed: off, record: self.record(stopped, applied: .shutoff))
        #expect(still == [.fetch, .discard(.rebuilt(withEphemeral: false)), .provision, .define, .complete(operationID: "op1")])
    }

    @Test func resizesKeepTheOldDisks() throws {
        let server = try Fixture.server(["operation": ["id": "op1", "kind": "resize"], "keep_disks": true])
        let plan = Reconciler.plan(server, observed: running(server), record: record(server, applied: .running, plugged: true))
        #expect(Array(plan.prefix(4)) == [.shutdown, .keep, .provision, .grow])
        #expect(plan.last == .complete(operationID: "op1"))
        let stopped = try Fixture.server(["power": "shutoff", "operation": ["id": "op1", "kind": "resize"], "keep_disks": true])
        let off = ObservedDomain(power: .shutoff, offReason: .guest)
        let still = Reconciler.plan(stopped, observed: off, record: record(stopped, applied: .shutoff))
        #expect(still == [.keep, .provision, .grow, .define, .complete(operationID: "op1")])
        let reverted = try Fixture.server(["operation": ["id": "op2", "kind": "resize-revert"]])
        let back = Reconciler.plan(reverted, observed: running(reverted), record: record(reverted, applied: .running, plugged: true))
        #expect(Array(back.prefix(3)) == [.shutdown, .restore, .provision])
    }

    @Test func aRescueHasADiskOfItsOwn() throws {
        let rescue: JSONValue = [
            "image": ["id": "ffffffff-0000-0000-0000-000000000001", "disk_format": "raw", "properties": [:]], "stable": false,
            "device": "disk", "bus": "virtio",
        ]
        let server = try Fixture.server(["operation": ["id": "op1", "kind": "rescue"], "rescue": rescue])
        let plan = Reconciler.plan(server, observed: running(server), record: record(server, applied: .running, plugged: true))
        #expect(Array(plan.prefix(5)) == [.fetch, .shutdown, .fetch, .discard(.rescue), .provision])
        let back = try Fixture.server(["operation": ["id": "op2", "kind": "unrescue"]])
        let own = Reconciler.plan(back, observed: running(back), record: record(back, applied: .running, plugged: true))
        #expect(Array(own.prefix(2)) == [.destroy, .provision])
    }

    @Test func volumesAndPortsComeAndGo() throws {
        let without = try Fixture.server(["ports": []])
        let with = try Fixture.server(["volumes": [Fixture.volume], "generation": 2])
        var record = record(without, applied: .running)
        _ = record.accept(with)
        let attach = Reconciler.plan(with, observed: running(without), record: record)
        #expect(
            attach == [
                .attachVolume(with.volumes[0]), .plug(with.ports), .attachPort(with.ports[0]), .define,
            ])
        record = self.record(with, applied: .running, plugged: true)
        let after = try Fixture.server(["ports": [], "generation": 3])
        _ = record.accept(after)
        let detach = Reconciler.plan(after, observed: running(with), record: record)
        #expect(
            detach == [
                .detachVolume(target: "vdb"), .detachPort(mac: with.ports[0].mac, tap: with.ports[0].tapName),
                .unplug(record.pluggedPorts), .define,
            ])
    }

    @Test func stopPauseSuspend() throws {
        let server = try Fixture.server()
        let record = record(server, applied: .running, plugged: true)
        let observed = running(server)
        func plan(_ power: String, _ observed: ObservedDomain?) throws -> [AgentAction] {
            Reconciler.plan(try Fixture.server(["power": .string(power)]), observed: observed, record: record)
        }
        #expect(try plan("shutoff", observed) == [.shutdown, .unplug(record.pluggedPorts)])
        #expect(try plan("suspended", observed) == [.save, .unplug(record.pluggedPorts)])
        #expect(try plan("paused", observed) == [.suspend])
        #expect(try plan("running", ObservedDomain(power: .paused, interfaces: observed.interfaces)) == [.resume])
        var paused = observed
        paused.power = .paused
        #expect(try plan("shutoff", paused).first == .destroy)
        let saved = ObservedDomain(power: .shutoff, offReason: .saved, hasManagedSave: true)
        #expect(try plan("running", saved) == [.provision, .plug(server.ports), .define, .start(paused: false)])
        #expect(saved.reportedPower(desired: .suspended) == .suspended)
    }

    @Test func removalIsCompleteAndRepeatable() throws {
        let server = try Fixture.server(["power": "absent"])
        var record = record(server, applied: .running, plugged: true)
        #expect(
            Reconciler.plan(server, observed: running(server), record: record) == [
                .destroy, .undefine, .unplug(record.pluggedPorts), .removeFiles,
            ])
        #expect(Reconciler.plan(server, observed: nil, record: record) == [.unplug(record.pluggedPorts), .removeFiles])
        record.goneSince = Timestamp(seconds: 0)
        #expect(Reconciler.plan(server, observed: nil, record: record).isEmpty)
    }

    /// An agent that ended between the switch and the tap has a port that is not plugged in and must be unplugged.
    @Test func halfUnpluggedPortsAreUnplugged() throws {
        let server = try Fixture.server()
        let record = record(server, applied: .running, plugged: true)
        let lost = Set(record.pluggedPorts.map(\.id))
        func plan(_ power: String, _ observed: ObservedDomain?) throws -> [AgentAction] {
            Reconciler.plan(try Fixture.server(["power": .string(power)]), observed: observed, record: record, lostPorts: lost)
        }
        #expect(try plan("absent", nil) == [.unplug(record.pluggedPorts), .removeFiles])
        #expect(try plan("shutoff", ObservedDomain(power: .shutoff)).contains(.unplug(record.pluggedPorts)))
        let without = try Fixture.server(["ports": []])
        #expect(
            Reconciler.plan(without, observed: running(without), record: record, lostPorts: lost)
                .contains(.unplug(record.pluggedPorts)))
        #expect(try plan("running", running(server)) == [.plug(server.ports)])
    }

    @Test func restartsAreLimited() {
        var limiter = RestartLimiter()
        let start = Timestamp(seconds: 1000)
        let early = (0...RestartLimiter.restartsMax).map { _ in limiter.mayRestart(at: start) }
        #expect(early == Array(repeating: true, count: RestartLimiter.restartsMax) + [false])
        let later = limiter.mayRestart(at: start + .seconds(601))
        #expect(later)
    }
}
