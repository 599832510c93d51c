import Contracts
import Foundation
import JSON
import Kernel
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

@Suite struct VolumeCopyRulesTests {
    private func job(path: String, format: String = "raw") -> JSONValue {
        [
            "id": .string(SystemRandom().uuid().description), "kind": "copy-volumes",
            "copies": [
                "quiesce": "never",
                "volumes": [["id": .string(Fixture.volumeID), "path": .string(path), "format": .string(format), "size_gb": 1]],
            ],
        ]
    }

    /// A job can only create unfinished files.
    @Test("S7: paths and formats of copies are checked") func s7Paths() throws {
        #expect(try Fixture.server(["jobs": [job(path: "/volumes/snapshot-1.part")]]).jobs.count == 1)
        for path in ["volumes/snapshot-1.part", "/etc/passwd", "/volumes/../etc/x.part", "/volumes/a\u{0}.part", ""] {
            #expect(throws: FormError.self) { try Fixture.server(["jobs": [job(path: path)]]) }
        }
        #expect(throws: FormError.self) { try Fixture.server(["jobs": [job(path: "/volumes/s.part", format: "vmdk")]]) }
    }

    @Test func recordsKeepTheFilesOfJobs() throws {
        var record = LocalServerRecord(serverID: SystemRandom().uuid().description)
        record.jobs = [LocalJob(id: "a", files: ["/volumes/snapshot-1.part"])]
        #expect(try LocalServerRecord(document: record.document) == record)
    }
}

extension OnARealHost {
    @Suite(.serialized) struct VolumeCopyTests {
        private let jobID = SystemRandom().uuid().description

        private func state(_ report: TestAgent.ObservedReportDocument) -> String? {
            report.body["jobs"]?.arrayValue?.first { $0["id"] == .string(jobID) }?["state"]?.stringValue
        }

        /// A raw volume of 1 GiB that begins with the header of a qcow2 disk, as a guest can write it.
        private func makeVolume(_ path: String) throws {
            try Files.replace(path, with: [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3] + Array("content".utf8))
            let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
            try file.truncate(atOffset: 1 << 30)
            try file.close()
        }

        private func check(_ path: String) throws {
            #expect(Files.size(path) == 1 << 30)
            let start = try Files.read(path, offset: 0, count: 15)
            #expect(start.prefix(4) == [0x51, 0x46, 0x49, 0xfb] && String(decoding: start.suffix(7), as: UTF8.self) == "content")
        }

        @Test(
            "S7: volumes are copied as raw disks, whatever a guest has written on them", arguments: ["running", "shutoff"])
        func s7VolumesAreCopied(power: String) async throws {
            let host = try await PrivateHost.shared.value
            let place = "\(host.directory)/volume-copy-\(power)"
            let agent = try await TestAgent(host, state: place, uploads: TestUploads())
            let id = power == "running" ? "33333333-0000-0000-0000-000000000001" : "33333333-0000-0000-0000-000000000002"
            let directory = "\(host.directory)/copied-\(power)"
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            defer { try? FileManager.default.removeItem(atPath: directory) }
            let (source, target) = ("\(directory)/volume-1", "\(directory)/snapshot-1.part")
            try makeVolume(source)
            guard case .object(var volume) = Fixture.volume else { return }
            volume["connection"] = ["driver": "file", "path": .string(source), "format": "raw", "read_only": false]
            func server(_ generation: Int, jobs: [JSONValue] = [], power: String) throws -> DesiredServer {
                try Fixture.server([
                    "id": .string(id), "generation": JSONValue(generation), "power": .string(power), "ports": [], "memory_mb": 32,
                    "root_gb": 1, "jobs": .array(jobs), "volumes": [.object(volume)],
                    "image": [
                        "id": .string(TestImages.talking), "checksum": nil, "disk_format": "raw", "size": 1_048_576, "properties": [:],
                    ],
                ])
            }
            try await agent.fleet.ensure(try server(1, power: "running"))
            _ = try await agent.waitForReport(id) { $0.power == "running" && $0.state == "applied" }
            let copies: JSONValue = [
                "quiesce": "never",
                "volumes": [["id": .string(Fixture.volumeID), "path": .string(target), "format": "raw", "size_gb": 1]],
            ]
            let job: JSONValue = ["id": .string(jobID), "kind": "copy-volumes", "copies": copies]
            try await agent.fleet.ensure(try server(2, jobs: [job], power: power))
            let report = try await agent.waitForReport(id) { ["done", "failed"].contains(state($0)) }
            #expect(report["jobs"]?.arrayValue?.first?["state"] == "done", "\(report)")
            try check(target)
            // A completed copy belongs to the control plane and is not removed.
            try await agent.fleet.ensure(try server(3, power: power))
            _ = try await agent.waitForReport(id) { $0.body["generation"] == 3 && $0.state == "applied" && $0.body["jobs"] == nil }
            try check(target)
            try await agent.fleet.ensure(try server(4, power: "absent"))
            _ = try await agent.waitForReport(id) { $0.power == "absent" }
            await agent.stop()
        }
    }
}
