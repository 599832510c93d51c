import Client
import Database
import Glibc
import Inspections
import JSON
import Kernel
import ServiceCatalog

/// Lets a simulated host fail and return, and compares the state before and after.
struct HostFailureRehearsal: Sendable {
    let layout: CloudLayout
    let client: RESTClient
    let database: Database
    let host: String
    let timeout: Int
    /// Whether to print the progress.
    let tells: Bool

    struct Result: Sendable {
        var downAfter = 0.0
        var upAfter = 0.0
        var restoredAfter = 0.0
        var servers = 0
        var differences: [String] = []

        func document(_ plan: HostFailurePlan) -> JSONValue {
            [
                "plan": plan.document, "servers": JSONValue(servers), "down_after_seconds": .double(downAfter),
                "up_after_seconds": .double(upAfter), "restored_after_seconds": .double(restoredAfter),
                "differences": .array(differences.map { .string($0) }),
            ]
        }
    }

    private var mark: String { layout.silencedHosts + "/" + host }

    /// - Throws: `CloudError` if an expected event does not happen in time.
    func run() async throws -> Result {
        let narrator = Narrator(time: SystemTime())
        var result = Result()
        let before = try await snapshot()
        result.servers = before.keys.count { $0.hasPrefix("server ") }
        let inService = try await HostFailurePlan.ask(client, host).hostsInService
        try Machine.write(mark, "")
        defer { unlink(mark) }
        tell(narrator, "\(host) has failed: it sends no heartbeats, and its servers are off")
        try await wait("the plane's notice of the failure", narrator) {
            try Machine.write(mark, "")
            return try await state() == "down"
        }
        result.downAfter = narrator.elapsed
        tell(narrator, "`osctl compute-service list` says: \(host) is down")
        tell(narrator, "`osctl server show` says of its servers: host_status \(try await hostStatus())")
        try await wait("the scheduler's notice of the failure", narrator) {
            try Machine.write(mark, "")
            return try await HostFailurePlan.ask(client, host).hostsInService < inService
        }
        tell(narrator, "the scheduler places nothing there: \(inService - 1) of \(inService) hosts are in service")
        let comesBack = narrator.elapsed
        let time = try await database.read { try $0.query("SELECT clock_timestamp() AS now")[0].timestamp("now") }
        unlink(mark)
        tell(narrator, "\(host) has its power again")
        try await wait("the host's return", narrator) { try await state() == "up" }
        result.upAfter = narrator.elapsed - comesBack
        tell(narrator, "\(host) is up")
        try await wait("the return of its servers", narrator) { try await countUnseen(since: time) == 0 }
        result.restoredAfter = narrator.elapsed - comesBack
        tell(narrator, "its \(result.servers) servers have been started again and were reported")
        result.differences = HostFailureRehearsal.differences(before, try await snapshot()) + (try await brokenRules())
        if tells { for difference in result.differences { narrator.failed(difference) } }
        if result.differences.isEmpty {
            tell(narrator, "everything is as before: servers, states, allocations; all \(Inspection.all.count) rules hold")
        }
        return result
    }

    private func tell(_ narrator: Narrator, _ text: String) { if tells { narrator.tell(text) } }

    private func wait(_ what: String, _ narrator: Narrator, _ body: @Sendable () async throws -> Bool) async throws {
        _ = try await narrator.wait(what, .seconds(timeout)) { try await body() ? true : nil }
    }

    /// `up` or `down`, according to the API.
    private func state() async throws -> String {
        let services = try await client.get(
            .compute, "/os-services", query: [("host", host), ("binary", "nova-compute")], microversion: "2.53")
        return services["services"]?.arrayValue?.first?["state"]?.stringValue ?? "gone"
    }

    private func hostStatus() async throws -> String {
        let servers = try await client.get(
            .compute, "/servers/detail", query: [("all_tenants", "True"), ("host", host), ("limit", "1")], microversion: "2.96")
        return servers["servers"]?.arrayValue?.first?["host_status"]?.stringValue ?? "(it has none)"
    }

    /// Descriptions, by subject, that must be equal before and after.
    private func snapshot() async throws -> [String: String] {
        try await database.snapshot { connection in
            let servers = try connection.query(
                """
                SELECT 'server ' || id AS subject, concat_ws(', ', vm_state, task_state, 'power ' || power_state, 'on ' || host,
                    (SELECT string_agg(a.resource_class || ' ' || a.used, ' ' ORDER BY a.resource_class)
                     FROM allocations a WHERE a.consumer_id = s.id)) AS words
                FROM servers s WHERE host = \(host) AND NOT deleted
                """)
            let ports = try connection.query(
                """
                SELECT 'port ' || p.id AS subject, p.status AS words FROM ports p JOIN servers s ON s.id::text = p.device_id
                WHERE s.host = \(host) AND NOT s.deleted
                """)
            var known: [String: String] = [:]
            for row in Array(servers) + Array(ports) { known[try row.string("subject")] = try row.string("words") }
            return known
        }
    }

    private static func differences(_ before: [String: String], _ after: [String: String]) -> [String] {
        Set(before.keys).union(after.keys).sorted().filter { before[$0] != after[$0] }.map {
            "\($0) was: \(before[$0] ?? "not there"); is: \(after[$0] ?? "not there")"
        }
    }

    private func countUnseen(since time: Timestamp) async throws -> Int {
        try await database.read { connection in
            try connection.query(
                """
                SELECT count(*) AS count FROM servers WHERE host = \(host) AND NOT deleted AND published_at IS NOT NULL
                    AND power = 'running' AND (observed_at IS NULL OR observed_at < \(time))
                """)[0].int("count")
        }
    }

    private func brokenRules() async throws -> [String] {
        try await database.snapshot { connection in
            try Inspection.all.flatMap { try $0.findings(connection) }.map { "broken: \($0.invariant) \($0.words)" }
        }
    }
}
