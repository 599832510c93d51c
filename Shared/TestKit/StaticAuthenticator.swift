package import Authorization
package import Kernel

/// Callers by token, for tests without Identity.
package struct StaticAuthenticator: Authenticating {
    private let callers: [String: Caller]

    package init(_ callers: [String: Caller]) { self.callers = callers }

    /// Tokens whose user has lost all roles.
    package static let demoted = "/demoted"

    package func caller(token: String) async throws -> Caller {
        if token.hasSuffix(StaticAuthenticator.demoted) {
            let caller = try await caller(token: String(token.dropLast(StaticAuthenticator.demoted.count)))
            return StaticAuthenticator.caller(user: caller.userID, project: caller.projectID, roles: [])
        }
        guard let caller = callers[token] else {
            throw ResourceError(.unauthorized, "The request you have made requires authentication.")
        }
        return caller
    }

    package func caller(subject: ActingSubject) async throws -> Caller {
        let found = callers.values.first { $0.userID == subject.user && $0.projectID == subject.project }
        guard let found else {
            throw ResourceError.forbidden("The user \(subject.user) has no role in the project \(subject.project).")
        }
        return found
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

    /// The service user, with the roles of clouds before schema 17.
    package static let service = caller(
        user: "wolke", project: "service", roles: ["admin", "manager", "member", "reader", "service"])

    /// The callers of authorization sweeps, by token: `admin`, `member`, `reader`, `other` (member of another project),
    /// `unscoped`, `service` (also with the role `admin`, which must be ignored).
    package static let standard = StaticAuthenticator([
        "admin": caller(user: "admin", project: "admin", roles: ["admin", "manager", "member", "reader"]),
        "member": caller(),
        "reader": caller(user: "u2", roles: ["reader"]),
        "other": caller(user: "u3", project: "p2"),
        "unscoped": caller(user: "u4", project: nil, roles: []), "service": service,
    ])
}
