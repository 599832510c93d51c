import Authorization
import IdentityCore
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@testable import IdentityService

/// Changes of users and groups that have rights.
@Suite struct ControlTests {
    private static let domainScope: JSONValue = ["domain": ["id": "default"]]

    /// A cloud with users who have more than the roles of the domain `default`, each in a different way.
    private struct Powerful {
        var users: [String: String] = [:]
        var groups: [String: String] = [:]

        init(_ cloud: IdentityCloud) async throws {
            let admin = try await cloud.admin()
            let project = try await cloud.make("projects", "project", ["name": "operations"]).id
            let far = try await cloud.make("domains", "domain", ["name": "far"]).id
            let there = try await cloud.make("projects", "project", ["name": "there", "domain_id": .string(far)]).id
            let custom = try await cloud.make("roles", "role", ["name": "operator"]).id
            let (adminRole, member) = (try await cloud.id("roles", "admin"), try await cloud.id("roles", "member"))
            func put(_ path: String) async throws {
                let answer = try await cloud.call("PUT", "/v3/\(path)", token: admin)
                try #require(answer.status == 204, "\(path) \(answer.json)")
            }
            let places = [
                ("admin on a project", "projects/\(project)/%/roles/\(adminRole)"),
                ("a role on the system", "system/%/roles/\(member)"),
                ("a role in another domain", "domains/\(far)/%/roles/\(member)"),
                ("a role on another domain's project", "projects/\(there)/%/roles/\(member)"),
                ("an inherited role in another domain", "OS-INHERIT/domains/\(far)/%/roles/\(member)/inherited_to_projects"),
                ("a role that a manager has not", "projects/\(project)/%/roles/\(custom)"),
            ]
            for (index, (name, path)) in places.enumerated() {
                let group = try await cloud.make("groups", "group", ["name": .string("g\(index)")]).id
                try await put(path.replacing("%", with: "groups/\(group)"))
                groups[name] = group
                for (kind, member) in [("directly", false), ("by group", true)] {
                    let user = try await cloud.make(
                        "users", "user", ["name": .string("u\(index) \(kind)"), "password": "before"]
                    ).id
                    try await put(member ? "groups/\(group)/users/\(user)" : path.replacing("%", with: "users/\(user)"))
                    users["\(name) \(kind)"] = user
                }
            }
        }
    }

    @Test("S8: a domain's manager cannot change users with more than the domain's roles")
    func s8ManagersDoNotControlMore() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let powerful = try await Powerful(cloud)
            let own = try await cloud.make("users", "user", ["name": "own", "password": "own-pw"]).id
            let plain = try await cloud.make("groups", "group", ["name": "plain"]).id
            let manager = try await cloud.token("domainer", scope: ControlTests.domainScope)
            let member = try await cloud.id("roles", "member")
            let demo = try await cloud.id("projects", "demo")
            func refused(_ what: String, _ method: String, _ path: String, _ body: JSONValue? = nil) async throws {
                let answer = try await cloud.call(method, "/v3/\(path)", token: manager, body: body)
                #expect(answer.status == 403, "\(what): \(method) \(path) \(answer.json)")
            }
            for (name, user) in powerful.users {
                for change: JSONValue in [
                    ["password": "taken"], ["email": "mine@x.example"], ["enabled": false], ["name": "other name"],
                    ["options": ["multi_factor_auth_enabled": false]],
                ] { try await refused(name, "PATCH", "users/\(user)", ["user": change]) }
                try await refused(name, "DELETE", "users/\(user)")
                try await refused(name, "PUT", "groups/\(plain)/users/\(user)")
                try await refused(name, "PUT", "projects/\(demo)/users/\(user)/roles/\(member)")
                try await refused(name, "PUT", "OS-INHERIT/domains/default/users/\(user)/roles/\(member)/inherited_to_projects")
            }
            for (name, group) in powerful.groups {
                try await refused(name, "PUT", "groups/\(group)/users/\(own)")
                try await refused(name, "PATCH", "groups/\(group)", ["group": ["name": "x"]])
                try await refused(name, "DELETE", "groups/\(group)")
                try await refused(name, "PUT", "domains/default/groups/\(group)/roles/\(member)")
            }
            for name in ["admin", "wolke"] {
                let id = try await cloud.id("users", name)
                try await refused(name, "PATCH", "users/\(id)", ["user": ["password": "taken"]])
                try await refused(name, "DELETE", "users/\(id)")
            }
            // Nothing has changed: the old passwords are valid.
            for name in ["u0 directly", "u1 by group"] {
                _ = try await cloud.token(name, scope: "unscoped", password: "before")
            }
            // The administrator may, and the manager may if there are no additional roles.
            let user = try #require(powerful.users["admin on a project directly"])
            #expect(try await cloud.call("PATCH", "/v3/users/\(user)", token: admin, body: ["user": ["password": "x"]]).status == 200)
            for (method, path, body) in [
                ("PUT", "groups/\(plain)/users/\(own)", nil), ("PUT", "projects/\(demo)/users/\(own)/roles/\(member)", nil),
                ("PUT", "domains/default/groups/\(plain)/roles/\(member)", nil),
                ("PATCH", "users/\(own)", ["user": ["password": "new", "email": "x@x.example"]]),
                ("DELETE", "groups/\(plain)/users/\(own)", nil), ("PATCH", "groups/\(plain)", ["group": ["name": "renamed"]]),
                ("DELETE", "users/\(own)", nil), ("DELETE", "groups/\(plain)", nil),
            ] as [(String, String, JSONValue?)] {
                let answer = try await cloud.call(method, "/v3/\(path)", token: manager, body: body)
                #expect(answer.status < 300, "\(method) \(path) \(answer.json)")
            }
        }
    }

    @Test("S8: a manager cannot assign a role that implies more than the manager's roles")
    func s8ImpliedRolesAreCounted() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let manager = try await cloud.token("domainer", scope: ControlTests.domainScope)
            let user = try await cloud.make("users", "user", ["name": "u"]).id
            let demo = try await cloud.id("projects", "demo")
            let managerRole = try await cloud.id("roles", "manager")
            let member = try await cloud.id("roles", "member")
            // A role that managers may assign by its name, but no longer have.
            #expect(try await cloud.call("DELETE", "/v3/roles/\(managerRole)/implies/\(member)", token: admin).status == 204)
            #expect(try await cloud.call("PUT", "/v3/projects/\(demo)/users/\(user)/roles/\(member)", token: manager).status == 403)
            #expect(try await cloud.call("PUT", "/v3/projects/\(demo)/users/\(user)/roles/\(managerRole)", token: manager).status == 204)
        }
    }

    @Test("S8: only the cloud administrator can change a project in which a user is administrator")
    func s8TheAdministratorsProject() async throws {
        try await IdentityCloud.with { cloud in
            let manager = try await cloud.token("domainer", scope: ControlTests.domainScope)
            let project = try await cloud.id("projects", "admin")
            let me = try await cloud.id("users", "demo")
            let member = try await cloud.id("roles", "member")
            for (method, path, body) in [
                ("PATCH", "projects/\(project)", ["project": ["enabled": false]]), ("DELETE", "projects/\(project)", nil),
                ("PUT", "projects/\(project)/users/\(me)/roles/\(member)", nil),
                // Inherited from above, it would be valid there too.
                ("PUT", "OS-INHERIT/domains/default/users/\(me)/roles/\(member)/inherited_to_projects", nil),
                ("PUT", "OS-INHERIT/projects/\(project)/users/\(me)/roles/\(member)/inherited_to_projects", nil),
            ] as [(String, String, JSONValue?)] {
                let answer = try await cloud.call(method, "/v3/\(path)", token: manager, body: body)
                #expect(answer.status == 403, "\(method) \(path) \(answer.json)")
            }
            let admin = try await cloud.admin()
            #expect(try await cloud.call("GET", "/v3/projects/\(project)", token: admin).status == 200)
            let demo = try await cloud.id("projects", "demo")
            let inherited = "/v3/OS-INHERIT/projects/\(demo)/users/\(me)/roles/\(member)/inherited_to_projects"
            #expect(try await cloud.call("PUT", inherited, token: manager).status == 204)
        }
    }

    @Test("S8: whoever has any role in the administrators' project is controlled by the cloud administrator", arguments: [false, true])
    func s8MembersOfTheAdministratorsProject(isInherited: Bool) async throws {
        try await IdentityCloud.with { cloud in
            let manager = try await cloud.token("domainer", scope: ControlTests.domainScope)
            let admin = try await cloud.admin()
            let project = try await cloud.id("projects", "admin")
            let (me, member) = (try await cloud.id("users", "demo"), try await cloud.id("roles", "member"))
            let form: JSONValue = ["group": ["name": "staff", "domain_id": "default"]]
            let creation = try await cloud.call("POST", "/v3/groups", token: admin, body: form)
            let group = creation.json["group"]?["id"]?.stringValue ?? ""
            let join = "/v3/groups/\(group)/users/\(me)"
            #expect(try await cloud.call("PUT", join, token: manager).status == 204)
            #expect(try await cloud.call("DELETE", join, token: manager).status == 204)
            let path =
                isInherited
                ? "OS-INHERIT/domains/default/groups/\(group)/roles/\(member)/inherited_to_projects"
                : "projects/\(project)/groups/\(group)/roles/\(member)"
            #expect(try await cloud.call("PUT", "/v3/\(path)", token: admin).status == 204)
            #expect(try await cloud.call("PUT", join, token: manager).status == 403)
        }
    }

    @Test("S8: only the cloud administrator can change the services' project")
    func s8TheServicesProject() async throws {
        try await IdentityCloud.with { cloud in
            let manager = try await cloud.token("domainer", scope: ControlTests.domainScope)
            let project = try await cloud.id("projects", "service")
            let me = try await cloud.id("users", "demo")
            let member = try await cloud.id("roles", "member")
            for (method, path, body) in [
                ("PATCH", "projects/\(project)", ["project": ["enabled": false]]), ("DELETE", "projects/\(project)", nil),
                ("PUT", "projects/\(project)/tags/t", nil), ("PUT", "projects/\(project)/users/\(me)/roles/\(member)", nil),
            ] as [(String, String, JSONValue?)] {
                let answer = try await cloud.call(method, "/v3/\(path)", token: manager, body: body)
                #expect(answer.status == 403, "\(method) \(path) \(answer.json)")
            }
            #expect(try await cloud.call("GET", "/v3/projects/\(project)", token: manager).status == 200)
        }
    }
}
