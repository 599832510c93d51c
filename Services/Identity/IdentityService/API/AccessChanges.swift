import Authorization
import Database
import WebAPI

/// Changes of users' rights and of the catalog in their tokens. Tokens reflect a change at once in this process, and after the notification
/// in others.
extension Identity {
    /// A change that neither removes nor grants rights of users.
    func changeAccess(
        _ context: RequestContext, _ change: @escaping @Sendable (Connection) throws -> Change
    ) async throws -> Response {
        let response = try await context.write(database, change)
        await authenticator.refresh()
        return response
    }

    /// A change that removes no rights, and that may turn projects into operators' projects.
    func extendAccess(
        _ context: RequestContext, _ change: @escaping @Sendable (Connection) throws -> Change
    ) async throws -> Response {
        try await changeAccess(context) { connection in
            try cloudProjects.lock(connection)
            return try change(connection)
        }
    }

    /// A change that may remove rights.
    ///
    /// - Throws: 403 if it would leave the cloud without an administrator, or a service without its role.
    func reduceAccess(
        _ context: RequestContext, _ change: @escaping @Sendable (Connection) throws -> Change
    ) async throws -> Response {
        try await extendAccess(context) { connection in
            try Operability.keeping(connection, administrators: operatorRoles.administrators) { try change(connection) }
        }
    }
}
