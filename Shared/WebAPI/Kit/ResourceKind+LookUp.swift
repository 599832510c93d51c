package import Authorization
package import Database
import JSON
package import Kernel

/// The attributes of a stored row for policy and conditional requests.
package struct Subject: Sendable {
    package let id: UUID128
    package let projectID: String
    package let revision: Int
    package let target: PolicyTarget

    package init(id: UUID128, projectID: String, revision: Int, target: PolicyTarget) {
        self.id = id
        self.projectID = projectID
        self.revision = revision
        self.target = target
    }
}

/// Rows with an owner and a generation, found by id.
extension ResourceKind {
    /// Finds the row that a request names.
    ///
    /// - Throws: 404 if the caller may see no such row, 403 if the caller may not do the route's action, 412 if `If-Match` names
    ///   another revision.
    package func find(_ database: Database, _ context: RequestContext, action: String? = nil) async throws -> Authorized<Subject> {
        let id = try id(context)
        let subject = try await database.read { try self.subject($0, context, id) }
        let decision = try context.authorize(subject, target: subject.target, action: action)
        try context.checkRevision(subject)
        return decision
    }

    /// The id in a path.
    ///
    /// - Throws: 404 if it is not an id.
    package func id(_ context: RequestContext, _ parameter: String = "id") throws -> UUID128 {
        let text = context.parameter(parameter)
        guard let id = UUID128(text) else { throw notFound(text) }
        return id
    }

    /// - Throws: 404 if the caller may see no such row.
    package func subject(_ connection: Connection, _ context: RequestContext, _ id: UUID128) throws -> Subject {
        guard let subject = try subjects(connection, context, [id])[id] else { throw notFound("\(id)") }
        return subject
    }

    /// The rows among `ids` that the caller may see.
    package func subjects(_ connection: Connection, _ context: RequestContext, _ ids: [UUID128]) throws -> [UUID128: Subject] {
        guard !ids.isEmpty else { return [:] }
        let extra = targets.enumerated().map { ", (\($1.expression))::text AS target\($0)" }.joined()
        let rows = try connection.query(
            """
            SELECT t.id, t.project_id, t.generation\(raw: extra) FROM \(raw: table.source)
            WHERE t.id \(anyOf: ids) AND \(try visibility.rows(context))
            """)
        var result: [UUID128: Subject] = [:]
        for row in rows {
            let id = try row.uuid("id")
            let project = try row.string("project_id")
            var target = PolicyTarget.project(project)
            for (index, item) in targets.enumerated() {
                target.attributes[item.name] = try row.optionalString("target\(index)")
            }
            result[id] = Subject(id: id, projectID: project, revision: try row.int("generation"), target: target)
        }
        return result
    }
}

extension RequestContext {
    /// - Throws: 412 if `If-Match: revision_number=N` names another revision than the row's.
    package func checkRevision(_ subject: Subject) throws {
        guard let condition = headers["if-match"] else { return }
        let parts = condition.split(separator: "=")
        guard parts.count == 2, parts[0] == "revision_number", let wanted = Int(parts[1]) else {
            throw ResourceError.badRequest("Unrecognized If-Match header '\(condition.prefix(64))'.")
        }
        guard wanted == subject.revision else {
            throw ResourceError(
                .preconditionFailed, "Constrained to \(wanted), but current revision is \(subject.revision)",
                type: "RevisionNumberConstraintFailed")
        }
    }
}
