import ImageCore
import TestKit
import Testing

/// The usage of quotas equals the counted resources.
@Suite struct ImageQuotaTests {
    @Test func everyQuotaIsCounted() async throws {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create()
            _ = try await cloud.create()
            #expect(try await cloud.upload(id, Array(repeating: 0, count: (1 << 20) + 1)).status == 204)
            #expect(try await QuotaChecks.problems(ImageQuotas.all, cloud.database) == [])
        }
    }
}
