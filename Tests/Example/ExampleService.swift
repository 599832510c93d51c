import Contracts
import Database
import Inspections
import Kernel
import Messaging
import ServiceCatalog
import ServiceKit
import WebAPI
import Workflow

// A whole service, as docs/add-a-service.md shows it: reports about a project, written section by section.

// guide: description
extension CloudService {
    static let example = CloudService(
        "example", title: "Reports", project: "example", catalog: [CatalogEntry(type: "report", path: "/v1")], port: 8999,
        versionPath: "/v1", faults: .compute, hasWorkflows: true, repairTasks: ["example"])
}
// guide: end

// guide: migration
let reportMigration = """
    CREATE TABLE reports (
        id uuid PRIMARY KEY, project_id text NOT NULL, name text NOT NULL, status text NOT NULL DEFAULT 'building',
        sections integer NOT NULL CHECK (sections BETWEEN 1 AND 10), written integer NOT NULL DEFAULT 0,
        tags text[] NOT NULL DEFAULT '{}', announced boolean NOT NULL DEFAULT false, generation bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
    CREATE INDEX reports_project ON reports (project_id, created_at, id);
    CREATE TABLE report_sections (id uuid PRIMARY KEY, report_id uuid NOT NULL REFERENCES reports ON DELETE CASCADE,
        number integer NOT NULL, UNIQUE (report_id, number));
    """
// guide: end

// guide: inspections
enum ExampleInspections {
    static let sections = Inspection(
        "I4", "a report that is ready counts the sections that it has",
        """
        SELECT r.id::text AS subject, 'report ' || r.id || ' counts ' || r.written || ' sections and has ' || count(s.id) AS words
        FROM reports r LEFT JOIN report_sections s ON s.report_id = r.id
        WHERE r.status = 'ready' GROUP BY r.id HAVING r.written <> count(s.id)
        """)
}
// guide: end

// guide: repair
extension Reports {
    /// Recounts wrong counts, and records the findings for the doctor.
    func repair() async throws {
        let (ambient, now) = (surroundings.ambient, surroundings.ambient.now)
        let findings = try await database.write { connection in
            let findings = try ExampleInspections.sections.findings(connection, ambient, limit: 100)
            try connection.execute(
                """
                UPDATE reports r SET written = (SELECT count(*) FROM report_sections s WHERE s.report_id = r.id)
                WHERE r.id = ANY(\(findings.map(\.subject))::uuid[])
                """)
            try Repairs.record(connection, service: CloudService.example.section, findings, at: now)
            return findings
        }
        Repairs.log(surroundings.log, findings)
    }
}
// guide: end

// guide: module
enum ExampleModule {
    static func make(_ surroundings: ServiceSurroundings) throws -> ServiceModule {
        let (reports, workflows) = (Reports(surroundings: surroundings), ReportWorkflows(surroundings: surroundings))
        let (database, ambient, bus) = (surroundings.database, surroundings.ambient, surroundings.bus)
        let relay = OutboxRelay(database: database, bus: bus, ambient: ambient, logger: surroundings.log)
        let tasks = PeriodicTask("example", every: .seconds(20), database: database, ambient: ambient, log: surroundings.log) {
            try await reports.repair()
            _ = try await Repairs.recount([Reports.count], service: "example", database, at: ambient.now, surroundings.log)
            return true
        }
        return ServiceModule(
            .example, surroundings, api: try surroundings.api(.example, resources: [reports.resource], rules: Reports.rules),
            workflows: [workflows.create.definition, workflows.section.definition],
            consumers: [
                .init("ready reports") {
                    try await bus.consume(queue: .readyReports, options: ConsumeOptions(prefetch: 4)) {
                        try await reports.announce(try $0.decode())
                    }
                }
            ],
            loops: [.init("relay") { try await relay.run() }, .init("periodic tasks") { try await tasks.run() }],
            inspections: [ExampleInspections.sections], quota: Reports.quota)
    }
}
// guide: end
