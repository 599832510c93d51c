import Authorization
import Contracts
import Database
import JSON
import Kernel
import ServiceCatalog
import ServiceKit
import WebAPI
import Workflow

// guide: kind
extension ResourceKind {
    static let reports = ResourceKind(
        "report",
        table: Table(
            "reports t", defaultSort: [("created_at", false)],
            fields: [
                .uuid("id"), .text("name", isSettable: true), .text("status"), .text("project_id"), .number("sections"),
                .number("written"), .flag("announced"),
                Field(
                    "tags", .json, "to_json(t.tags)", filter: .custom { "t.tags @> \($0.split(separator: ",").map(String.init))::text[]" }),
                Field("created_at", .timestamp, sortable: true), Field("updated_at", .timestamp),
            ]),
        visibility: .owned(readableBy: "read_all_reports"), grammar: ListGrammar { $0.unknown = .refused }, pages: .next
    ) { .notFound("Report \($0.prefix(64)) could not be found.") }
}
// guide: end

/// The API of reports, and the statements behind it.
struct Reports: Sendable {
    let surroundings: ServiceSurroundings
    var database: Database { surroundings.database }
    private var kind: ResourceKind { .reports }

    // guide: quota
    static let count = QuotaDeclaration(
        "example", "reports", default: 3, "Reports that a project may have",
        .counted("SELECT project_id AS owner, count(*) AS amount FROM reports GROUP BY project_id"))
    static let quota = Quota([count]) { name, _, used, limit in
        .forbidden("Quota exceeded for \(name): \(used) of \(limit) are used.")
    }
    // guide: end

    // guide: routes
    private static let name = BodySchema.Property("name", .trimmedName, required: true)
    private static let tags = BodySchema.array(.string(min: 1, max: 60, format: .trimmedName), min: 0, max: 50)
    private static let new = BodySchema.object([
        name, .init("sections", .integer(min: 1, max: 10), required: true), .init("tags", tags),
    ])

    static let rules = ["read_all_reports": "rule:admin_required"]

    var resource: Resource {
        let (all, one) = ("/v1/reports", "/v1/reports/{id}")
        let (reader, member) = ("rule:project_reader_or_admin", "rule:project_member_or_admin")
        return Resource(
            "report",
            routes: [
                Route(.get, all, action: "list_reports", rule: reader, answer: .list(kind), "List reports") {
                    try await kind.list(database, $0)
                },
                Route(
                    .post, all, action: "create_report", rule: member, body: .json(.wrapped("report", Reports.new)), status: 202,
                    answer: .one(kind), "Create a report", handler: create),
                Route(.get, one, action: "get_report", rule: reader, answer: .one(kind), "Show a report") {
                    try await kind.show(database, $0)
                },
                Route(
                    .put, one, action: "update_report", rule: member, body: .json(.wrapped("report", .object([Reports.name]))),
                    answer: .one(kind), "Rename a report"
                ) { try await update($0, Changes(kind.settings($0.body["report"]?.objectValue ?? [:]))) },
                Route(
                    .put, one + "/tags", action: "update_report", rule: member,
                    body: .json(.object([.init("tags", Reports.tags, required: true)])), answer: .one(kind), "Replace a report's tags"
                ) { context in
                    var changes = Changes()
                    changes.set("tags = \(Reports.tags(of: context.body))::text[]")
                    return try await update(context, changes)
                },
                Route(.delete, one, action: "delete_report", rule: member, status: 204, "Delete a report", handler: delete),
            ])
    }
    // guide: end

    private static func tags(of body: JSONValue) -> [String] {
        Set((body["tags"]?.arrayValue ?? []).compactMap(\.stringValue)).sorted()
    }

    // guide: writing
    private func create(_ context: RequestContext) async throws -> Response {
        guard let own = try context.caller.projectID else { throw ResourceError.badRequest("A report needs a token with a project.") }
        let owner = try context.authorize(own, target: .project(own))
        let (ambient, body) = (surroundings.ambient, context.body["report"] ?? [:])
        let sections = body["sections"]?.intValue ?? 1
        return try await context.write(database) { connection in
            let (project, id) = (try owner.value(for: "create_report"), ambient.newUUID())
            try Reports.quota.reserve(connection, project: project, [(Reports.count, 1)])
            try connection.execute(
                """
                INSERT INTO reports (id, project_id, name, sections, tags, created_at, updated_at)
                VALUES (\(id), \(project), \(body["name"]?.stringValue ?? ""), \(sections), \(Reports.tags(of: body))::text[],
                    \(ambient.now), \(ambient.now))
                """)
            try Workflows.start(
                connection, ReportWorkflows(surroundings: surroundings).create, subject: id.description, frame: .init(sections: sections),
                requestID: context.requestID, ambient: ambient)
            return try kind.changed(connection, context, id, status: 202)
        }
    }

    private func update(_ context: RequestContext, _ changes: Changes) async throws -> Response {
        let report = try await kind.find(database, context)
        return try await context.write(database) { connection in
            let id = try report.value(for: "update_report").id
            try changes.apply(connection, "reports", id, at: surroundings.ambient.now, isCounted: true)
            return try kind.changed(connection, context, id)
        }
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        let report = try await kind.find(database, context)
        return try await context.write(database) { connection in
            let subject = try report.value(for: "delete_report")
            guard try !Workflows.isActive(connection, subject: subject.id.description) else {
                throw ResourceError.conflict("Report \(subject.id) is being written; delete it when that has ended.")
            }
            guard try connection.execute("DELETE FROM reports WHERE id = \(subject.id)") == 1 else { throw kind.notFound("\(subject.id)") }
            try Quota.release(connection, project: subject.projectID, [(Reports.count, 1)])
            return kind.deleted(subject.id)
        }
    }
    // guide: end
}
