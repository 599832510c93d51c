import Authorization
import Kernel

/// Callers by token, for tests that need no Identity.
package struct StaticAuthenticator: Authenticating {
    private let callers: [String: Caller]

    package init(_ callers: [String: Caller]) { self.callers = callers }

    package func caller(token: String) async throws -> Caller {
        guard let caller = callers[token] else {
            throw ResourceError(.unauthorized, "The request you have made requires authentication.")
        }
        return caller
    }

    /// A caller with a project-scoped token; `roles` should hold the implied ones too.
    package static func caller(
        user: String = "u1", project: String? = "p1", roles: [String] = ["member", "reader"], system: Bool = false,
        domain: String? = nil
    ) -> Caller {
        let scope: Scope =
            if system { .system } else if let project { .project(ID(project)) } else if let domain { .domain(ID(domain)) } else {
                .unscoped
            }
        let payload = TokenPayload(
            userID: user, scope: scope, methods: ["password"], issuedAt: Timestamp(seconds: 0),
            expiresAt: Timestamp(seconds: 1 << 40), auditIDs: ["audit"])
        return Caller(
            userID: user, userName: user, userDomainID: "default", userDomainName: "Default", scope: scope,
            projectName: project, projectDomainID: project == nil ? nil : "default",
            projectDomainName: project == nil ? nil : "Default",
            roles: roles.map { RoleReference(id: "role-" + $0, name: $0) }, token: payload)
    }

    /// The callers that authorization sweeps use, by token: `admin`, `member`, `reader`, `other` (member of another
    /// project), `unscoped`.
    package static let standard = StaticAuthenticator([
        "admin": caller(user: "admin", project: "admin", roles: ["admin", "manager", "member", "reader"]),
        "member": caller(),
        "reader": caller(user: "u2", roles: ["reader"]),
        "other": caller(user: "u3", project: "p2"),
        "unscoped": caller(user: "u4", project: nil, roles: []),
    ])
}
