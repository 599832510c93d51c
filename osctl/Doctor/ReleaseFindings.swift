import Database
import Inspections
import Kernel
import Schema
import ServiceCatalog

/// I16: the schema and all running processes belong to one release. During an upgrade the rule is violated until the last part
/// has been replaced and the schema has been contracted.
enum ReleaseFindings {
    static let rule = "one release runs, on its own schema"

    /// The current violations.
    static func look(_ connection: Connection, _ ambient: Ambient = Ambient()) throws -> [Finding] {
        let replicas = try Replicas.live(connection, ambient)
        return findings(
            try SchemaState.read(connection), replicas: replicas, unnamed: try Replicas.unnamedSessions(connection),
            agents: try agents(connection, ambient))
    }

    /// - Parameters:
    ///   - unnamed: the number of sessions of processes that do not register.
    ///   - agents: the release of each hypervisor host that is up; nil if its agent does not report one.
    static func findings(
        _ state: SchemaState, replicas: [Replicas.Replica], unnamed: Int, agents: [(host: String, release: String?)],
        migrations: [Migration] = Schema.migrations
    ) -> [Finding] {
        var found: [Finding] = []
        func add(_ subject: String, _ words: String) {
            found.append(Finding(invariant: "I16", rule: rule, subject: subject, words: words))
        }
        let version = migrations.last?.number ?? 0
        if state.isNewer(than: migrations) {
            add(
                "schema \(state.newest)",
                "the database has schema \(state.newest)\(state.newestRelease.map { " of release \($0)" } ?? ""), this program is release "
                    + "\(WolkeVersion.current) with schema \(version): use that release's osctl")
        }
        let missing = state.missing(migrations)
        if !missing.isEmpty {
            add("schema \(state.newest)", "the database lacks \(SchemaWords.list(missing)): run `osctl db migrate`")
        }
        for migration in state.pending(migrations) {
            let waits = replicas.contains { $0.schemaVersion < migration.number } || unnamed > 0
            add(
                "migration \(migration.number)",
                "migration \(migration.number) (\(migration.name)) is pending: "
                    + (waits ? "older replicas still run; then run `osctl db contract`" : "run `osctl db contract`"))
        }
        var parts = Dictionary(grouping: replicas, by: \.release).mapValues { Set($0.map { "\($0.service) on \($0.host)" }).sorted() }
        if unnamed > 0, !replicas.isEmpty {
            parts["0.1.0", default: []].append("processes that do not register (\(unnamed) sessions of the database)")
        }
        for (host, release) in agents { parts[release ?? "0.1.0", default: []].append("wolke-compute-agent on \(host)") }
        if parts.count > 1 {
            let words = parts.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value.joined(separator: ", "))" }
            add("releases", "several releases run: \(words.joined(separator: "; ")). Finish the upgrade (docs/operate.md)")
        }
        return found
    }

    private static func agents(_ connection: Connection, _ ambient: Ambient) throws -> [(host: String, release: String?)] {
        try connection.query(
            """
            SELECT h.host, h.capabilities->>'release' AS release FROM hypervisors h JOIN compute_services c ON c.host = h.host
            WHERE c.last_seen_at > \(ambient.databaseNow) - interval '60 seconds' ORDER BY 1
            """
        ).map { (try $0.string("host"), try $0.optionalString("release")) }
    }
}
