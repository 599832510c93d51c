import CDispatch
import Foundation
import JSON
import Kernel
import Libvirt
import OVSDB
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

/// The agent with a real libvirtd, QEMU (translating) and switch database: one agent at a time has the host.
@Suite(.serialized, .timeLimit(.minutes(10))) enum OnARealHost {}

extension OnARealHost {
    @Suite(.serialized) struct AgentTests {
        private struct Place {
            let host: PrivateHost
            let state: String
        }

        private func place(_ name: String) async throws -> Place {
            let host = try await PrivateHost.shared.value
            return Place(host: host, state: "\(host.directory)/\(name)")
        }

        /// Devices are named after these ids, and another test run may be on the same machine.
        private static let portID = SystemRandom().uuid().description
        private static let networkID = SystemRandom().uuid().description

        private var port: JSONValue {
            guard case .object(var port) = Fixture.port else { return .null }
            port["id"] = .string(AgentTests.portID)
            port["network_id"] = .string(AgentTests.networkID)
            return .object(port)
        }

        private static func id(_ number: Int) -> String { "11111111-0000-0000-0000-00000000000\(number)" }

        private func image(_ id: String = TestImages.talking, checksum: String? = nil) -> JSONValue {
            ["id": .string(id), "checksum": JSONValue(checksum), "disk_format": "raw", "size": 1_048_576, "properties": [:]]
        }

        private func server(_ number: Int, _ changes: JSONObject = [:]) throws -> DesiredServer {
            var document: JSONObject = [
                "id": .string(AgentTests.id(number)), "image": image(), "ports": [], "memory_mb": 32, "root_gb": 0,
            ]
            for (name, value) in changes.members { document[name] = value }
            return try Fixture.server(document)
        }

        private func running(_ report: TestAgent.ObservedReportDocument) -> Bool {
            report.power == "running" && report.state == "applied"
        }

        private func eventually(_ what: String, within seconds: Int = 40, _ holds: () async throws -> Bool) async throws {
            for _ in 0..<(seconds * 20) {
                if try await holds() { return }
                try await SystemTime().sleep(for: .milliseconds(50))
            }
            throw ResourceError.internalError("not within \(seconds) s: \(what)")
        }

        // MARK: confinement

        /// The rights of a guest that escaped from its virtual machine: a user without capabilities and without access to other
        /// guests' files and most system calls.
        @Test("S26: QEMU runs as a user of its own, without capabilities, filtered")
        func emulatorsAreConfined() async throws {
            let place = try await place("confined")
            let agent = try await TestAgent(place.host, state: place.state)
            let id = AgentTests.id(9)
            try await agent.fleet.ensure(try server(9, ["config_drive": true]))
            _ = try await agent.waitForReport(id, running)
            let pid = try #require(try place.host.emulatorPID(id))
            // Files in /proc do not report their size.
            let status = String(decoding: try Files.read("/proc/\(pid)/status", offset: 0, count: 8192), as: UTF8.self)
            let fields = Dictionary(
                status.split(separator: "\n").compactMap { line -> (String, String)? in
                    guard let colon = line.firstIndex(of: ":") else { return nil }
                    return (String(line[..<colon]), line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces))
                }, uniquingKeysWith: { first, _ in first })
            let user = try #require(getpwnam("libvirt-qemu")).pointee.pw_uid
            #expect(fields["Uid"]?.split(separator: "\t").allSatisfy { $0 == "\(user)" } == true, "\(fields["Uid"] ?? "")")
            #expect(fields["CapEff"] == "0000000000000000")
            #expect(fields["CapPrm"] == "0000000000000000")
            #expect(fields["Seccomp"] == "2")
            #expect(try place.host.mountNamespace(of: pid) != place.host.mountNamespace(of: try place.host.libvirtPID()))
            var disk = stat()
            #expect(stat(ServerFiles(directory: "\(place.state)/servers/\(id)").root, &disk) == 0 && disk.st_uid == user)
            for directory in ["\(place.state)/servers", "\(place.state)/images"] {
                var information = stat()
                #expect(stat(directory, &information) == 0 && information.st_mode & 0o777 == 0o711, "\(directory)")
            }
            var records = stat()
            #expect(stat("\(place.state)/records", &records) == 0 && records.st_mode & 0o077 == 0)
            await agent.stop()
        }

        // MARK: a server's life

        @Test func removedServersLeaveNoFiles() async throws {
            let place = try await place("life")
            let agent = try await TestAgent(place.host, state: place.state)
            let id = AgentTests.id(1)
            let desired = try server(1, ["ports": .array([port]), "config_drive": true, "ephemeral_gb": 1, "swap_mb": 16])
            try await agent.fleet.ensure(desired)
            let report = try await agent.waitForReport(id, running)
            #expect(report["metadata_ready"]?.boolValue == true)
            #expect(report["generation"]?.intValue == 1)
            let interface = try #require(
                await agent.switchDatabase.rows("Interface").values.first { $0["name"]?.string == desired.ports[0].tapName })
            #expect(interface["external_ids"]?["iface-id"] == AgentTests.portID)
            try await eventually("the guest speaks") {
                try await agent.fleet.consoleLog(id, lines: nil).contains("hello from the guest")
            }
            let figures = try await agent.fleet.diagnostics(id)
            #expect(figures["state"]?.stringValue == "running")
            #expect(figures["num_disks"]?.intValue == 4)
            let own = try await agent.fleet.diagnostics(id, ofHypervisor: true)
            #expect(own["vda_read"]?.intValue ?? 0 > 0 && own["cpu0_time"]?.intValue ?? 0 > 0, "\(own)")
            try await metadataAnswers(agent, desired)

            // A repeated message, an old epoch and an old generation change nothing.
            let pid = try #require(try place.host.emulatorPID(id))
            try await agent.fleet.ensure(desired)
            try await agent.fleet.ensure(try server(1, ["epoch": 0, "generation": 9, "power": "absent"]))
            try await agent.fleet.ensure(try server(1, ["generation": 0, "power": "absent"]))
            _ = try await agent.waitForReport(id, running)
            #expect(try place.host.emulatorPID(id) == pid)
            await agent.stop()

            let gone = try await agentComesBack(place, desired, pid: pid)
            try await gone.fleet.ensure(try server(1, ["epoch": 1, "generation": 2, "power": "absent"]))
            _ = try await gone.waitForReport(id) { $0.power == "absent" }
            #expect(try await gone.hypervisor.domain(id) == nil)
            #expect(!Files.exists(gone.disks.files(id).directory))
            #expect(!Links.exists(desired.ports[0].tapName))
            try await eventually("the switch is empty") {
                await gone.switchDatabase.rows("Interface").values.allSatisfy { $0["name"]?.string == PrivateHost.bridge }
            }
            // A late message does not recreate it.
            try await gone.fleet.ensure(desired)
            #expect(try await gone.hypervisor.domain(id) == nil)
            await gone.stop()
        }

        /// A new agent finds the guest as it was, and its metadata answers again.
        private func agentComesBack(_ place: Place, _ desired: DesiredServer, pid: Int32) async throws -> TestAgent {
            let agent = try await TestAgent(place.host, state: place.state)
            let report = try await agent.waitForReport(desired.id, running)
            #expect(report["metadata_ready"]?.boolValue == true)
            #expect(try place.host.emulatorPID(desired.id) == pid)
            return agent
        }

        /// Sends a request like the guest, from the other end of the metadata port's cable.
        private func metadataAnswers(_ agent: TestAgent, _ desired: DesiredServer) async throws {
            let runner = CommandRunner(threads: WorkerThreads(name: "test", count: 1))
            let end = desired.ports[0].metadataPort?.id
            let row = await agent.switchDatabase.rows("Interface").values
                .first { $0["external_ids"]?["iface-id"] == end }
            let device = try #require(row?["name"]?.string)
            func ask(_ path: String) async throws -> String {
                try await runner.run([
                    "curl", "-s", "--max-time", "5", "--interface", device, "-w", " %{http_code}", "http://169.254.169.254\(path)",
                ])
            }
            try await runner.run(["ip", "address", "add", "10.0.0.5/32", "dev", device])
            #expect(try await ask("/latest/meta-data/local-ipv4") == "10.0.0.5 200")
            #expect(try await ask("/openstack/latest/user_data") == "#!/bin/sh\n 200")
            #expect(try await ask("/etc/passwd").hasSuffix(" 404"))
            // A client whose address belongs to no server gets no metadata.
            try await runner.run(["ip", "address", "del", "10.0.0.5/32", "dev", device])
            try await runner.run(["ip", "address", "add", "10.0.0.6/32", "dev", device])
            #expect(try await ask("/latest/meta-data/local-ipv4").hasSuffix(" 404"))
            try await runner.run(["ip", "address", "del", "10.0.0.6/32", "dev", device])
        }

        @Test func powerFollowsTheDesire() async throws {
            let place = try await place("power")
            let agent = try await TestAgent(place.host, state: place.state)
            let id = AgentTests.id(2)
            func want(_ generation: Int, _ changes: JSONObject) async throws {
                var all = changes
                all["generation"] = JSONValue(generation)
                try await agent.fleet.ensure(try server(2, all))
            }
            func reached(_ generation: Int, _ power: String) async throws -> JSONValue {
                try await agent.waitForReport(id) {
                    $0.power == power && $0.state == "applied" && $0.body["generation"]?.intValue == generation
                }
            }
            try await want(1, [:])
            _ = try await reached(1, "running")
            try await want(2, ["power": "paused"])
            _ = try await reached(2, "paused")
            try await want(3, ["power": "running"])
            _ = try await reached(3, "running")
            // This guest does not support ACPI: it is stopped after the timeout.
            try await want(4, ["power": "shutoff"])
            _ = try await reached(4, "shutoff")
            #expect(try place.host.emulatorPID(id) == nil)
            try await want(5, ["power": "running"])
            _ = try await reached(5, "running")
            let before = try #require(try place.host.emulatorPID(id))
            try await want(6, ["operation": ["id": "op-1", "kind": "reboot-hard"]])
            let report = try await reached(6, "running")
            #expect(report["operation_id"]?.stringValue == "op-1")
            let after = try #require(try place.host.emulatorPID(id))
            #expect(after != before)
            try await want(7, ["operation": ["id": "op-1", "kind": "reboot-hard"]])
            _ = try await reached(7, "running")
            #expect(try place.host.emulatorPID(id) == after)
            try await want(8, ["power": "suspended"])
            _ = try await reached(8, "suspended")
            try await want(9, ["power": "running"])
            _ = try await reached(9, "running")
            try await want(10, ["power": "absent"])
            _ = try await reached(10, "absent")
            await agent.stop()
        }

        @Test func volumesAndPortsComeToARunningGuest() async throws {
            let place = try await place("devices")
            let agent = try await TestAgent(place.host, state: place.state)
            let id = AgentTests.id(3)
            try await agent.fleet.ensure(try server(3))
            _ = try await agent.waitForReport(id, running)
            let path = place.state + "/one.raw"
            try Files.replace(path, with: [UInt8](repeating: 0, count: 1 << 20))
            guard case .object(var volume) = Fixture.volume else { return }
            volume["connection"] = ["driver": "file", "path": .string(path), "format": "raw"]
            try await agent.fleet.ensure(
                try server(3, ["generation": 2, "volumes": [.object(volume)], "ports": .array([port])]))
            _ = try await agent.waitForReport(id) { running($0) && $0.body["generation"]?.intValue == 2 }
            var observed = ObservedDomain(power: .running)
            try observed.readDevices(xml: try await agent.hypervisor.xml(id))
            #expect(observed.disks.contains { $0.target == "vdb" && $0.serial == Fixture.volumeID })
            #expect(observed.interfaces.count == 1)
            try observed.readDevices(xml: try await agent.hypervisor.xml(id, inactive: true))
            #expect(observed.disks.count == 2)
            // The volume is extended while the guest runs, and while it is off.
            volume["size_gb"] = 1
            try await agent.fleet.ensure(try server(3, ["generation": 3, "volumes": [.object(volume)], "ports": .array([port])]))
            _ = try await agent.waitForReport(id) { running($0) && $0.body["generation"]?.intValue == 3 }
            #expect(try await agent.hypervisor.diskSize(id, disk: "vdb") == 1 << 30)
            #expect(Files.size(path) == 1 << 30)
            try await agent.fleet.ensure(
                try server(3, ["generation": 4, "power": "shutoff", "volumes": [.object(volume)], "ports": .array([port])]))
            _ = try await agent.waitForReport(id) { $0.power == "shutoff" && $0.body["generation"]?.intValue == 4 }
            volume["size_gb"] = 2
            try await agent.fleet.ensure(try server(3, ["generation": 5, "volumes": [.object(volume)], "ports": .array([port])]))
            _ = try await agent.waitForReport(id) { running($0) && $0.body["generation"]?.intValue == 5 }
            #expect(try await agent.hypervisor.diskSize(id, disk: "vdb") == 2 << 30)
            try await agent.fleet.ensure(try server(3, ["generation": 6, "power": "absent"]))
            _ = try await agent.waitForReport(id) { $0.power == "absent" }
            #expect(Files.exists(path))
            await agent.stop()
        }
    }
}
