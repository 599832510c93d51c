import ArgumentParser
import Contracts
import Database
import Inspections
import JSON
import Kernel
import ServiceCatalog
import Settings
import Synchronization

/// `osctl doctor`: checks the invariants of the whole cloud.
struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Check the whole cloud for inconsistencies, and describe them.",
        discussion: """
            Looks twice and reports what was wrong both times: work under way is not a fault. Ends with status 1 when \
            something is wrong. The services repair by themselves what can be repaired safely, within a minute, and what \
            they repaired is listed; with --repair they do so at once, and the doctor waits for them and looks again.
            """)

    @OptionGroup var options: CloudOptions

    @Option(help: "The configuration file of the services; by default that of the cloud in the state directory.")
    var config: String?

    @Option(help: "Seconds between the two checks.")
    var wait = 3

    @ArgumentParser.Flag(help: "Request repairs from the services, and wait up to a minute for them.")
    var repair = false

    @ArgumentParser.Flag(help: "Print findings as JSON.")
    var json = false

    @Option(help: "Show the repairs of this many hours.")
    var since = 1

    func run() async throws {
        do { try await DatabaseScope.$current.withValue(.periodicTask) { try await examine() } } catch let error as ResourceError {
            throw CloudError("the cloud cannot be examined: \(error.context ?? error.message)\nIs it up? See: osctl status")
        }
    }

    private func examine() async throws {
        let layout = try options.layout()
        if config == nil, !Machine.exists(layout.configuration) {
            throw CloudError("there is no cloud in \(layout.state); `make up` makes one, or name its directory with --state")
        }
        let path = config ?? layout.configuration
        let settings = try Settings.load(path: path, environment: Machine.environment, schema: .common)
        let database = Database(
            DatabaseConfiguration(connectionString: settings.requiredSecret("database.url").exposed, connectionsMax: 1))
        defer { database.close() }
        let ambient = Ambient()
        var repairsSince = ambient.now + .seconds(-3600 * since)
        var findings: [Finding]
        var silent: [String] = []
        if repair {
            let before = try await look(database)
            if !before.isEmpty, !json { report(before, title: "Before the repair") }
            repairsSince = ambient.now
            silent = try await audits(database, ambient)
            let end = ambient.now + .seconds(30)
            repeat { findings = try await lasting(database, ambient) } while !findings.isEmpty && ambient.now < end
        } else {
            findings = try await lasting(database, ambient)
        }
        let since = repairsSince
        let repairs = try await database.read { try Repairs.entries($0, since: since) }
        let seenByAgents = try await database.read { try HostOutages.words($0) }
        let outages = RecordedPart.networkOutages(layout) + seenByAgents
        if json {
            print(DoctorCommand.document(findings, repairs, silent, outages).description)
        } else {
            report(findings, title: "Found")
            report(repairs)
            if !outages.isEmpty { print("Interruptions of guests' networks:") }
            for outage in outages { print("  \(outage)") }
            for service in silent { print("The audit of \(service) has not answered within a minute.") }
        }
        if !findings.isEmpty || !silent.isEmpty { throw ExitCode(1) }
    }

    /// Requests audits and repairs from all services.
    ///
    /// - Returns: the services that have not answered within a minute.
    private func audits(_ database: Database, _ ambient: Ambient) async throws -> [String] {
        let question = PeriodicTaskRequest(id: ambient.newUUID().description)
        return try await withThrowingTaskGroup(of: [String]?.self) { group in
            let answers = database.notifications(.periodicTasksDone)
            let missing = Missing(CloudService.all.flatMap(\.repairTasks))
            group.addTask {
                for await notification in answers {
                    if notification == .resync { try await database.write { try $0.notify(.periodicTasks, question) } }
                    let answer = notification.payload(on: .periodicTasksDone)
                    if let answer, answer.question == question.id, missing.heard(answer.service) { return [] }
                }
                return nil
            }
            group.addTask {
                try await ambient.time.sleep(for: .seconds(20))
                // A service that was reconnecting to the database has missed the request.
                for _ in 0..<2 {
                    try await database.write { try $0.notify(.periodicTasks, question) }
                    try await ambient.time.sleep(for: .seconds(20))
                }
                return missing.names
            }
            defer { group.cancelAll() }
            return try await group.next().flatMap { $0 } ?? missing.names
        }
    }

    /// The services that have not answered yet.
    private final class Missing: Sendable {
        private let left: Mutex<Set<String>>

        init(_ names: [String]) { left = Mutex(Set(names)) }

        var names: [String] { left.withLock { $0.sorted() } }

        /// - Returns: whether it was the last one.
        func heard(_ name: String) -> Bool {
            left.withLock {
                $0.remove(name)
                return $0.isEmpty
            }
        }
    }

    /// The findings that are still present a while later.
    private func lasting(_ database: Database, _ ambient: Ambient) async throws -> [Finding] {
        let first = try await look(database)
        guard !first.isEmpty else { return [] }
        try await ambient.time.sleep(for: .seconds(wait))
        let before = Set(first.map { [$0.rule, $0.subject] })
        return try await look(database).filter { before.contains([$0.rule, $0.subject]) }
    }

    /// The inspections of the database, and the rules about releases and moves.
    private static let ruleCount = Inspection.all.count + 2

    /// Runs all inspections in one snapshot.
    private func look(_ database: Database) async throws -> [Finding] {
        try await database.snapshot { connection in
            try Inspection.all.flatMap { try $0.findings(connection) } + ReleaseFindings.look(connection)
                + MoveFindings.look(connection)
        }
    }

    private func report(_ findings: [Finding], title: String) {
        guard !findings.isEmpty else {
            print("All \(DoctorCommand.ruleCount) rules hold.")
            return
        }
        print("\(title): \(findings.count) inconsistencies.")
        for finding in findings { print("  \(finding.invariant)  \(finding.words)") }
    }

    private func report(_ repairs: [Repairs.Entry]) {
        guard !repairs.isEmpty else { return }
        print(repair ? "Repaired now:" : "Repaired by the services since \(repairs[0].at.iso8601):")
        for entry in repairs { print("  \(entry.at.iso8601)  \(entry.service): \(entry.words)") }
    }

    private static func document(
        _ findings: [Finding], _ repairs: [Repairs.Entry], _ silent: [String], _ outages: [String]
    ) -> JSONValue {
        [
            "repairs": .array(
                repairs.map { ["at": .string($0.at.iso8601), "service": .string($0.service), "words": .string($0.words)] }),
            "silent": JSONValue(silent), "network_outages": JSONValue(outages),
            "rules": JSONValue(ruleCount),
            "findings": .array(
                findings.map {
                    [
                        "invariant": .string($0.invariant), "rule": .string($0.rule), "subject": .string($0.subject),
                        "words": .string($0.words),
                    ]
                }),
        ]
    }
}
