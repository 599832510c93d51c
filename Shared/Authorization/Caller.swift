import Database
import JSON
import Kernel

/// Markers for the ids of Identity's resources.
package enum UserKind {}
package enum ProjectKind {}
package enum DomainKind {}
/// Ids of users, projects and domains; not to be mixed up.
package typealias UserID = ID<UserKind>
package typealias ProjectID = ID<ProjectKind>
package typealias DomainID = ID<DomainKind>

/// What a token gives rights over.
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

/// Who makes a request, and with which rights. Comes from a verified token only, never from a header.
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
    /// Access rules of an application credential; nil where the token has none.
    package var accessRules: JSONValue?
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

    /// The project of the token; nil for another scope.
    package var projectID: String? {
        if case .project(let id) = scope { id.text } else { nil }
    }

    package var domainID: String? {
        if case .domain(let id) = scope { id.text } else { nil }
    }

    package var isSystemScoped: Bool { scope == .system }

    /// Role names are compared without regard to case, as in OpenStack.
    package func has(role: String) -> Bool { roleNames.contains(role.lowercased()) }

    package var isAdmin: Bool { has(role: "admin") }

    /// Whose share of the database the caller's requests have: the services' own is the plane's.
    package var databaseLane: DatabaseScope.Lane {
        has(role: "service") ? .plane : .tenant(projectID ?? "user \(userID)")
    }

    /// The project of the token.
    ///
    /// - Throws: 403 when the token is not scoped to a project.
    package func requireProject() throws -> String {
        guard let projectID else {
            throw ResourceError.forbidden("This request needs a token that is scoped to a project.")
        }
        return projectID
    }
}
