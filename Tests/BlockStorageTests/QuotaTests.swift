import BlockStorageCore
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
}
