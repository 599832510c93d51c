import Contracts
import Foundation
import JSON
import Kernel
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

/// Disks that come from another host.
@Suite struct StaleDiskTests {
    private func server(_ image: String?, power: String = "running") throws -> DesiredServer {
        var document: JSONObject = ["power": .string(power)]
        if let image { document["disk_sources"] = [["disk": "root", "image": StaleDiskTests.image(image)]] }
        return try Fixture.server(document)
    }

    static func image(_ id: String) -> JSONValue {
        [
            "id": .string(id), "checksum": nil, "disk_format": "raw", "size": 1_048_576, "disk_gb": 1, "copied": true,
            "properties": [:],
        ]
    }

    private let x = SystemRandom().uuid().description
    private let y = SystemRandom().uuid().description

    @Test func disksOfAnEarlierStayAreNotUsed() throws {
        var record = LocalServerRecord(serverID: SystemRandom().uuid().description)
        #expect(try record.staleDisks(server(x)) == [.root])
        record.diskOrigins = [.root: x]
        #expect(try record.staleDisks(server(x)) == [], "made by an attempt that was interrupted")
        #expect(try record.staleDisks(server(y)) == [.root])
        #expect(try record.staleDisks(server(nil)) == [], "the server returns to the disks that were kept for it")
        #expect(try record.staleDisks(server(nil, power: "expected")) == [.root, .ephemeral])
    }

    @Test func disksThatAGuestMayUseAreNotReplaced() throws {
        var record = LocalServerRecord(serverID: SystemRandom().uuid().description)
        record.appliedGeneration = 4
        #expect(try record.staleDisks(server(x)) == [], "an agent that recorded no origins has made it")
        #expect(try record.staleDisks(server(nil, power: "expected")) == [], "the guest may be arriving")
        record.diskOrigins = [.root: x]
        #expect(try record.staleDisks(server(x)) == [])
        #expect(throws: StaleDisk.self) { try record.staleDisks(server(y)) }
    }

    @Test func recordsKeepOrigins() throws {
        var record = LocalServerRecord(serverID: SystemRandom().uuid().description)
        record.diskOrigins = [.root: "a", .ephemeral: "b"]
        #expect(try LocalServerRecord(document: record.document) == record)
        var older = record.document.objectValue ?? [:]
        older["disk_origins"] = nil
        #expect(try LocalServerRecord(document: .object(older)).diskOrigins.isEmpty)
    }
}

extension OnARealHost {
    @Suite(.serialized) struct MovedDiskTests {
        private let migratedImage = SystemRandom().uuid().description

        private func server(_ id: String, _ generation: Int, _ changes: JSONObject = [:]) throws -> DesiredServer {
            var document: JSONObject = [
                "id": .string(id), "generation": JSONValue(generation), "ports": [], "memory_mb": 32, "root_gb": 1,
                "image": [
                    "id": .string(TestImages.talking), "checksum": nil, "disk_format": "raw", "size": 1_048_576, "properties": [:],
                ],
            ]
            for (name, value) in changes.members { document[name] = value }
            return try Fixture.server(document)
        }

        private func agent(_ name: String, _ images: [String: [UInt8]]) async throws -> (agent: TestAgent, state: String) {
            let host = try await PrivateHost.shared.value
            let state = "\(host.directory)/\(name)"
            return (try await TestAgent(host, state: state, images: TestImages(images)), state)
        }

        private func backing(_ agent: TestAgent, _ id: String) throws -> String? {
            let path = agent.disks.files(id).root
            return OwnDisk.backingFile(prefix: try Files.read(path, offset: 0, count: min(Files.size(path) ?? 0, OwnDisk.prefixLength)))
        }

        /// The first host still has the disk of the earlier stay when the server comes back with another one.
        @Test func aServerThatComesBackHasTheDiskThatItHasNow() async throws {
            let (agent, state) = try await agent(
                "moved-back", [TestImages.talking: TestImages.bytes, migratedImage: TestImages.bytes.map { $0 == 0x68 ? 0x48 : $0 }])
            let id = SystemRandom().uuid().description
            try await agent.fleet.ensure(try server(id, 1))
            _ = try await agent.waitForReport(id) { $0.power == "running" && $0.state == "applied" }
            #expect(try backing(agent, id) != nil, "the first disk is based on its image")
            try await agent.fleet.ensure(try server(id, 2, ["power": "absent", "keep_disks": true]))
            _ = try await agent.waitForReport(id) { $0.power == "absent" }
            #expect(Files.exists(agent.disks.files(id).root))
            let back: JSONObject = ["disk_sources": [["disk": "root", "image": StaleDiskTests.image(migratedImage)]]]
            try await agent.fleet.ensure(try server(id, 3, back))
            _ = try await agent.waitForReport(id) { $0.power == "running" && $0.state == "applied" && $0.body["generation"] == 3 }
            #expect(try backing(agent, id) == nil, "the disk is a copy of the one that came")
            let cached = try Files.list("\(state)/images")
            #expect(cached.contains { $0.hasPrefix(TestImages.talking) })
            #expect(!cached.contains { $0.hasPrefix(migratedImage) }, "the copy in the cache is gone: \(cached)")

            try await agent.fleet.ensure(try server(id, 4, ["power": "absent"]))
            _ = try await agent.waitForReport(id) { $0.power == "absent" && $0.body["generation"] == 4 }
            await agent.stop()
        }

        /// The image of the server's disk is gone; all of its content comes from the other host.
        @Test func aCopiedDiskIsExpectedWithoutItsImage() async throws {
            let (agent, _) = try await agent("expected-copy", [:])
            for (rootGiB, size) in [(2, 2 << 30), (0, 1 << 30)] {
                let id = SystemRandom().uuid().description
                let changes: JSONObject = [
                    "power": "expected", "root_gb": JSONValue(rootGiB), "image": StaleDiskTests.image(migratedImage),
                ]
                try await agent.fleet.ensure(try server(id, 1, changes))
                let report = try await agent.waitForReport(id) { $0.body["generation"] == 1 }
                #expect(report["state"] == "applied" && report["endpoint"] ?? .null != .null, "\(report)")
                let prefix = try Files.read(agent.disks.files(id).root, offset: 0, count: 512)
                #expect(OwnDisk.size(prefix: prefix) == size)
                try await agent.fleet.ensure(try server(id, 2, ["power": "absent"]))
                _ = try await agent.waitForReport(id) { $0.power == "absent" }
            }
            await agent.stop()
        }
    }
}
