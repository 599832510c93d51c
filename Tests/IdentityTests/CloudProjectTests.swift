import Database
import JSON
import TestKit
import Testing

@testable import IdentityService

/// The projects of the cloud's operators, in which only cloud administrators assign roles.
@Suite struct CloudProjectTests {
    private static let domainScope: JSONValue = ["domain": ["id": "default"]]

    /// A way in which a project becomes an operators' project.
    enum CloudProjectReason: String, CaseIterable, Sendable {
        case bootstrapped = "named by the bootstrap file, and default project of no administrator any more"
        case formerDefault = "an administrator's former default project, with the role"
        case group = "with an administrator group"
        case inheritedFromDomain = "inherits admin from the domain"
        case inheritedFromParent = "inherits admin from a parent project"
        case inheritedByGroup = "inherits admin of a group"
        case domainRole = "with a domain-specific role that implies admin"
        case service = "with somebody who has the role service"
        case impliedService = "with a role that implies service"
        case defaultOfInherited = "default project of a user who inherits admin elsewhere"
        case defaultOfSystemAdmin = "default project of a user with admin on the system"
        case defaultOfGroupMember = "default project of a member of an administrators' group"

        /// - Returns: the project's id.
        func arrange(_ cloud: IdentityCloud) async throws -> String {
            let admin = try await cloud.admin()
            func put(_ path: String) async throws {
                let answer = try await cloud.call("PUT", "/v3/\(path)", token: admin)
                try #require(answer.status < 300, "\(path) \(answer.json)")
            }
            if self == .bootstrapped { return try await arrangeBootstrapped(cloud, admin) }
            let (adminRole, service) = (try await cloud.id("roles", "admin"), try await cloud.id("roles", "service"))
            let top = try await cloud.make("projects", "project", ["name": "top"]).id
            let project = try await cloud.make("projects", "project", ["name": "p", "parent_id": .string(top)]).id
            let user = try await cloud.make("users", "user", ["name": "operator"]).id
            let group = try await cloud.make("groups", "group", ["name": "operators"]).id
            func prefer() async throws {
                let body: JSONValue = ["user": ["default_project_id": .string(project)]]
                try #require(try await cloud.call("PATCH", "/v3/users/\(user)", token: admin, body: body).status == 200)
            }
            let other = try await cloud.make("domains", "domain", ["name": "elsewhere"]).id
            switch self {
            case .bootstrapped: break
            case .formerDefault:
                try await prefer()
                try await put("projects/\(project)/users/\(user)/roles/\(adminRole)")
                let body: JSONValue = ["user": ["default_project_id": .string(top)]]
                try #require(try await cloud.call("PATCH", "/v3/users/\(user)", token: admin, body: body).status == 200)
            case .group: try await put("projects/\(project)/groups/\(group)/roles/\(adminRole)")
            case .inheritedFromDomain:
                try await put("OS-INHERIT/domains/default/users/\(user)/roles/\(adminRole)/inherited_to_projects")
            case .inheritedFromParent:
                try await put("OS-INHERIT/projects/\(top)/users/\(user)/roles/\(adminRole)/inherited_to_projects")
            case .inheritedByGroup:
                try await put("OS-INHERIT/domains/default/groups/\(group)/roles/\(adminRole)/inherited_to_projects")
            case .domainRole:
                let role = try await cloud.make("roles", "role", ["name": "chief", "domain_id": "default"]).id
                // The API refuses that a role implies `admin`; older databases may have it.
                try await cloud.database.write { connection in
                    try connection.execute(
                        "INSERT INTO implied_roles (prior_role_id, implied_role_id) VALUES (\(role), \(adminRole))")
                }
                try await put("projects/\(project)/users/\(user)/roles/\(role)")
            case .service: try await put("projects/\(project)/users/\(user)/roles/\(service)")
            case .impliedService:
                let role = try await cloud.make("roles", "role", ["name": "robot"]).id
                try await put("roles/\(role)/implies/\(service)")
                try await put("projects/\(project)/groups/\(group)/roles/\(role)")
            case .defaultOfInherited:
                try await prefer()
                try await put("OS-INHERIT/domains/\(other)/users/\(user)/roles/\(adminRole)/inherited_to_projects")
            case .defaultOfSystemAdmin:
                try await prefer()
                try await put("system/users/\(user)/roles/\(adminRole)")
            case .defaultOfGroupMember:
                try await prefer()
                try await put("domains/\(other)/groups/\(group)/roles/\(adminRole)")
                try await put("groups/\(group)/users/\(user)")
            }
            return project
        }

        private func arrangeBootstrapped(_ cloud: IdentityCloud, _ admin: String) async throws -> String {
            let (me, demo) = (try await cloud.id("users", "admin"), try await cloud.id("projects", "demo"))
            let project = try await cloud.id("projects", "admin")
            let answer = try await cloud.call(
                "PATCH", "/v3/users/\(me)", token: admin, body: ["user": ["default_project_id": .string(demo)]])
            try #require(answer.status == 200)
            let role = try await cloud.id("roles", "admin")
            let system = try await cloud.token("admin", scope: ["system": ["all": true]])
            let revoked = try await cloud.call("DELETE", "/v3/projects/\(project)/users/\(me)/roles/\(role)", token: system)
            try #require(revoked.status == 204, "\(revoked.json)")
            return project
        }
    }

    @Test("S8: a domain's manager gives nobody rights in a cloud project", arguments: CloudProjectReason.allCases)
    func s8CloudProjects(reason: CloudProjectReason) async throws {
        try await IdentityCloud.with { cloud in
            let manager = try await cloud.token("domainer", scope: CloudProjectTests.domainScope)
            let user = try await cloud.make("users", "user", ["name": "mine"]).id
            let group = try await cloud.make("groups", "group", ["name": "ours"]).id
            let member = try await cloud.id("roles", "member")
            let project = try await reason.arrange(cloud)
            for (method, path, body) in [
                ("PUT", "projects/\(project)/users/\(user)/roles/\(member)", nil),
                ("PUT", "projects/\(project)/groups/\(group)/roles/\(member)", nil),
                ("DELETE", "projects/\(project)/groups/\(group)/roles/\(member)", nil),
                ("PUT", "OS-INHERIT/domains/default/users/\(user)/roles/\(member)/inherited_to_projects", nil),
                ("PUT", "OS-INHERIT/domains/default/groups/\(group)/roles/\(member)/inherited_to_projects", nil),
                ("PUT", "OS-INHERIT/projects/\(project)/users/\(user)/roles/\(member)/inherited_to_projects", nil),
                ("PATCH", "projects/\(project)", ["project": ["enabled": false]]),
                ("PUT", "projects/\(project)/tags/t", nil), ("DELETE", "projects/\(project)", nil),
            ] as [(String, String, JSONValue?)] {
                let answer = try await cloud.call(method, "/v3/\(path)", token: manager, body: body)
                #expect(answer.status == 403, "\(method) \(path) \(answer.json)")
            }
        }
    }

    @Test("S8: what later cloud projects inherit is the cloud's to assign") func s8LaterCloudProjects() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let manager = try await cloud.token("domainer", scope: CloudProjectTests.domainScope)
            let (member, adminRole) = (try await cloud.id("roles", "member"), try await cloud.id("roles", "admin"))
            let user = try await cloud.make("users", "user", ["name": "mine"]).id
            let operatorID = try await cloud.make("users", "user", ["name": "operator"]).id
            let leaf = try await cloud.make("projects", "project", ["name": "leaf"]).id
            let below = "OS-INHERIT/projects/\(leaf)/users/%/roles/"
            let given = below.replacing("%", with: operatorID) + "\(adminRole)/inherited_to_projects"
            #expect(try await cloud.call("PUT", "/v3/\(given)", token: admin).status == 204)
            let wanted = below.replacing("%", with: user) + "\(member)/inherited_to_projects"
            let refused = try await cloud.call("PUT", "/v3/\(wanted)", token: manager)
            #expect(refused.status == 403, "\(refused.json)")
        }
    }

    @Test("S8: administrators of a domain or the system leave its projects to their managers", arguments: ["domains/default", "system"])
    func s8OtherProjectsStayTheManagers(place: String) async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let manager = try await cloud.token("domainer", scope: CloudProjectTests.domainScope)
            let (member, adminRole) = (try await cloud.id("roles", "member"), try await cloud.id("roles", "admin"))
            let user = try await cloud.make("users", "user", ["name": "mine"]).id
            let operatorID = try await cloud.make("users", "user", ["name": "operator"]).id
            #expect(try await cloud.call("PUT", "/v3/\(place)/users/\(operatorID)/roles/\(adminRole)", token: admin).status == 204)
            let demo = try await cloud.id("projects", "demo")
            for (method, path, body) in [
                ("PUT", "projects/\(demo)/users/\(user)/roles/\(member)", nil),
                ("PUT", "OS-INHERIT/projects/\(demo)/users/\(user)/roles/\(member)/inherited_to_projects", nil),
                ("PATCH", "projects/\(demo)", ["project": ["description": "ours"]]),
                ("PATCH", "users/\(user)", ["user": ["password": "new"]]),
                ("DELETE", "projects/\(demo)/users/\(user)/roles/\(member)", nil),
            ] as [(String, String, JSONValue?)] {
                let answer = try await cloud.call(method, "/v3/\(path)", token: manager, body: body)
                #expect(answer.status < 300, "\(method) \(path) \(answer.json)")
            }
        }
    }

    @Test("S8: nobody joins a group with a domain-specific role in a cloud project or another domain")
    func s8DomainSpecificRoles() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let manager = try await cloud.token("domainer", scope: CloudProjectTests.domainScope)
            let me = try await cloud.id("users", "demo")
            let far = try await cloud.make("domains", "domain", ["name": "far"]).id
            let role = try await cloud.make("roles", "role", ["name": "auditor", "domain_id": "default"]).id
            let cloudProject = try await cloud.id("projects", "admin")
            let demo = try await cloud.id("projects", "demo")
            for (index, (path, status)) in [
                ("projects/\(cloudProject)/groups/%/roles/\(role)", 403),
                ("OS-INHERIT/domains/default/groups/%/roles/\(role)/inherited_to_projects", 403),
                ("domains/\(far)/groups/%/roles/\(role)", 403),
                ("projects/\(demo)/groups/%/roles/\(role)", 204),
            ].enumerated() {
                let group = try await cloud.make("groups", "group", ["name": .string("g\(index)")]).id
                let assigned = try await cloud.call("PUT", "/v3/\(path.replacing("%", with: group))", token: admin)
                #expect(assigned.status == 204, "\(path) \(assigned.json)")
                let joined = try await cloud.call("PUT", "/v3/groups/\(group)/users/\(me)", token: manager)
                #expect(joined.status == status, "\(path) \(joined.json)")
            }
        }
    }
}
