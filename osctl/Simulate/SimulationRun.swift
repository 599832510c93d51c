import Client
import Database
import Inspections
import JSON
import Kernel
import ServiceCatalog
import Synchronization

/// One run of `osctl simulate`.
struct SimulationRun: Sendable {
    static let prefix = "sim"
    static let zone = "simulation"

    let layout: CloudLayout
    let client: RESTClient
    let database: Database
    let ambient: Ambient
    let plan: SimulateServers

    /// - Throws: `CloudError`, `ResourceError`.
    func run() async throws -> SimulationReport {
        guard let project = try await client.token().projectID else { throw CloudError("the operator's token is for no project") }
        try await gather(try await announcedHosts(), project: project)
        let restore = try await unlimited(project)
        let body = try await serverBody()
        var report = SimulationReport(hosts: plan.hosts, servers: plan.servers)
        let begun = seconds
        let posted = try await post(body)
        report.requests = posted.times.sorted()
        report.failures = posted.failures
        report.accepted = posted.times.count
        try await waitForServers(report.accepted)
        report.makespan = seconds - begun
        try await outcome(into: &report)
        if !plan.keep {
            try await deleteServers()
            try await restore()
            try await dismiss()
        }
        report.findings = try await database.snapshot { connection in
            try Inspection.all.flatMap { try $0.findings(connection) }
        }
        return report
    }

    /// Removes the servers and hosts of an earlier run; the operator's project gets the default quota again.
    ///
    /// - Throws: `CloudError` if other servers run on the simulated hosts.
    func end() async throws {
        let others = try await database.read { connection in
            try connection.query(
                """
                SELECT name FROM servers WHERE host LIKE \(SimulationRun.prefix + "-%") AND name <> 'simulated' \
                AND NOT deleted ORDER BY name
                """
            ).map { try $0.string("name") }
        }
        guard others.isEmpty else {
            let names = others.prefix(5).joined(separator: ", ") + (others.count > 5 ? ", …" : "")
            throw CloudError("\(others.count) servers that no simulation made are on simulated hosts; delete them first: \(names)")
        }
        try await deleteServers()
        if let project = try await client.token().projectID {
            _ = try await client.delete(.compute, "/os-quota-sets/\(project)", missingIsFine: true)
        }
        try await dismiss()
    }

    private var seconds: Double { Double(ambient.time.monotonicNanoseconds()) / 1e9 }

    private func progress(_ text: String) { if !plan.json { Terminal.print(text) } }

    /// Calls `body` every 200 ms until it returns true.
    private func wait(_ what: String, _ body: () async throws -> Bool) async throws {
        let end = seconds + Double(plan.timeout)
        while try await !body() {
            if seconds > end { throw CloudError("\(what): not within \(plan.timeout) s") }
            try await ambient.time.sleep(for: .milliseconds(200))
        }
    }

    private func count(_ sql: String) async throws -> Int {
        try await database.read { try $0.query("\(raw: sql)")[0].int("count") }
    }

    // MARK: hosts

    /// Waits for the hosts; returns their names as announced. Providers of an earlier run may still be in removal.
    private func announcedHosts() async throws -> [String] {
        var names: [String] = []
        var shown = -1
        try await wait("simulated hosts") {
            names = try await database.read { connection in
                try connection.query(
                    """
                    SELECT p.host FROM resource_providers p JOIN compute_services c ON c.host = p.host
                    WHERE p.host LIKE \(SimulationRun.prefix + "-%") AND p.enabled ORDER BY p.host
                    """
                ).map { try $0.string("host") }
            }
            if names.count != shown { progress("hosts \(names.count) of \(plan.hosts)") }
            shown = names.count
            return names.count >= plan.hosts
        }
        return Array(names.prefix(plan.hosts))
    }

    /// Creates an availability zone for the hosts, for the operator's project only.
    private func gather(_ hosts: [String], project: String) async throws {
        let all = try await client.get(.compute, "/os-aggregates")["aggregates"]?.arrayValue ?? []
        var aggregate = all.first { $0["name"]?.stringValue == SimulationRun.zone } ?? .null
        if aggregate == .null {
            aggregate =
                try await client.post(
                    .compute, "/os-aggregates",
                    ["aggregate": ["name": .string(SimulationRun.zone), "availability_zone": .string(SimulationRun.zone)]])["aggregate"]
                ?? .null
        }
        let id = aggregate["id"]?.intValue ?? 0
        _ = try await client.post(
            .compute, "/os-aggregates/\(id)/action", ["set_metadata": ["metadata": ["filter_tenant_id": .string(project)]]])
        let members = Set((aggregate["hosts"]?.arrayValue ?? []).compactMap(\.stringValue))
        try await each(hosts.filter { !members.contains($0) }) { name in
            _ = try await client.post(.compute, "/os-aggregates/\(id)/action", ["add_host": ["host": .string(name)]])
        }
        progress("zone \(SimulationRun.zone) has \(hosts.count) hosts")
    }

    /// Removes the hosts from the control plane.
    private func dismiss() async throws {
        let services = try await client.get(.compute, "/os-services", microversion: "2.53")["services"]?.arrayValue ?? []
        let ours = services.filter { $0["host"]?.stringValue?.hasPrefix(SimulationRun.prefix + "-") ?? false }
        // A host leaves its aggregates with its service; outside of them every project could use it.
        try await each(ours.compactMap { $0["id"]?.stringValue }) { id in
            _ = try await client.delete(.compute, "/os-services/\(id)", microversion: "2.53", missingIsFine: true)
        }
        try await removeChassis()
        let aggregates = try await client.get(.compute, "/os-aggregates")["aggregates"]?.arrayValue ?? []
        guard let id = aggregates.first(where: { $0["name"]?.stringValue == SimulationRun.zone })?["id"]?.intValue else { return }
        _ = try await client.delete(.compute, "/os-aggregates/\(id)", missingIsFine: true)
    }

    /// The hosts' rows in OVN; without removal they would be agents that never answer.
    private func removeChassis() async throws {
        let chosen: JSONValue = ["op": "select", "table": "Chassis", "where": [], "columns": ["name"]]
        let rows = try await southbound([chosen]).first?["rows"]?.arrayValue ?? []
        let names = rows.compactMap { $0["name"]?.stringValue }.filter { $0.hasPrefix(SimulationRun.prefix + "-") }
        guard !names.isEmpty else { return }
        _ = try await southbound(names.map { ["op": "delete", "table": "Chassis", "where": [["name", "==", .string($0)]]] })
    }

    /// - Returns: the result of each operation (RFC 7047 §4.1.3).
    private func southbound(_ operations: [JSONValue]) async throws -> [JSONValue] {
        let transaction = JSONValue.array([.string("OVN_Southbound")] + operations)
        let answer = try await Tool.require(["ovsdb-client", "transact", "unix:" + layout.southboundSocket, transaction.description])
        return try JSONValue.parse(answer).arrayValue ?? []
    }

    // MARK: servers

    private func unlimited(_ project: String) async throws -> @Sendable () async throws -> Void {
        let before = try await client.get(.compute, "/os-quota-sets/\(project)")["quota_set"] ?? .null
        let names = ["instances", "cores", "ram"]
        _ = try await client.put(
            .compute, "/os-quota-sets/\(project)", ["quota_set": ["instances": -1, "cores": -1, "ram": -1]])
        let old = JSONObject(names.map { ($0, before[$0] ?? .null) })
        return { [client] in _ = try await client.put(.compute, "/os-quota-sets/\(project)", ["quota_set": .object(old)]) }
    }

    private func serverBody() async throws -> JSONValue {
        let images = try await client.get(.image, "/images", query: [("name", InitialObjects.imageName)])["images"]?.arrayValue ?? []
        let flavors = try await client.get(.compute, "/flavors")["flavors"]?.arrayValue ?? []
        guard let image = images.first?["id"], let flavor = flavors.first(where: { $0["name"]?.stringValue == "m1.nano" })?["id"] else {
            throw CloudError("the cloud has no image \(InitialObjects.imageName) or no flavor m1.nano")
        }
        return [
            "server": [
                "name": "simulated", "imageRef": image, "flavorRef": flavor, "networks": "none",
                "availability_zone": .string(SimulationRun.zone),
            ]
        ]
    }

    /// Waits until the server is built or has failed.
    private func waitForServer(_ id: String) async throws {
        while try await database.read({
            try !$0.query("SELECT 1 AS one FROM servers WHERE id = \(id)::uuid AND vm_state = 'building'").isEmpty
        }) { try await ambient.time.sleep(for: .milliseconds(50)) }
    }

    private func post(_ body: JSONValue) async throws -> (times: [Double], failures: [String: Int]) {
        let times = Mutex<[Double]>([])
        let failures = Mutex<[String: Int]>([:])
        let shown = Mutex(0)
        try await each(Array(0..<plan.servers)) { _ in
            let begun = seconds
            do {
                let answer = try await client.post(.compute, "/servers", body, microversion: "2.37")
                let taken = seconds - begun
                if plan.follow { try await waitForServer(answer["server"]?["id"]?.stringValue ?? "") }
                let done = times.withLock { times in
                    times.append(taken)
                    return times.count
                }
                if done % 1000 == 0, shown.withLock({ $0 != done }) { progress("accepted \(done)") }
            } catch let error as ResourceError {
                failures.withLock { $0["POST: \(error.message)", default: 0] += 1 }
            }
        }
        return (times.withLock { $0 }, failures.withLock { $0 })
    }

    private static let ours = "FROM servers WHERE name = 'simulated' AND NOT deleted"

    private func waitForServers(_ accepted: Int) async throws {
        var shown = -1
        try await wait("servers") {
            let final = try await count("SELECT count(*) \(SimulationRun.ours) AND vm_state IN ('active', 'error') AND task_state IS NULL")
            if final / 1000 != shown / 1000 || shown < 0 { progress("final \(final) of \(accepted)") }
            shown = final
            return final >= accepted
        }
    }

    private func outcome(into report: inout SimulationReport) async throws {
        let (builds, faults) = try await database.read { connection in
            let builds = try connection.query(
                """
                SELECT extract(epoch FROM launched_at - created_at)::text AS seconds \(raw: SimulationRun.ours) \
                AND vm_state = 'active' ORDER BY 1
                """
            )
            let faults = try connection.query(
                """
                SELECT coalesce(fault->>'message', 'no reason given') AS reason, count(*) AS count \
                \(raw: SimulationRun.ours) AND vm_state = 'error' GROUP BY 1
                """
            )
            return (
                try builds.compactMap { try $0.optionalString("seconds").flatMap(Double.init) },
                try faults.map { (try $0.string("reason"), try $0.int("count")) }
            )
        }
        report.builds = builds.sorted()
        for (reason, count) in faults { report.failures[reason, default: 0] += count }
    }

    private func deleteServers() async throws {
        let ids = try await database.read { try $0.query("SELECT id \(raw: SimulationRun.ours)").map { try $0.string("id") } }
        let begun = seconds
        try await each(ids) { id in _ = try await client.delete(.compute, "/servers/\(id)", missingIsFine: true) }
        try await wait("deletion") { try await count("SELECT count(*) \(SimulationRun.ours)") == 0 }
        progress("deleted \(ids.count) in \(Narrator.seconds(seconds - begun))")
    }

    /// Runs at most `concurrency` at a time.
    private func each<Item: Sendable>(_ items: [Item], _ body: @escaping @Sendable (Item) async throws -> Void) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, item) in items.enumerated() {
                if index >= plan.concurrency { try await group.next() }
                group.addTask { try await body(item) }
            }
            try await group.waitForAll()
        }
    }
}
