import Authorization
import Database
import JSON
import Kernel
import WebAPI
import Workflow

// guide: store
/// The statements for requests. Each takes the decision that allows it.
enum ReportStore {
    static func insert(_ connection: Connection, _ owner: Authorized<String>, _ id: UUID128, _ body: JSONValue, at now: Timestamp) throws {
        let project = try owner.value(for: "create_report")
        try Reports.quota.reserve(connection, project: project, [(Reports.count, 1)])
        let row: Changes = [
            "id": "\(id)", "project_id": "\(project)", "name": "\(body["name"]?.stringValue)",
            "sections": "\(body["sections"]?.intValue)", "tags": "\(tags(of: body))::text[]",
        ]
        try connection.execute(row.insertion("reports", at: now))
    }

    static func tags(of body: JSONValue) -> [String] {
        Set((body["tags"]?.arrayValue ?? []).compactMap(\.stringValue)).sorted()
    }

    static func update(_ connection: Connection, _ report: Authorized<Subject>, _ changes: Changes, at now: Timestamp) throws {
        try changes.apply(connection, "reports", try report.value(for: "update_report").id, at: now, isCounted: true)
    }

    static func delete(_ connection: Connection, _ report: Authorized<Subject>) throws {
        let subject = try report.value(for: "delete_report")
        guard try !Workflows.isActive(connection, subject: subject.id.description) else {
            throw ResourceError.conflict("Report \(subject.id) is being written. Delete it when it is complete.")
        }
        try connection.execute("DELETE FROM reports WHERE id = \(subject.id)")
        try Quota.release(connection, project: subject.projectID, [(Reports.count, 1)])
    }
}
// guide: end
