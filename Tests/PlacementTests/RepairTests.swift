import ComputeCore
import Database
import Inspections
import JSON
import Kernel
import Logging
import ServiceCatalog
@testable import PlacementService
import TestKit
import Testing

/// Manual changes of allocations are found, repaired and recorded.
@Suite struct RepairTests {
    /// Three servers with one VCPU on two hosts, placed by the scheduler.
    private func with(_ body: (PlacementBench, _ servers: [UUID128]) async throws -> Void) async throws {
        try await PlacementBench.with { bench in
            for name in ["h1", "h2"] { try await bench.addHost(name) }
            let servers = (0..<3).map { _ in SystemRandom().uuid() }
            for server in servers {
                try await bench.test.database.write { connection in
                    try PlacementSchedulingTests.addServer(connection, server)
                    try connection.execute(
                        "UPDATE servers SET flavor = '{\"vcpus\": 1, \"ram\": 512, \"disk\": 1, \"extra_specs\": {}}', image = '{}' WHERE id = \(server)"
                    )
                }
                let answer = try await bench.placement.schedule(wanted(server))
                let host = answer["host"]?.stringValue
                try await bench.test.database.write {
                    _ = try $0.execute("UPDATE servers SET host = \(host), vm_state = 'active' WHERE id = \(server)")
                }
                // According to the flavor, regardless of the request.
                try await bench.placement.restoreAllocations()
            }
            try await bench.test.database.write { _ = try $0.execute("DELETE FROM repairs") }
            try await body(bench, servers)
        }
    }

    private func allocations(_ bench: PlacementBench) async throws -> [String] {
        try await bench.test.database.read { connection in
            try connection.query(
                "SELECT consumer_id || ' ' || resource_provider_id || ' ' || resource_class || ' ' || used AS line FROM allocations ORDER BY 1"
            ).map { try $0.string("line") }
        }
    }

    private func run(_ bench: PlacementBench, _ sql: String) async throws {
        try await bench.test.database.write { _ = try $0.execute("\(raw: sql)") }
    }

    @Test(arguments: [
        ("DELETE FROM allocations", "does not hold its VCPU 1", 3),
        ("DELETE FROM consumers", "does not hold its MEMORY_MB 512", 3),
        ("DELETE FROM allocations WHERE resource_class = 'DISK_GB'", "does not hold its DISK_GB 1", 3),
        ("UPDATE allocations SET used = 3 WHERE resource_class = 'VCPU'", "holds 3 instead of 1 VCPU", 3),
        (
            """
            INSERT INTO allocations SELECT a.consumer_id, p.id, a.resource_class, a.used, now(), now()
            FROM allocations a JOIN resource_providers p ON p.id <> a.resource_provider_id
            """, "which it should not", 3
        ),
        (
            "UPDATE allocations a SET resource_provider_id = (SELECT id FROM resource_providers p WHERE p.id <> a.resource_provider_id)",
            "does not hold its VCPU 1", 3
        ),
    ])
    func handsOnAllocationsAreUndone(_ case: (sql: String, words: String, count: Int)) async throws {
        try await with { bench, _ in
            let before = try await allocations(bench)
            #expect(before.count == 9)
            #expect(try await bench.placement.restoreAllocations() == [])
            try await run(bench, `case`.sql)
            let findings = try await bench.placement.restoreAllocations()
            #expect(findings.count == `case`.count)
            #expect(findings.allSatisfy { $0.words.contains(`case`.words) }, "\(findings.map(\.words))")
            #expect(try await allocations(bench) == before)
            #expect(try await bench.placement.restoreAllocations() == [])
            let entries = try await bench.test.database.read { try Repairs.entries($0, since: Timestamp(microseconds: 0)) }
            #expect(entries.map(\.words).sorted() == findings.map(\.words).sorted())
            #expect(entries.allSatisfy { $0.service == "placement" })
        }
    }

    @Test func repairSkipsServersWithAWorkflow() async throws {
        try await with { bench, servers in
            try await run(
                bench,
                """
                INSERT INTO workflows (id, service, kind, subject_id, step, run_at, created_at, updated_at)
                VALUES ('\(servers[0])', 'compute', 'server.delete', '\(servers[0])', 'absent', now(), now(), now())
                """)
            try await run(bench, "DELETE FROM allocations WHERE consumer_id = '\(servers[0])'")
            #expect(try await bench.placement.restoreAllocations() == [])
            try await run(bench, "UPDATE workflows SET state = 'failed', finished_at = now()")
            #expect(try await bench.placement.restoreAllocations().map(\.subject) == [servers[0].description])
        }
    }

    @Test func restoredAllocationsCountForScheduling() async throws {
        try await with { bench, servers in
            try await run(bench, "DELETE FROM consumers")
            try await bench.placement.restoreAllocations()
            // Eight VCPUs in total, three of them allocated.
            let results = try await (0..<6).asyncMap { _ in
                try await bench.placement.schedule(wanted(SystemRandom().uuid()))["result"]?.stringValue
            }
            #expect(results.count { $0 == "scheduled" } == 5)
        }
    }

    @Test func theLedgerIsCountedAgain() async throws {
        try await with { bench, _ in
            try await run(bench, "INSERT INTO quota_usages VALUES ('p1', 'compute:instances', 7), ('p9', 'compute:cores', 2)")
            let log = Logger(label: "test")
            let count = try await Repairs.recount(ComputeQuotas.all, service: "compute", bench.test.database, at: Ambient().now, log)
            // Instances, cores and memory of p1, cores of p9.
            #expect(count == 4)
            let left = try await bench.test.database.read { connection in
                try connection.query("SELECT project_id || ' ' || resource || ' ' || used AS line FROM quota_usages ORDER BY 1")
                    .map { try $0.string("line") }
            }
            #expect(left == ["p1 compute:cores 3", "p1 compute:instances 3", "p1 compute:ram 1536", "p9 compute:cores 0"])
        }
    }
}

extension Sequence {
    fileprivate func asyncMap<Value>(_ body: (Element) async throws -> Value) async rethrows -> [Value] {
        var values: [Value] = []
        for element in self { values.append(try await body(element)) }
        return values
    }
}
