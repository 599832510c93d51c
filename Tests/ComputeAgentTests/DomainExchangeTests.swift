import Contracts
import Foundation
import JSON
import Kernel
import Libvirt
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

/// Volumes that take the place of others under a running guest.
@Suite struct DomainExchangeTests {
    private static let other = "aaaaaaaa-0000-0000-0000-000000000002"
    private static let jobID = "99999999-0000-0000-0000-000000000001"

    private static func volume(_ id: String, _ path: String, device: String = "vdb") -> JSONValue {
        [
            "volume_id": .string(id), "attachment_id": .string(id), "device": .string(device), "boot_index": nil,
            "connection": ["driver": "file", "path": .string(path), "format": "raw", "read_only": false],
        ]
    }

    private static let job: JSONValue = [
        "id": .string(jobID), "kind": "swap-volume",
        "swap": ["volume_id": .string(Fixture.volumeID), "replacement": volume(other, "/srv/volumes/two.raw"), "size_gb": 2],
    ]

    private func xml(_ source: String, mirror: String = "") -> String {
        """
        <domain><devices><disk type='file'><source file='\(source)'/><target dev='vdb'/>\(mirror)
        <serial>\(Fixture.volumeID)</serial></disk></devices></domain>
        """
    }

    @Test func theStateIsThatOfTheGuest() throws {
        let server = try Fixture.server(["volumes": [Fixture.volume], "jobs": [DomainExchangeTests.job]])
        let order = try #require(server.jobs.first?.swap)
        let (old, new) = try #require(try server.replacement(order))
        #expect(new.device == old.device && new.path == "/srv/volumes/two.raw")
        func mirror(_ path: String, _ more: String = "") -> String {
            "<mirror type='file' job='copy'\(more)><source file='\(path)'/></mirror>"
        }
        for (xml, state) in [
            (xml("/srv/volumes/one.raw"), DomainExchange.State.untouched), (xml("/srv/volumes/two.raw"), .exchanged),
            (xml("/srv/volumes/one.raw", mirror: mirror("/srv/volumes/two.raw")), .copied(isInSync: false)),
            (xml("/srv/volumes/one.raw", mirror: mirror("/srv/volumes/two.raw", " ready='yes'")), .copied(isInSync: true)),
            (xml("/srv/volumes/one.raw", mirror: mirror("/else", " ready='yes'")), .other),
        ] {
            #expect(try DomainExchange.disk(old, new: "/srv/volumes/two.raw", xml: xml)?.state == state, "\(xml)")
        }
        #expect(try DomainExchange.disk(old, new: "/srv/volumes/two.raw", xml: xml("/else")) == nil)
    }

    /// Until the control plane knows of a swap, the host starts and keeps the guest with the new volume.
    @Test func anExchangeCountsFromItsEnd() throws {
        let server = try Fixture.server(["volumes": [Fixture.volume], "jobs": [DomainExchangeTests.job]])
        var record = LocalServerRecord(serverID: server.id)
        let volume = ExchangedVolume(path: "/srv/volumes/two.raw", format: "raw", bytes: 2 << 30)
        record.jobs = [LocalJob(id: DomainExchangeTests.jobID, exchange: volume)]
        #expect(try server.exchanging(record).volumes.map(\.volumeID) == [Fixture.volumeID])
        #expect(try server.exchanged(try #require(server.jobs.first?.swap)) == record.jobs[0].exchange)
        #expect(!record.jobs[0].holdsGuest)
        record.jobs[0].phase = "synchronized"
        #expect(record.jobs[0].holdsGuest)
        #expect(try LocalServerRecord(document: record.document) == record)
        record.jobs[0].state = .done
        #expect(!record.jobs[0].holdsGuest)
        #expect(try server.exchanging(record).volumes.map(\.volumeID) == [DomainExchangeTests.other])
        #expect(try LocalServerRecord(document: record.document) == record)
    }

    /// The guest sees the serial of the former volume until it starts anew.
    @Test func volumesAreRecognisedByTheirFiles() throws {
        let two = DomainExchangeTests.volume(DomainExchangeTests.other, "/srv/volumes/two.raw")
        func changes(_ volumes: [JSONValue], _ disks: [ObservedDomain.Disk]) throws -> [AgentAction] {
            let server = try Fixture.server(["volumes": .array(volumes), "ports": []])
            var record = LocalServerRecord(serverID: server.id)
            (record.appliedGeneration, record.generation) = (server.generation, server.generation)
            record.desired = server
            return Reconciler.plan(server, observed: ObservedDomain(power: .running, disks: disks), record: record)
        }
        let swapped = ObservedDomain.Disk(target: "vdb", serial: Fixture.volumeID, source: "/srv/volumes/two.raw")
        #expect(try changes([two], [swapped]) == [])
        #expect(try changes([], [swapped]) == [.detachVolume(target: "vdb")])
        // The former volume comes back at another place, and the new one leaves.
        let one = DomainExchangeTests.volume(Fixture.volumeID, "/srv/volumes/one.raw", device: "vdc")
        let back = ObservedDomain.Disk(target: "vdc", serial: Fixture.volumeID, source: "/srv/volumes/one.raw")
        #expect(try changes([two, one], [swapped, back]) == [])
        #expect(try changes([one], [swapped, back]) == [.detachVolume(target: "vdb")])
    }
}

extension OnARealHost {
    @Suite(.serialized) struct SharedAndExchangedVolumeTests {
        private let jobID = SystemRandom().uuid().description
        private static let other = "aaaaaaaa-0000-0000-0000-000000000002"

        private func makeVolume(_ path: String, _ content: String, gib: Int) throws {
            try Files.replace(path, with: Array(content.utf8))
            let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
            try file.truncate(atOffset: UInt64(gib) << 30)
            try file.close()
        }

        private func volume(_ id: String, _ path: String, isShared: Bool = false) -> JSONValue {
            [
                "volume_id": .string(id), "attachment_id": .string(id), "device": "vdb", "boot_index": nil,
                "connection": [
                    "driver": "file", "path": .string(path), "format": "raw", "read_only": false, "multiattach": .bool(isShared),
                ],
            ]
        }

        private func server(
            _ id: String, _ generation: Int, _ volume: JSONValue, jobs: [JSONValue] = [], power: String = "running",
            operation: JSONValue = nil
        ) throws -> DesiredServer {
            try Fixture.server([
                "operation": operation,
                "id": .string(id), "generation": JSONValue(generation), "power": .string(power), "ports": [], "memory_mb": 32,
                "root_gb": 1, "jobs": .array(jobs), "volumes": [volume],
                "image": [
                    "id": .string(TestImages.talking), "checksum": nil, "disk_format": "raw", "size": 1_048_576, "properties": [:],
                ],
            ])
        }

        @Test(arguments: [true, false]) func guestsShareAVolumeIfItMayBeShared(isShared: Bool) async throws {
            let host = try await PrivateHost.shared.value
            let directory = "\(host.directory)/shared-\(isShared)"
            let agent = try await TestAgent(host, state: directory + "/state")
            let path = directory + "/volume-1"
            try makeVolume(path, "content", gib: 1)
            let ids = (1...2).map { "3333333\(isShared ? 5 : 6)-0000-0000-0000-00000000000\($0)" }
            let volume = volume(Fixture.volumeID, path, isShared: isShared)
            try await agent.fleet.ensure(try server(ids[0], 1, volume))
            _ = try await agent.waitForReport(ids[0]) { $0.power == "running" && $0.state == "applied" }
            try await agent.fleet.ensure(try server(ids[1], 1, volume))
            let second = try await agent.waitForReport(ids[1]) { ["applied", "failed"].contains($0.state) }
            #expect(second["state"] == (isShared ? "applied" : "failed"), "\(second)")
            for id in ids {
                try await agent.fleet.ensure(try server(id, 2, volume, power: "absent"))
                _ = try await agent.waitForReport(id) { $0.power == "absent" }
            }
            await agent.stop()
        }

        @Test func aVolumeTakesThePlaceOfAnother() async throws {
            let host = try await PrivateHost.shared.value
            let directory = "\(host.directory)/exchanged"
            let agent = try await TestAgent(host, state: directory + "/state")
            let id = "33333337-0000-0000-0000-000000000001"
            let (old, new) = (directory + "/volume-1", directory + "/volume-2")
            try makeVolume(old, "content", gib: 1)
            try makeVolume(new, "", gib: 2)
            let (first, second) = (volume(Fixture.volumeID, old), volume(SharedAndExchangedVolumeTests.other, new))
            func job(_ id: String, of volume: String = Fixture.volumeID, by other: JSONValue? = nil, completes: Bool?) -> JSONValue {
                var swap: JSONObject = ["volume_id": .string(volume), "replacement": other ?? second, "size_gb": 2]
                if let completes { swap["completes"] = .bool(completes) }
                return ["id": .string(id), "kind": "swap-volume", "swap": .object(swap)]
            }
            func state(_ id: String, _ body: JSONValue) -> JSONValue? {
                body["jobs"]?.arrayValue?.first { $0["id"] == .string(id) }
            }
            try await agent.fleet.ensure(try server(id, 1, first))
            _ = try await agent.waitForReport(id) { $0.power == "running" && $0.state == "applied" }
            let emulator = try host.emulatorPID(id)
            // One that is taken back changes nothing.
            let given = SystemRandom().uuid().description
            try await agent.fleet.ensure(try server(id, 2, first, jobs: [job(given, completes: nil)]))
            _ = try await agent.waitForReport(id) { state(given, $0.body)?["phase"] == "synchronized" }
            try await agent.fleet.ensure(try server(id, 3, first))
            _ = try await agent.waitForReport(id) { $0.body["generation"] == 3 && $0.state == "applied" }
            #expect(try await agent.hypervisor.xml(id, inactive: false).contains(old))
            #expect(try await !agent.hypervisor.xml(id, inactive: false).contains(new))
            try await agent.fleet.ensure(try server(id, 4, first, jobs: [job(jobID, completes: nil)]))
            _ = try await agent.waitForReport(id) { state(jobID, $0.body)?["phase"] == "synchronized" }
            try await agent.fleet.ensure(try server(id, 5, first, jobs: [job(jobID, completes: true)]))
            let done = try await agent.waitForReport(id) { ["done", "failed"].contains(state(jobID, $0.body)?["state"]?.stringValue) }
            #expect(state(jobID, done)?["state"] == "done", "\(done)")
            try await agent.fleet.ensure(try server(id, 6, second))
            _ = try await agent.waitForReport(id) { $0.body["generation"] == 6 && $0.state == "applied" }
            let xml = try await agent.hypervisor.xml(id, inactive: false)
            #expect(xml.contains(new) && !xml.contains(old), "\(xml)")
            // The guest has run on.
            #expect(try host.emulatorPID(id) == emulator)
            #expect(String(decoding: try Files.read(new, offset: 0, count: 7), as: UTF8.self) == "content")
            #expect(Files.size(new) == 2 << 30)
            // A reboot waits for the end of a swap, so that the guest is started with the volume that has all its writes.
            let third = volume(Fixture.volumeID, old)
            let back = SystemRandom().uuid().description
            try makeVolume(old, "", gib: 2)
            let of = SharedAndExchangedVolumeTests.other
            try await agent.fleet.ensure(try server(id, 7, second, jobs: [job(back, of: of, by: third, completes: nil)]))
            _ = try await agent.waitForReport(id) { state(back, $0.body)?["phase"] == "synchronized" }
            let reboot: JSONValue = ["id": .string(SystemRandom().uuid().description), "kind": "reboot-hard"]
            try await agent.fleet.ensure(
                try server(id, 8, second, jobs: [job(back, of: of, by: third, completes: true)], operation: reboot))
            let ended = try await agent.waitForReport(id) { ["done", "failed"].contains(state(back, $0.body)?["state"]?.stringValue) }
            #expect(state(back, ended)?["state"] == "done", "\(ended)")
            try await agent.fleet.ensure(try server(id, 9, third, operation: reboot))
            _ = try await agent.waitForReport(id) { $0.body["generation"] == 9 && $0.state == "applied" }
            #expect(try host.emulatorPID(id) != emulator)
            let rebooted = try await agent.hypervisor.xml(id, inactive: false)
            #expect(rebooted.contains(old) && !rebooted.contains(new), "\(rebooted)")
            #expect(String(decoding: try Files.read(old, offset: 0, count: 7), as: UTF8.self) == "content")
            try await agent.fleet.ensure(try server(id, 10, third, power: "absent"))
            _ = try await agent.waitForReport(id) { $0.power == "absent" }
            await agent.stop()
        }
    }
}
