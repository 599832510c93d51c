import Authorization
import Database
import WebAPI

/// Changes of what users may do and of the catalog in their tokens. Tokens follow at once in this process, and with the notification
/// in others.
extension Identity {
    /// A change that neither takes rights away nor gives any to users.
    func changeAccess(
        _ context: RequestContext, _ change: @escaping @Sendable (Connection) throws -> Change
    ) async throws -> Response {
        let response = try await context.write(database, change)
        await authenticator.refresh()
        return response
    }

    /// A change that takes no rights away. The projects that it makes the operators' are marked.
    func extendAccess(
        _ context: RequestContext, _ change: @escaping @Sendable (Connection) throws -> Change
    ) async throws -> Response {
        try await changeAccess(context) { connection in
            try cloudProjects.lock(connection)
            let value = try change(connection)
            try cloudProjects.mark(connection)
            return value
        }
    }

    /// A change that may take rights away.
    ///
    /// - Throws: 403 if it would leave the cloud without an administrator, or a service without its role.
    func reduceAccess(
        _ context: RequestContext, _ change: @escaping @Sendable (Connection) throws -> Change
    ) async throws -> Response {
        try await extendAccess(context) { connection in
            // A project that two concurrent changes made the operators' may not have its mark yet.
            try cloudProjects.mark(connection)
            return try Operability.keeping(connection, administrators: operatorRoles.administrators) { try change(connection) }
        }
    }
}
