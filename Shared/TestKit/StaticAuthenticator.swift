import Authorization
import Kernel

/// Callers by token, for tests that need no Identity.
package struct StaticAuthenticator: Authenticating {
    private let callers: [String: Caller]

    package init(_ callers: [String: Caller]) { self.callers = callers }

    /// What ends a token whose user has lost all roles since.
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

    /// The user as whom services call each other, as clouds before schema 17 had it.
    package static let service = caller(
        user: "wolke", project: "service", roles: ["admin", "manager", "member", "reader", "service"])

    /// The callers that authorization sweeps use, by token: `admin`, `member`, `reader`, `other` (member of another
    /// project), `unscoped`, `service` (with the role `admin` too, which must not count).
    package static let standard = StaticAuthenticator([
        "admin": caller(user: "admin", project: "admin", roles: ["admin", "manager", "member", "reader"]),
        "member": caller(),
        "reader": caller(user: "u2", roles: ["reader"]),
        "other": caller(user: "u3", project: "p2"),
        "unscoped": caller(user: "u4", project: nil, roles: []), "service": service,
    ])
}
