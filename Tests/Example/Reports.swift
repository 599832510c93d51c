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

/// The API of reports.
struct Reports: Sendable {
    let surroundings: ServiceSurroundings
    var database: Database { surroundings.database }
    private var kind: ResourceKind { .reports }

    // guide: quota
    static let count = QuotaDeclaration(
        "example", "reports", default: 3, "Reports that a project may have",
        .counted("SELECT project_id AS owner, count(*) AS amount FROM reports GROUP BY project_id"))
    static let quota = Quota([count]) { name, _, used, limit in .forbidden("Quota exceeded for \(name): \(used) of \(limit) are used.") }
    // guide: end

    // guide: routes
    private static let name = BodySchema.Property("name", .trimmedName, required: true)
    private static let tags = BodySchema.array(.string(min: 1, max: 60, format: .trimmedName), min: 0, max: 50)
    private static let new = BodySchema.object([name, .init("sections", .integer(min: 1, max: 10), required: true), .init("tags", tags)])

    static let rules = ["read_all_reports": "rule:admin_required"]

    var resource: Resource {
        let (all, one, reader, member) = ("/v1/reports", "/v1/reports/{id}", "rule:project_reader_or_admin", "rule:project_member_or_admin")
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
                    changes.set("tags = \(ReportStore.tags(of: context.body))::text[]")
                    return try await update(context, changes)
                },
                Route(.delete, one, action: "delete_report", rule: member, status: 204, "Delete a report", handler: delete),
            ])
    }
    // guide: end

    // guide: writing
    private func create(_ context: RequestContext) async throws -> Response {
        let own = try context.caller.requireProject()
        let owner = try context.authorize(own, target: .project(own))
        let (ambient, body) = (surroundings.ambient, context.body["report"] ?? [:])
        return try await context.write(database) { connection in
            let id = ambient.newUUID()
            try ReportStore.insert(connection, owner, id, body, at: ambient.now)
            try Workflows.start(
                connection, ReportWorkflows(surroundings: surroundings).create, subject: id.description,
                frame: .init(sections: body["sections"]?.intValue ?? 1), requestID: context.requestID, ambient: ambient)
            return try kind.changed(connection, context, id, status: 202)
        }
    }

    private func update(_ context: RequestContext, _ changes: Changes) async throws -> Response {
        let report = try await kind.find(database, context)
        return try await context.write(database) { connection in
            try ReportStore.update(connection, report, changes, at: surroundings.ambient.now)
            return try kind.changed(connection, context, report.value.id)
        }
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        let report = try await kind.find(database, context)
        return try await context.write(database) { connection in
            try ReportStore.delete(connection, report)
            return kind.deleted(report.value.id)
        }
    }
    // guide: end
}
