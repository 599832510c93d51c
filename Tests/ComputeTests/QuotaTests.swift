import ComputeCore
import Database
import Inspections
import JSON
import Kernel
import Logging
import TestKit
import Testing

@testable import ComputeService

/// The use of quotas is what is there.
@Suite struct QuotaTests {
    @Test func everyQuotaIsCounted() async throws {
        try await TestCloud.with { cloud in
            _ = try await cloud.createServer()
            let group: JSONValue = ["server_group": ["name": "g", "policy": "affinity"]]
            #expect(try await cloud.call("POST", "/v2.1/os-server-groups", group).status == 200)
            #expect(try await cloud.call("POST", "/v2.1/os-keypairs", ["keypair": ["name": "k"]], version: "2.1").status == 200)
            #expect(try await QuotaChecks.problems(ComputeQuotas.all, cloud.database) == [])
        }
    }

    /// The use of key pairs is that of users.
    @Test func aWrongLedgerIsCountedAgain() async throws {
        try await TestCloud.with { cloud in
            #expect(try await cloud.call("POST", "/v2.1/os-keypairs", ["keypair": ["name": "k"]], version: "2.1").status == 200)
            _ = try await cloud.database.write { try $0.execute("UPDATE quota_usages SET used = 7 WHERE resource = 'compute:key_pairs'") }
            let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let count = try await Repairs.recount(ComputeQuotas.all, service: "compute", cloud.database, at: Ambient().now, log)
            #expect(count == 1)
            #expect(try await QuotaChecks.problems([ComputeQuotas.keyPairs], cloud.database) == [])
        }
    }

    /// What is not counted cannot be taken: nobody would put its ledger right.
    @Test func whatIsNotCountedCannotBeTaken() async throws {
        try await TestCloud.with { cloud in
            await #expect(throws: ResourceError.self) {
                try await cloud.database.write {
                    try ComputeQuota.make().reserve($0, project: "p1", [(ComputeQuotas.metadataItems, 1)])
                }
            }
            await #expect(throws: ResourceError.self) {
                try await cloud.database.write {
                    try ComputeQuota.make().reserve($0, project: "p1", [(ComputeQuotas.keyPairs, 1), (ComputeQuotas.instances, 1)])
                }
            }
        }
    }
}
