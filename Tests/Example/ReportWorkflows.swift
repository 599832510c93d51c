import Contracts
import Database
import Kernel
import Messaging
import ServiceKit
import TestKit
import Workflow

// guide: message
/// Announces that a report is complete.
struct ReportReady: MessageBody {
    static let type = "report_ready"
    let id: String
}

extension MessageQueue { static let readyReports = MessageQueue("example.reports") }

extension Reports {
    func announce(_ message: ReportReady) async throws {
        _ = try await database.write { try $0.execute("UPDATE reports SET announced = true WHERE id = \(message.id)::uuid") }
    }
}
// guide: end

// guide: workflow
struct ReportWorkflows: Sendable {
    let surroundings: ServiceSurroundings
    private var database: Database { surroundings.database }

    struct Frame: Codable, Sendable { let sections: Int }
    struct Section: Codable, Sendable { let report: String, number: Int }

    /// Writes a report: each section is a child workflow.
    var create: Workflow<Frame> {
        Workflow(
            service: "example", kind: "report.create",
            steps: [
                .children(
                    "sections", deadline: .seconds(600),
                    starts: { context, frame in try (1...frame.sections).map { try start(context.subjectID, $0) } },
                    undo: { context, _, _ in
                        let id = context.subjectID
                        _ = try await database.write { try $0.execute("DELETE FROM report_sections WHERE report_id = \(id)::uuid") }
                    }),
                .init("publish") { context, frame in
                    let (id, count) = (context.subjectID, frame.sections)
                    _ = try await database.write { connection in
                        try connection.execute("UPDATE reports SET status = 'ready', written = \(count) WHERE id = \(id)::uuid")
                        try Outbox.add(connection, ReportReady(id: id), to: .readyReports, ambient: surroundings.ambient)
                    }
                    return .next
                },
            ],
            failed: { context, _, _ in
                let id = context.subjectID
                _ = try await database.write { try $0.execute("UPDATE reports SET status = 'error' WHERE id = \(id)::uuid") }
            })
    }

    private func start(_ report: String, _ number: Int) throws -> WorkflowStart {
        try WorkflowStart(section, subject: surroundings.ambient.newUUID().description, frame: .init(report: report, number: number))
    }

    /// Writes one section of a report; idempotent.
    var section: Workflow<Section> {
        Workflow(
            service: "example", kind: "report.section",
            steps: [
                .init("write") { context, frame in
                    let (id, section) = (context.subjectID, frame)
                    _ = try await database.write {
                        try $0.execute(
                            """
                            INSERT INTO report_sections (id, report_id, number)
                            VALUES (\(id)::uuid, \(section.report)::uuid, \(section.number)) ON CONFLICT DO NOTHING
                            """)
                    }
                    return .next
                } undo: { context, _ in
                    let id = context.subjectID
                    _ = try await database.write { try $0.execute("DELETE FROM report_sections WHERE id = \(id)::uuid") }
                }
            ], failed: { _, _, _ in })
    }
}
// guide: end
