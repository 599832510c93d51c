import Foundation
import JSON
import Kernel
import Libvirt
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

extension OnARealHost {
    /// Guest hardware with the real libvirt and QEMU.
    @Suite(.serialized) struct HardwareTests {
        private static func id(_ number: Int) -> String { "22222222-0000-0000-0000-00000000000\(number)" }

        private func server(_ number: Int, _ properties: JSONObject, specs: JSONObject = [:], _ changes: JSONObject = [:]) throws
            -> DesiredServer
        {
            var document: JSONObject = [
                "id": .string(HardwareTests.id(number)), "ports": [], "memory_mb": 64, "root_gb": 0, "extra_specs": .object(specs),
                "image": [
                    "id": .string(TestImages.talking), "checksum": nil, "disk_format": "raw", "size": 1_048_576,
                    "properties": .object(properties),
                ],
            ]
            for (name, value) in changes.members { document[name] = value }
            return try Fixture.server(document)
        }

        private func running(_ report: TestAgent.ObservedReportDocument) -> Bool {
            report.power == "running" && report.state == "applied"
        }

        private func eventually(_ what: String, within seconds: Int = 240, _ holds: () async throws -> Bool) async throws {
            for _ in 0..<(seconds * 10) {
                if try await holds() { return }
                try await SystemTime().sleep(for: .milliseconds(100))
            }
            throw ResourceError.internalError("not within \(seconds) s: \(what)")
        }

        private func devices(_ agent: TestAgent, _ number: Int) async throws -> XMLTree {
            try #require(
                try XMLTree.parse(try await agent.hypervisor.xml(HardwareTests.id(number), inactive: false)).child("devices"))
        }

        /// Processors on which the threads of virtual processors may run.
        private func affinities(_ pid: Int32) throws -> Set<String> {
            var found: Set<String> = []
            for thread in try Files.list("/proc/\(pid)/task") {
                let status = String(
                    decoding: try Files.read("/proc/\(pid)/task/\(thread)/status", offset: 0, count: 8192), as: UTF8.self)
                guard status.contains("Name:\tCPU ") else { continue }
                let line = status.split(separator: "\n").first { $0.hasPrefix("Cpus_allowed_list:") }
                found.insert(String(line?.split(separator: "\t").last ?? ""))
            }
            return found
        }

        @Test func aGuestStartsFromEveryBus() async throws {
            let host = try await PrivateHost.shared.value
            let agent = try await TestAgent(host, state: "\(host.directory)/buses")
            for (number, bus) in ["scsi", "sata", "ide", "usb"].enumerated() {
                let id = HardwareTests.id(number)
                try await agent.fleet.ensure(
                    try server(number, ["hw_disk_bus": .string(bus)], ["config_drive": true, "swap_mb": 16]))
                _ = try await agent.waitForReport(id, within: 240, running)
                // The firmware has found the disk.
                try await eventually("the guest speaks from \(bus)") {
                    try await agent.fleet.consoleLog(id, lines: nil).contains("hello from the guest")
                }
                let disks = try await devices(agent, number).all("disk")
                #expect(disks.allSatisfy { $0.child("target")?["bus"] == bus })
                try await agent.fleet.ensure(try server(number, [:], ["power": "absent", "generation": 2]))
                _ = try await agent.waitForReport(id, within: 240) { $0.power == "absent" }
            }
            await agent.stop()
        }

        @Test func libvirtTakesAllDevices() async throws {
            let host = try await PrivateHost.shared.value
            let state = "\(host.directory)/devices"
            let agent = try await TestAgent(host, state: state)
            let id = HardwareTests.id(5)
            let properties: JSONObject = [
                "hw_machine_type": "q35", "hw_disk_bus": "scsi", "hw_video_model": "vga", "hw_video_ram": "16",
                "hw_pointer_model": "usbtablet", "hw_watchdog_action": "reset", "hw_serial_port_count": "2", "hw_boot_menu": "true",
                "hw_time_hpet": "false", "hw_qemu_guest_agent": "true", "img_hide_hypervisor_id": "true",
            ]
            let specs: JSONObject = [
                "hw:tpm_version": "2.0", "hw:tpm_model": "tpm-crb", "hw_rng:rate_bytes": "1024", "quota:disk_total_bytes_sec": "1048576",
                "quota:disk_read_iops_sec": "50", "hw:numa_nodes": "2", "hw:cpu_sockets": "1", "hw_video:ram_max_mb": "16",
            ]
            try await agent.fleet.ensure(try server(5, properties, specs: specs, ["vcpus": 2]))
            _ = try await agent.waitForReport(id, within: 240, running)
            let live = try await devices(agent, 5)
            #expect(live.all("tpm").count == 1 && live.all("watchdog").first?["action"] == "reset" && live.all("serial").count == 2)
            #expect(live.child("disk")?.child("iotune")?.child("total_bytes_sec")?.text == "1048576")
            // The module's state is stored with the disks, and removed with them.
            let files = ServerFiles(directory: "\(state)/servers/\(id)")
            #expect(Files.exists(files.tpm + "/tpm2"))
            try await agent.fleet.ensure(try server(5, properties, specs: specs, ["vcpus": 2, "power": "absent", "generation": 2]))
            _ = try await agent.waitForReport(id, within: 240) { $0.power == "absent" }
            #expect(!Files.exists(files.directory))
            #expect(try Files.list(host.directory + "/lib/swtpm").isEmpty)
            await agent.stop()
        }

        /// libvirt would otherwise create a directory in place of the link, which the server's files do not contain.
        @Test func aModulesStateHasItsPlaceBeforeTheGuestArrives() async throws {
            let host = try await PrivateHost.shared.value
            let state = "\(host.directory)/arrival"
            let agent = try await TestAgent(host, state: state)
            let id = HardwareTests.id(8)
            let specs: JSONObject = ["hw:tpm_version": "2.0"]
            try await agent.fleet.ensure(try server(8, [:], specs: specs, ["power": "expected"]))
            let report = try await agent.waitForReport(id) { $0.body["endpoint"] ?? .null != .null }
            #expect(report["state"] == "applied", "\(report)")
            let link = host.directory + "/lib/swtpm/" + id
            let files = ServerFiles(directory: "\(state)/servers/\(id)")
            #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link) == files.tpm)
            try await agent.fleet.ensure(try server(8, [:], specs: specs, ["power": "absent", "generation": 2]))
            _ = try await agent.waitForReport(id) { $0.power == "absent" }
            #expect(!Files.exists(files.directory) && !Files.exists(link))
            await agent.stop()
        }

        @Test func theFirmwareChecksSignatures() async throws {
            let host = try await PrivateHost.shared.value
            let state = "\(host.directory)/firmware"
            let agent = try await TestAgent(host, state: state)
            let id = HardwareTests.id(6)
            try await agent.fleet.ensure(
                try server(
                    6, ["hw_firmware_type": "uefi", "hw_disk_bus": "sata"], specs: ["os:secure_boot": "required"], ["memory_mb": 128]))
            _ = try await agent.waitForReport(id, within: 240, running)
            // The disk has no boot loader for this firmware, which prints a message about it.
            try await eventually("the firmware speaks") {
                try await agent.fleet.consoleLog(id, lines: nil).contains("BdsDxe")
            }
            #expect(Files.exists(ServerFiles(directory: "\(state)/servers/\(id)").secureNVRAM))
            try await agent.fleet.ensure(try server(6, [:], ["power": "absent", "generation": 2]))
            _ = try await agent.waitForReport(id, within: 240) { $0.power == "absent" }
            await agent.stop()
        }

        @Test func dedicatedProcessorsBelongToOneServerOverRestarts() async throws {
            let host = try await PrivateHost.shared.value
            let state = "\(host.directory)/dedicated"
            let processor = ProcessInfo.processInfo.processorCount - 1
            let first = try await TestAgent(host, state: state, dedicated: [processor])
            let specs: JSONObject = ["hw:cpu_policy": "dedicated"]
            try await first.fleet.ensure(try server(7, [:], specs: specs))
            _ = try await first.waitForReport(HardwareTests.id(7), within: 240, running)
            let pid = try #require(try host.emulatorPID(HardwareTests.id(7)))
            #expect(try affinities(pid) == ["\(processor)"])
            #expect(try await first.fleet.processors(of: HardwareTests.id(7)) == [processor])
            await first.stop()
            // The next process knows the owner of the processor.
            let second = try await TestAgent(host, state: state, dedicated: [processor])
            try await second.fleet.ensure(try server(8, [:], specs: specs))
            let refused = try await second.waitForReport(HardwareTests.id(8), within: 240) { $0.state == "failed" }
            #expect(refused["permanent"]?.boolValue == false)
            #expect(refused["error"]?.stringValue?.contains("dedicated processors") == true, "\(refused)")
            try await second.fleet.ensure(try server(7, [:], specs: specs, ["power": "absent", "generation": 2]))
            _ = try await second.waitForReport(HardwareTests.id(8), within: 240, running)
            #expect(try await second.fleet.processors(of: HardwareTests.id(8)) == [processor])
            try await second.fleet.ensure(try server(8, [:], specs: specs, ["power": "absent", "generation": 2]))
            _ = try await second.waitForReport(HardwareTests.id(8), within: 240) { $0.power == "absent" }
            await second.stop()
        }
    }
}
