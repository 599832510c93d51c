import Authorization
import Database
import ImageAccess
import ImageCore
import JSON
import Kernel
import WebAPI

/// The projects with which an image is shared.
extension ImageHandlers {
    var memberResource: Resource {
        let path = "/v2/images/{image_id}/members"
        return Resource(
            "image member",
            routes: [
                Route(
                    .get, path, action: "get_members", rule: ImageRules.rule("get_members"), answer: .list(.members), "List members",
                    handler: listMembers),
                Route(
                    .post, path, action: "add_member", rule: ImageRules.rule("add_member"),
                    body: .json(.object([.init("member", .identifier, required: true)])), answer: .one(.members), "Share with a project",
                    handler: addMember),
                Route(
                    .get, path + "/{member_id}", action: "get_member", rule: ImageRules.rule("get_member"), answer: .one(.members),
                    "Show a member",
                    handler: showMember),
                Route(
                    .put, path + "/{member_id}", action: "modify_member", rule: ImageRules.rule("modify_member"),
                    body: .json(.object([.init("status", .enumeration(MemberStatus.allCases.map(\.rawValue)), required: true)])),
                    answer: .one(.members), "Accept or reject a shared image", handler: changeMember),
                Route(
                    .delete, path + "/{member_id}", action: "delete_member", rule: ImageRules.rule("delete_member"), status: 204,
                    "Stop sharing with a project", handler: removeMember),
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
            let members = ResourceKind.members
            let scope = try visibleMembers(context, image)
            var request = ListRequest()
            request.isWhole = true
            return try members.list(connection, context, request, scope: scope).response
        }
    }

    private func response(_ connection: Connection, _ context: RequestContext, _ scope: SQL, _ member: String, _ id: String) throws
        -> Response
    {
        let condition = scope + " AND t.member_id = \(member)"
        guard let response = try ResourceKind.members.oneOrNone(connection, context, where: condition)?.response else {
            throw noMember(member, id)
        }
        return response
    }

    private func showMember(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        return try await database.read { connection in
            let image = try authorized(connection, context, id, locked: false).value
            try requireShared(image)
            return try response(connection, context, visibleMembers(context, image), context.parameter("member_id"), id)
        }
    }

    private func addMember(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let member = context.body["member"]?.stringValue ?? ""
        return try await context.write(database) { connection in
            let image = try authorized(connection, context, id)
            try requireShared(image.value)
            try MemberStore.add(connection, image, member, now: context.ambient.now)
            return try memberChange(connection, context, id, member)
        }
    }

    private func memberChange(_ connection: Connection, _ context: RequestContext, _ id: String, _ member: String) throws -> Change {
        let response = try response(connection, context, "t.image_id = \(id)::uuid", member, id)
        return Change(answer: response, "image_member", id)
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
                throw ResourceKind.images.notFound(id)
            }
            let image = try context.authorize(found.image, target: ["member_id": member, "project_id": found.image.owner])
            try requireShared(found.image)
            guard try MemberStore.setStatus(connection, image, member, status, now: context.ambient.now) else {
                throw noMember(member, id)
            }
            return try memberChange(connection, context, id, member)
        }
    }

    private func removeMember(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let member = context.parameter("member_id")
        return try await context.write(database) { connection in
            let image = try authorized(connection, context, id)
            try requireShared(image.value)
            guard try MemberStore.remove(connection, image, member) else { throw noMember(member, id) }
            return Change(.empty(), "image_member", id)
        }
    }
}
