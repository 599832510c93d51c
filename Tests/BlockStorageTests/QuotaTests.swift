import BlockStorageCore
import Database
import Inspections
import JSON
import Kernel
import Logging
import TestKit
import Testing

/// The usage of quotas equals the counted resources.
@Suite struct BlockStorageQuotaTests {
    /// Also while a volume is being extended: its quota is reserved, but its size is still the old one.
    @Test func everyQuotaIsCounted() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            let snapshot = try await cloud.call("POST", "/v3/snapshots", ["snapshot": ["volume_id": .string(id)]])
            #expect(snapshot.status == 202)
            try await cloud.settle()
            #expect(try await QuotaChecks.problems(BlockStorageQuotas.all, cloud.database) == [])
            let extended = try await cloud.create()
            #expect(try await cloud.call("POST", "/v3/volumes/\(extended)/action", ["os-extend": ["new_size": 4]]).status == 202)
            #expect(try await QuotaChecks.problems(BlockStorageQuotas.all, cloud.database) == [])
            #expect(try await cloud.usage()["gigabytes"] == 6)
            let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let count = try await Repairs.recount(
                BlockStorageQuotas.all, service: "block_storage", cloud.database, at: Ambient().now, log)
            #expect(count == 0)
            try await cloud.settle()
            #expect(try await cloud.volume(extended)["size"] == 4)
            #expect(try await QuotaChecks.problems(BlockStorageQuotas.all, cloud.database) == [])
        }
    }

    /// The hosts of its servers extend the disk.
    @Test func aVolumeInUseHasItsNewSizeAtOnce() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            try await cloud.settle()
            let made = try await cloud.volume(id)["size"]?.intValue ?? 0
            _ = try await cloud.database.write { try $0.execute("UPDATE volumes SET status = 'in-use' WHERE id = \(id)::uuid") }
            func extend(to size: Int, _ version: String) async throws -> Int {
                try await cloud.call("POST", "/v3/volumes/\(id)/action", version: version, ["os-extend": ["new_size": JSONValue(size)]])
                    .status
            }
            #expect(try await extend(to: made + 1, "3.41") == 400)
            #expect(try await extend(to: made, "3.42") == 400)
            #expect(try await extend(to: made + 2, "3.42") == 202)
            let volume = try await cloud.volume(id)
            #expect(volume["size"]?.intValue == made + 2 && volume["status"] == "in-use", "\(volume)")
            #expect(try await cloud.usage()["gigabytes"] == made + 2)
        }
    }
}
