import ArgumentParser
import Database
import JSON
import Kernel
import Settings

/// `osctl doctor`: is everything that should hold over the whole cloud so?
struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Look for inconsistencies in the whole cloud, and say each in words.",
        discussion: """
            Looks twice and reports what was wrong both times: work under way is not a fault. Ends with status 1 when \
            something is wrong. The services repair by themselves what can be repaired safely, within a minute; with \
            --repair they do so at once, and the doctor waits and looks again.
            """)

    @OptionGroup var options: CloudOptions

    @Option(help: "The configuration file of the services; that of the cloud in the state directory when not given.")
    var config: String?

    @Option(help: "Seconds between the two looks.")
    var wait = 3

    @ArgumentParser.Flag(help: "Ask the services to repair now, and wait up to a minute for it.")
    var repair = false

    @ArgumentParser.Flag(help: "Print findings as JSON.")
    var json = false

    /// The services' audits listen here.
    static let auditChannel = "wolke_audit"

    func run() async throws {
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
        var findings = try await lasting(database, ambient)
        if repair, !findings.isEmpty {
            if !json { report(findings, title: "Before the repair") }
            try await database.write { try $0.notify(DoctorCommand.auditChannel, "") }
            let end = ambient.now + .seconds(60)
            while !findings.isEmpty, ambient.now < end { findings = try await lasting(database, ambient) }
        }
        if json { print(DoctorCommand.document(findings).description) } else { report(findings, title: "Found") }
        if !findings.isEmpty { throw ExitCode(1) }
    }

    /// What is wrong now and still is a while later.
    private func lasting(_ database: Database, _ ambient: Ambient) async throws -> [Finding] {
        let first = try await look(database)
        guard !first.isEmpty else { return [] }
        try await ambient.time.sleep(for: .seconds(wait))
        let before = Set(first.map { [$0.rule, $0.subject] })
        return try await look(database).filter { before.contains([$0.rule, $0.subject]) }
    }

    /// All rules over one snapshot.
    private func look(_ database: Database) async throws -> [Finding] {
        try await database.snapshot { connection in
            try Inspection.all.flatMap { try $0.findings(connection) }
        }
    }

    private func report(_ findings: [Finding], title: String) {
        guard !findings.isEmpty else {
            print("All \(Inspection.all.count) rules hold.")
            return
        }
        print("\(title): \(findings.count) inconsistencies.")
        for finding in findings { print("  \(finding.invariant)  \(finding.words)") }
    }

    private static func document(_ findings: [Finding]) -> JSONValue {
        [
            "rules": JSONValue(Inspection.all.count),
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
