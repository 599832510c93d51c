import Authorization
import Database
import ImageAccess
import ImageCore
import JSON
import Kernel
import WebAPI

/// The projects that an image is shared with.
extension ImageHandlers {
    private static let memberTable = Table(
        "image_members t", key: "t.member_id",
        fields: [
            Field("member_id"), Field("image_id"), Field("status"), Field("created_at", .timestamp),
            Field("updated_at", .timestamp), Field("schema", .text, "'/v2/schemas/member'"),
        ])

    var memberResource: Resource {
        let path = "/v2/images/{image_id}/members"
        return Resource(
            "image member", fields: ImageHandlers.memberTable.fields,
            routes: [
                Route(.get, path, action: "get_members", rule: ImageRules.rule("get_members"), "List members", handler: listMembers),
                Route(
                    .post, path, action: "add_member", rule: ImageRules.rule("add_member"),
                    body: .json(.object([.init("member", .identifier, required: true)])), "Share with a project", handler: addMember),
                Route(
                    .get, path + "/{member_id}", action: "get_member", rule: ImageRules.rule("get_member"), "Show a member",
                    handler: showMember),
                Route(
                    .put, path + "/{member_id}", action: "modify_member", rule: ImageRules.rule("modify_member"),
                    body: .json(.object([.init("status", .enumeration(MemberStatus.allCases.map(\.rawValue)), required: true)])),
                    "Accept or reject", handler: changeMember),
                Route(
                    .delete, path + "/{member_id}", action: "delete_member", rule: ImageRules.rule("delete_member"), status: 204,
                    "Share no longer", handler: removeMember),
            ])
    }

    private func noMember(_ member: String, _ id: String) -> ResourceError {
        .notFound("\(member.prefix(64)) not found in the member list of the image \(id)")
    }

    private func visibleMembers(_ context: RequestContext, _ image: Image) throws -> SQL {
        let caller = try context.caller
        let base: SQL = "t.image_id = \(image.id)::uuid"
        if caller.projectID == image.owner || context.allows("see_all_images") { return base }
        return base + " AND t.member_id = \(caller.projectID ?? "")"
    }

    private func requireShared(_ image: Image) throws {
        guard image.visibility == .shared else {
            throw ResourceError.forbidden("Only shared images have members.")
        }
    }

    private func listMembers(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        return try await database.read { connection in
            let image = try authorized(connection, context, id, locked: false).value
            try requireShared(image)
            let table = ImageHandlers.memberTable
            let rows = try table.query(
                connection, table.fields, where: try visibleMembers(context, image), suffix: "ORDER BY t.member_id")
            return .object { object in
                object.arrayField("members") { list in
                    for row in rows.indices { list.object { Table.render(rows, row: row, table.fields, into: &$0) } }
                }
                object.field("schema", "/v2/schemas/members")
            }
        }
    }

    private func memberResponse(_ connection: Connection, _ condition: SQL) throws -> Response? {
        let table = ImageHandlers.memberTable
        let rows = try table.query(connection, table.fields, where: condition)
        guard !rows.isEmpty else { return nil }
        return .object { Table.render(rows, row: 0, table.fields, into: &$0) }
    }

    private func showMember(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let member = context.parameter("member_id")
        return try await database.read { connection in
            let image = try authorized(connection, context, id, locked: false).value
            try requireShared(image)
            let condition = try visibleMembers(context, image) + " AND t.member_id = \(member)"
            guard let response = try memberResponse(connection, condition) else { throw noMember(member, id) }
            return response
        }
    }

    private func addMember(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let member = context.body["member"]?.stringValue ?? ""
        return try await context.write(database) { connection in
            let image = try authorized(connection, context, id).value(for: "add_member")
            try requireShared(image)
            let count = try connection.query(
                "SELECT count(*) AS n FROM image_members WHERE image_id = \(id)::uuid")[0].int("n")
            guard count < ImageLimits.membersMax else {
                throw ResourceError(
                    .tooLarge,
                    "The limit has been exceeded on the number of allowed image members. Attempted: \(count + 1), Maximum: \(ImageLimits.membersMax)"
                )
            }
            let now = context.ambient.now
            let added = try connection.query(
                """
                INSERT INTO image_members (image_id, member_id, created_at, updated_at)
                VALUES (\(id)::uuid, \(member), \(now), \(now)) ON CONFLICT DO NOTHING RETURNING member_id
                """)
            guard !added.isEmpty else {
                throw ResourceError.conflict("Project \(member.prefix(64)) is already a member of image \(id)")
            }
            return try memberChange(connection, id, member)
        }
    }

    private func memberChange(_ connection: Connection, _ id: String, _ member: String) throws -> Change {
        let condition: SQL = "t.image_id = \(id)::uuid AND t.member_id = \(member)"
        guard let response = try memberResponse(connection, condition) else { throw noMember(member, id) }
        return Change(response, "image_member", id, content: ["member_id": .string(member)])
    }

    private func changeMember(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let member = context.parameter("member_id")
        let status = context.body["status"]?.stringValue ?? ""
        return try await context.write(database) { connection in
            guard let found = try ImageStore.find(connection, id, project: try context.caller.projectID, locked: true),
                context.allows("get_image", target: target(found))
            else {
                try context.authorize(target: .none, action: "get_images")
                throw ImageView.notFound(id)
            }
            try context.authorize(target: ["member_id": member, "project_id": found.image.owner]).value(for: "modify_member")
            try requireShared(found.image)
            let touched = try connection.execute(
                """
                UPDATE image_members SET status = \(status), updated_at = \(context.ambient.now)
                WHERE image_id = \(id)::uuid AND member_id = \(member)
                """)
            guard touched == 1 else { throw noMember(member, id) }
            return try memberChange(connection, id, member)
        }
    }

    private func removeMember(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let member = context.parameter("member_id")
        return try await context.write(database) { connection in
            let image = try authorized(connection, context, id).value(for: "delete_member")
            try requireShared(image)
            let removed = try connection.execute(
                "DELETE FROM image_members WHERE image_id = \(id)::uuid AND member_id = \(member)")
            guard removed == 1 else { throw noMember(member, id) }
            return Change(.empty(), "image_member", id)
        }
    }
}
