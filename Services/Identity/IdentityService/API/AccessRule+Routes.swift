import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import WebAPI

/// Access rules belong to a user; application credentials use them, and rules stay when a credential is deleted.
extension Identity {
    func listRules(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value.id
        return try await database.read { try Identity.accessRules.list($0, context, where: ["t.user_id = \(user)"]) }
    }

    func showRule(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context).value.id
        let id = context.parameter("rule_id")
        return try await database.read {
            try Identity.accessRules.one($0, context, where: "t.id = \(id) AND t.user_id = \(user)", id: id)
        }
    }

    func deleteRule(_ context: RequestContext) async throws -> Response {
        let user = try await decideUser(context)
        try await requireMayManage(try context.caller)
        let id = context.parameter("rule_id")
        return try await context.write(database) { connection in
            try delete(connection, accessRule: id, of: user)
            return Change(.empty(), "access_rule", id)
        }
    }
}
