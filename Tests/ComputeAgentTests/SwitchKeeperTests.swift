import Commands
import Foundation
import Kernel
import Libvirt
import Logging
import OVSDB
import Telemetry
import TestKit
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

/// The agent's monitoring of a real ovs-vswitchd with its own datapath type, which has no device on the machine.
@Suite(.serialized, .timeLimit(.minutes(10))) struct SwitchKeeperTests {
    private static let schema = "/usr/share/openvswitch/vswitch.ovsschema"

    /// Database and ovs-vswitchd in one directory.
    private final class Switch {
        let database: PrivateOVSDB
        private var process: pid_t?

        init() throws {
            database = try PrivateOVSDB(schema: SwitchKeeperTests.schema)
            try vsctl(["--no-wait", "--", "init", "--", "add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=dummy"])
            try start()
        }

        private func run(_ arguments: [String]) throws -> pid_t {
            try Spawn.start(
                arguments, environment: ["OVS_RUNDIR=\(database.directory)", "OVS_LOGDIR=\(database.directory)", "PATH=/usr/bin:/usr/sbin"])
        }

        func vsctl(_ arguments: [String]) throws {
            let tool = try run(["/usr/bin/ovs-vsctl", "--retry", "--timeout=10", "--db=unix:\(database.socket)"] + arguments)
            try #require(Spawn.wait(for: tool) == 0)
        }

        func start() throws {
            process = try run([
                "/usr/sbin/ovs-vswitchd", "unix:\(database.socket)", "--pidfile=\(database.directory)/ovs-vswitchd.pid",
                "--enable-dummy", "--disable-system", "--no-chdir", "-vconsole:off", "-vsyslog:off",
            ])
        }

        func kill() {
            guard let process else { return }
            Foundation.kill(process, SIGKILL)
            Spawn.wait(for: process)
            self.process = nil
        }

        func end() throws {
            kill()
            try database.stop()
        }
    }

    private struct Agent {
        let client: OVSDBClient
        let control: SwitchControl
        let keeper: SwitchKeeper

        init(_ ovs: Switch, limit: Int, threads: WorkerThreads) {
            let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            client = OVSDBClient(
                OVSDBConfiguration(
                    endpoints: [.unix(path: ovs.database.socket)], database: "Open_vSwitch", monitors: SwitchPorts.monitors),
                ambient: Ambient(), logger: log)
            control = SwitchControl(
                directory: ovs.database.directory, runner: CommandRunner(threads: threads), threads: threads)
            keeper = SwitchKeeper(
                ports: SwitchPorts(client: client, bridge: "br-int"), control: control, threads: threads, limit: limit,
                directory: ovs.database.directory, ambient: Ambient(), metrics: Metrics(), log: log)
        }

        /// Checks until `condition` is true.
        func look(until what: String, _ condition: () async throws -> Bool) async throws {
            var problem = ""
            for _ in 0..<400 {
                do {
                    try await keeper.look()
                    if try await condition() { return }
                } catch { problem = "\(error)" }
                try await SystemTime().sleep(for: .milliseconds(25))
            }
            Issue.record("not within 10 s: \(what); \(problem)")
        }

        func limits() async throws -> [Int: Int] {
            guard let process = try await control.process() else { return [:] }
            return try await control.limits(process, datapath: "dummy")
        }
    }

    @Test("S18: limits follow ports, zones and restarts of the switch; its outages are counted")
    func s18LimitsFollowTheSwitch() async throws {
        let ovs = try Switch()
        defer { do { try ovs.end() } catch { Issue.record(error) } }
        let threads = WorkerThreads(name: "switch", count: 1)
        let agent = Agent(ovs, limit: 500, threads: threads)
        let session = Task { await agent.client.run() }
        defer { session.cancel() }
        try await agent.client.waitUntilConnected()
        #expect(await agent.keeper.report.datapath == "dummy")

        try ovs.vsctl([
            "add-port", "br-int", "tap1", "--", "set", "Interface", "tap1", "type=dummy", "external_ids:iface-id=port-a",
            "--", "set", "Bridge", "br-int", "external_ids:ct-zone-port-a=7", "external_ids:ct-zone-router_snat=8",
        ])
        try await agent.look(until: "the port is limited") { try await agent.limits() == [7: 500] }
        // The zone goes to a router, the port gets another one.
        try ovs.vsctl(["set", "Bridge", "br-int", "external_ids:ct-zone-port-a=9", "external_ids:ct-zone-router_snat=7"])
        try await agent.look(until: "the limit has moved") { try await agent.limits() == [9: 500] }

        ovs.kill()
        try await agent.look(until: "the switch is away") { await agent.keeper.report.outages?.isAway == true }
        try ovs.start()
        try await agent.look(until: "the limit is there again") { try await agent.limits() == [9: 500] }
        let report = await agent.keeper.report
        #expect(report.outages?.count == 1 && report.outages?.isAway == false)
        #expect((report.outages?.lasted ?? .zero) > .zero)

        // The next agent knows the limit, and removes it if none is configured.
        let next = Agent(ovs, limit: 0, threads: threads)
        let nextSession = Task { await next.client.run() }
        defer { nextSession.cancel() }
        try await next.client.waitUntilConnected()
        try await next.look(until: "no limit is left") { try await next.limits() == [:] }
        #expect(await next.keeper.report.outages?.count == 1)
    }
}
