package import Database
package import JSON
package import Kernel

/// Markers for the ids of Identity's resources.
package enum UserKind {}
package enum ProjectKind {}
package enum DomainKind {}
/// Ids of users, projects and domains as distinct types.
package typealias UserID = ID<UserKind>
package typealias ProjectID = ID<ProjectKind>
package typealias DomainID = ID<DomainKind>

/// The scope of a token.
package enum Scope: Sendable, Hashable {
    case unscoped
    case project(ProjectID)
    case domain(DomainID)
    case system
}

/// A role as a token carries it; implied roles are already expanded.
package struct RoleReference: Sendable, Hashable {
    package let id: String
    package let name: String

    package init(id: String, name: String) {
        self.id = id
        self.name = name
    }
}

/// The caller of a request and its rights. Taken from a verified token; if a service acts on behalf of a project, from the
/// service's token and the subject that it names.
package struct Caller: Sendable, Hashable {
    package var userID: String
    package var userName: String
    package var userDomainID: String
    package var userDomainName: String
    package var scope: Scope
    package var projectName: String?
    package var projectDomainID: String?
    package var projectDomainName: String?
    package var domainName: String?
    package var roles: [RoleReference]
    package var token: TokenPayload
    /// Access rules of an application credential; nil if the token has none.
    package var accessRules: JSONValue?
    /// The id of the service's user, if a service acts for this caller.
    package private(set) var serviceUserID: String?
    /// Whether the service carries out an accepted request, so that no client waits.
    package private(set) var isAccepted = false
    private let roleNames: Set<String>

    package init(
        userID: String, userName: String, userDomainID: String, userDomainName: String, scope: Scope,
        projectName: String? = nil, projectDomainID: String? = nil, projectDomainName: String? = nil,
        domainName: String? = nil, roles: [RoleReference], token: TokenPayload, accessRules: JSONValue? = nil
    ) {
        self.userID = userID
        self.userName = userName
        self.userDomainID = userDomainID
        self.userDomainName = userDomainName
        self.scope = scope
        self.projectName = projectName
        self.projectDomainID = projectDomainID
        self.projectDomainName = projectDomainName
        self.domainName = domainName
        self.roles = roles
        self.token = token
        self.accessRules = accessRules
        self.roleNames = Set(roles.map { $0.name.lowercased() })
    }

    /// The project of the token; nil for other scopes.
    package var projectID: String? {
        if case .project(let id) = scope { id.text } else { nil }
    }

    package var domainID: String? {
        if case .domain(let id) = scope { id.text } else { nil }
    }

    package var isSystemScoped: Bool { scope == .system }

    /// Role names are compared case-insensitively, as in OpenStack.
    package func has(role: String) -> Bool { roleNames.contains(role.lowercased()) }

    /// Whether the called service's rule `admin_required` holds. Set by its policy only.
    package internal(set) var isAdmin = false

    private static let serviceRole = "service"

    private func with(roles: [RoleReference], service: String? = nil) -> Caller {
        var caller = Caller(
            userID: userID, userName: userName, userDomainID: userDomainID, userDomainName: userDomainName, scope: scope,
            projectName: projectName, projectDomainID: projectDomainID, projectDomainName: projectDomainName,
            domainName: domainName, roles: roles, token: token, accessRules: accessRules)
        caller.serviceUserID = service
        return caller
    }

    /// This service without the other roles of its user.
    package func asServiceOnly() -> Caller {
        with(roles: roles.filter { $0.name.lowercased() == Caller.serviceRole })
    }

    /// The subject's rights plus `role:service`, because the caller is a service.
    package func acting(for subject: Caller) -> Caller {
        let others = subject.roles.filter { $0.name.lowercased() != Caller.serviceRole }
        return subject.with(roles: others + asServiceOnly().roles, service: userID)
    }

    /// A member of the subject's project, for a service that carries out an accepted request.
    package static func accepted(_ subject: ActingSubject) -> Caller {
        let scope = Scope.project(ID(subject.project))
        let none = TokenPayload(
            userID: subject.user, scope: scope, methods: [], issuedAt: Timestamp(seconds: 0), expiresAt: Timestamp(seconds: 0), auditIDs: []
        )
        return Caller(
            userID: subject.user, userName: "", userDomainID: "", userDomainName: "", scope: scope,
            roles: ["member", "reader", serviceRole].map { RoleReference(id: "", name: $0) }, token: none)
    }

    /// A member of the subject's project; the calling service has already authorized the user.
    package func acting(forAccepted subject: ActingSubject) -> Caller {
        var member = Caller.accepted(subject)
        member.token = token
        var caller = acting(for: member)
        caller.isAccepted = true
        return caller
    }

    /// The database share of the caller's requests; requests of services use the control plane's share.
    package var databaseLane: DatabaseScope.Lane {
        // A service's call while its own client waits counts against that client's share.
        let isPlane = has(role: "service") && (serviceUserID == nil || isAccepted)
        return isPlane ? .plane : .tenant(projectID ?? "user \(userID)")
    }

    /// The project of the token.
    ///
    /// - Throws: 403 if the token is not scoped to a project.
    package func requireProject() throws -> String {
        guard let projectID else {
            throw ResourceError.forbidden("This request needs a token that is scoped to a project.")
        }
        return projectID
    }
}
