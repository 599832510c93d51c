import ComputeCore
import Database
import Inspections
import JSON
import Kernel
import Logging
import TestKit
import Testing
import WebAPI

@testable import ComputeService

/// The usage of quotas equals the counted resources.
@Suite struct ComputeQuotaTests {
    @Test func everyQuotaIsCounted() async throws {
        try await TestCloud.with { cloud in
            _ = try await cloud.createServer()
            let group: JSONValue = ["server_group": ["name": "g", "policy": "affinity"]]
            #expect(try await cloud.call("POST", "/v2.1/os-server-groups", group).status == 200)
            #expect(try await cloud.call("POST", "/v2.1/os-keypairs", ["keypair": ["name": "k"]], version: "2.1").status == 200)
            #expect(try await QuotaChecks.problems(ComputeQuotas.all, cloud.database) == [])
        }
    }

    /// The usage of key pairs belongs to users.
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

    /// A quota without a count cannot be reserved, because nothing would correct its ledger.
    @Test func uncountedQuotasCannotBeReserved() async throws {
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
