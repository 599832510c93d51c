import Foundation
import JSON
import Kernel
import Libvirt
import OVSDB
import Synchronization
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

extension OnARealHost {
    /// Failures of a real host.
    @Suite(.serialized) struct AgentTroubleTests {
        private static func id(_ number: Int) -> String { UUID128(high: 0x2222_2222_0000_0000, low: UInt64(number)).description }

        private func server(_ number: Int, image: String = TestImages.talking, _ changes: JSONObject = [:]) throws -> DesiredServer {
            var document: JSONObject = [
                "id": .string(AgentTroubleTests.id(number)), "ports": [], "memory_mb": 32, "root_gb": 0,
                "image": ["id": .string(image), "disk_format": "raw", "size": 1_048_576, "properties": [:]],
            ]
            for (name, value) in changes.members { document[name] = value }
            return try Fixture.server(document)
        }

        private func remove(_ agent: TestAgent, _ number: Int) async throws {
            try await agent.fleet.ensure(try server(number, ["generation": 99, "power": "absent"]))
            _ = try await agent.waitForReport(AgentTroubleTests.id(number)) { $0.power == "absent" && $0.state == "applied" }
        }

        @Test func aGuestThatStopsItselfIsReportedAndLeft() async throws {
            let host = try await PrivateHost.shared.value
            let agent = try await TestAgent(host, state: host.directory + "/self")
            let id = AgentTroubleTests.id(1)
            try await agent.fleet.ensure(try server(1, image: TestImages.stopping))
            _ = try await agent.waitForReport(id) { $0.power == "shutoff" && $0.state == "applied" }
            try await SystemTime().sleep(for: .seconds(2))
            #expect(try host.emulatorPID(id) == nil)
            try await remove(agent, 1)
            await agent.stop()
        }

        @Test("S18: the agent removes the capability with which a guest could crash a userspace switch")
        func theUserspaceDatapathLosesZeroSNAT() async throws {
            let host = try await PrivateHost.shared.value
            let agent = try await TestAgent(host, state: host.directory + "/datapath")
            try await agent.switchDatabase.transact([
                .insert(
                    table: "Datapath", row: ["capabilities": OVSDBValue(["ct_zero_snat": "true", "ct_flush": "true"])],
                    name: "datapath"),
                .mutate(
                    table: "Open_vSwitch", where: [],
                    mutations: [.insert("datapaths", .map([.string("netdev"): .namedUUID("datapath")]))]),
            ])
            func capabilities() async -> [String?] {
                await agent.switchDatabase.rows("Datapath").values.map { $0["capabilities"]?["ct_zero_snat"] }
            }
            for _ in 0..<1000 where await capabilities() != ["false"] { try await SystemTime().sleep(for: .milliseconds(50)) }
            #expect(await capabilities() == ["false"])
            #expect(await agent.switchDatabase.rows("Datapath").values.first?["capabilities"]?["ct_flush"] == "true")
            await agent.stop()
        }

        @Test func aKilledEmulatorIsStartedAgain() async throws {
            let host = try await PrivateHost.shared.value
            let agent = try await TestAgent(host, state: host.directory + "/crash")
            let id = AgentTroubleTests.id(2)
            try await agent.fleet.ensure(try server(2))
            _ = try await agent.waitForReport(id) { $0.power == "running" }
            let pid = try #require(try host.emulatorPID(id))
            kill(pid, SIGKILL)
            _ = try await agent.waitForReport(id) { $0.power == "crashed" && $0.state == "failed" }
            for _ in 0..<2000 where try host.emulatorPID(id) == nil { try await SystemTime().sleep(for: .milliseconds(50)) }
            let next = try #require(try host.emulatorPID(id))
            #expect(next != pid)
            try await remove(agent, 2)
            await agent.stop()
        }

        @Test func libvirtAndTheSwitchMayRestart() async throws {
            let host = try await PrivateHost.shared.value
            let agent = try await TestAgent(host, state: host.directory + "/restart")
            let id = AgentTroubleTests.id(3)
            guard case .object(var fields) = Fixture.port else { return }
            fields["id"] = .string(SystemRandom().uuid().description)
            fields["network_id"] = .string(SystemRandom().uuid().description)
            let port = JSONValue.object(fields)
            try await agent.fleet.ensure(try server(3, ["ports": .array([port])]))
            _ = try await agent.waitForReport(id) { $0.power == "running" }
            let pid = try #require(try host.emulatorPID(id))
            try host.killLibvirt()
            try host.restartSwitch()
            // Requested while all dependencies are unavailable.
            try await agent.fleet.ensure(try server(4))
            try await host.startLibvirt()
            _ = try await agent.waitForReport(AgentTroubleTests.id(4)) { $0.power == "running" && $0.state == "applied" }
            #expect(try host.emulatorPID(id) == pid)
            try await remove(agent, 3)
            try await remove(agent, 4)
            await agent.stop()
        }

        @Test func concurrentRemovalsAreReported() async throws {
            let host = try await PrivateHost.shared.value
            let agent = try await TestAgent(host, state: host.directory + "/twice")
            for number in 100..<140 {
                let gone = try server(number, ["generation": 99, "power": "absent"])
                async let first: Void = agent.fleet.ensure(gone)
                async let second: Void = agent.fleet.ensure(gone)
                _ = try await (first, second)
            }
            for number in 100..<140 {
                _ = try await agent.waitForReport(AgentTroubleTests.id(number), within: 20) {
                    $0.power == "absent" && $0.state == "applied"
                }
            }
            await agent.stop()
        }

        @Test("S24: no server is started from an image with wrong data") func s24_wrongImagesAreRefused() async throws {
            let host = try await PrivateHost.shared.value
            let images = TestImages.all
            let agent = try await TestAgent(host, state: host.directory + "/images-test", images: images)
            func refused(_ number: Int, _ image: JSONValue, _ root: Int = 0) async throws -> String {
                try await agent.fleet.ensure(try server(number, ["image": image, "root_gb": JSONValue(root)]))
                let report = try await agent.waitForReport(AgentTroubleTests.id(number)) { $0.state == "failed" }
                #expect(report["permanent"]?.boolValue == true)
                return report["error"]?.stringValue ?? ""
            }
            let talking = JSONValue.string(TestImages.talking)
            #expect(try await refused(5, ["id": talking, "disk_format": "raw", "properties": [:], "checksum": "00"]).contains("checksum"))
            #expect(try await refused(6, ["id": talking, "disk_format": "qcow2", "properties": [:]]).contains("disk_format is 'qcow2'"))
            #expect(try await refused(7, ["id": talking, "disk_format": "raw", "properties": [:], "size": 1000]).contains("larger"))
            #expect(
                try await refused(8, ["id": .string(Fixture.volumeID), "disk_format": "raw", "properties": [:]]).contains("does not exist"))
            for number in 5...8 { try await remove(agent, number) }
            // Two concurrent requests, one download.
            let before = images.downloads.withLock { $0 }
            async let one: Void = agent.fleet.ensure(try server(1))
            async let two: Void = agent.fleet.ensure(try server(2))
            _ = try await (one, two)
            for number in 1...2 {
                _ = try await agent.waitForReport(AgentTroubleTests.id(number)) { $0.power == "running" }
            }
            #expect(images.downloads.withLock { $0 } == before + 1)
            // However old the images are: disks lie on one of them.
            let used = try await agent.disks.backingFiles()
            #expect(used.count == 1)
            try await agent.images.prune(inUse: used, lifetime: .seconds(-1))
            #expect(used.allSatisfy { Files.exists($0) })
            for number in 1...2 { try await remove(agent, number) }
            try await agent.images.prune(inUse: try await agent.disks.backingFiles(), lifetime: .seconds(-1))
            #expect(used.allSatisfy { !Files.exists($0) })
            await agent.stop()
        }

        /// A server in the list that the agent cannot read must not be treated as missing from the list.
        @Test func aListedServerThatCannotBeReadIsRefused() async throws {
            let host = try await PrivateHost.shared.value
            let agent = try await TestAgent(host, state: host.directory + "/unreadable")
            let id = AgentTroubleTests.id(9)
            try await agent.fleet.ensure(try server(9))
            _ = try await agent.waitForReport(id) { $0.power == "running" && $0.state == "applied" }
            let document: JSONValue = ["id": .string(id), "generation": 5, "epoch": 5, "power": "frozen"]
            try await agent.fleet.sync(
                [], unreadable: [.init(document: document, error: FormError(path: "server.power", problem: "is \"frozen\""))])
            let refusal = try await agent.waitForReport(id) { $0.state == "failed" }
            #expect(refusal["generation"] == 5 && refusal["power_state"] == "running" && refusal["permanent"] == true)
            try await remove(agent, 9)
            #expect(!agent.reports(id).contains { $0.body["unknown"] == true })
            await agent.stop()
        }

        @Test func domainsOfOthersAreReportedAndLeft() async throws {
            let host = try await PrivateHost.shared.value
            let agent = try await TestAgent(host, state: host.directory + "/unknown-guest")
            let unknownGuest = "33333333-0000-0000-0000-000000000001"
            try await agent.hypervisor.define(
                xml: """
                    <domain type='qemu'><name>unknown-guest</name><uuid>\(unknownGuest)</uuid><memory unit='MiB'>16</memory>
                    <os><type arch='x86_64' machine='pc'>hvm</type></os></domain>
                    """)
            let report = try await agent.waitForReport(unknownGuest) { _ in true }
            #expect(report["unknown"]?.boolValue == true)
            try await agent.fleet.sync([])
            try await SystemTime().sleep(for: .seconds(1))
            #expect(try await agent.hypervisor.domain(unknownGuest) != nil)
            try await agent.hypervisor.undefine(unknownGuest)
            await agent.stop()
        }
    }
}
