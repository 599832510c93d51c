import Authorization
import Database
import IdentityCore
import Inspections
import JSON
import Kernel
import ServiceCatalog
import TestKit
import Testing

@testable import IdentityService

/// Operators' projects remain so until an administrator removes the mark.
@Suite struct LastingCloudProjectTests {
    private static let domainScope: JSONValue = ["domain": ["id": "default"]]

    /// A project with the manager of its domain, and a user and a group of that domain.
    private struct Tenant {
        let cloud: IdentityCloud
        let admin: String
        let manager: String
        let user: String
        let group: String
        let member: String

        init(_ cloud: IdentityCloud) async throws {
            self.cloud = cloud
            admin = try await cloud.admin()
            manager = try await cloud.token("domainer", scope: LastingCloudProjectTests.domainScope)
            user = try await cloud.make("users", "user", ["name": "mine"]).id
            group = try await cloud.make("groups", "group", ["name": "ours"]).id
            member = try await cloud.id("roles", "member")
        }

        func project(_ name: String, in parent: String = "default") async throws -> String {
            try await cloud.make("projects", "project", ["name": .string(name), "parent_id": .string(parent)]).id
        }

        /// Requires that an administrator's request succeeds.
        func put(_ path: String, _ method: String = "PUT", body: JSONValue? = nil) async throws {
            let answer = try await cloud.call(method, "/v3/\(path)", token: admin, body: body)
            try #require(answer.status < 300, "\(method) \(path) \(answer.json)")
        }

        /// The answer to a manager who assigns a role.
        func assigning(on project: String) async throws -> IdentityCloud.Answer {
            try await cloud.call("PUT", "/v3/projects/\(project)/users/\(user)/roles/\(member)", token: manager)
        }

        func mark(_ project: String, _ value: JSONValue, token: String? = nil) async throws -> IdentityCloud.Answer {
            try await cloud.call(
                "PATCH", "/v3/projects/\(project)", token: token ?? admin, body: ["project": ["cloud_project": value]])
        }

        func findings() async throws -> [String] {
            try await cloud.database.read { connection in try IdentityInspections.all.flatMap { try $0.findings(connection) } }.map(\.words)
        }
    }

    @Test(
        "S8: a project stays protected when its last operator leaves, until an administrator takes the mark away",
        arguments: CloudProjectTests.CloudProjectReason.allCases)
    func s8OperatorsLeave(reason: CloudProjectTests.CloudProjectReason) async throws {
        try await IdentityCloud.with { cloud in
            let tenant = try await Tenant(cloud)
            let project = try await reason.arrange(cloud)
            for (table, name) in [("users", "operator"), ("groups", "operators")] where reason != .bootstrapped {
                try await tenant.put("\(table)/\(cloud.id(table, name))", "DELETE")
            }
            let refused = try await tenant.assigning(on: project)
            #expect(refused.status == 403, "\(refused.json)")
            #expect(refused.message.contains("is a cloud project"))
            // The first administrator has no role in the project any more.
            let admin = reason == .bootstrapped ? try await cloud.token("admin", scope: ["system": ["all": true]]) : tenant.admin
            let cleared = try await tenant.mark(project, false, token: admin)
            #expect(cleared.status == 200, "\(cleared.json)")
            #expect(cleared.json["project"]?["cloud_project"] == false)
            #expect(try await tenant.assigning(on: project).status == 204)
        }
    }

    @Test("S8: projects created below an inherited operator's role are marked") func s8NewProjects() async throws {
        try await IdentityCloud.with { cloud in
            let tenant = try await Tenant(cloud)
            let top = try await tenant.project("top")
            let operatorID = try await cloud.make("users", "user", ["name": "operator"]).id
            try await tenant.put("OS-INHERIT/projects/\(top)/users/\(operatorID)/roles/\(cloud.id("roles", "admin"))/inherited_to_projects")
            let leaf = try await tenant.project("leaf", in: top)
            try await tenant.put("users/\(operatorID)", "DELETE")
            #expect(try await tenant.assigning(on: leaf).status == 403)
            #expect(try await tenant.assigning(on: top).status == 204)
        }
    }

    @Test("S8: marks of assignments by an older release are set by the periodic task") func s8PeriodicMarks() async throws {
        try await IdentityCloud.with { cloud in
            let tenant = try await Tenant(cloud)
            let project = try await tenant.project("p")
            let (operatorID, role) = (try await cloud.make("users", "user", ["name": "operator"]).id, try await cloud.id("roles", "admin"))
            try await cloud.database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO role_assignments (role_id, user_id, project_id, created_at)
                    VALUES (\(role), \(operatorID), \(project), \(cloud.identity.ambient.now))
                    """)
            }
            try await cloud.identity.runPeriodicTasksOnce()
            try await cloud.database.write { try $0.execute("DELETE FROM role_assignments WHERE user_id = \(operatorID)") }
            #expect(try await tenant.assigning(on: project).status == 403)
        }
    }

    @Test("S8: only administrators set and clear the mark of a cloud project") func s8Marks() async throws {
        try await IdentityCloud.with { cloud in
            let tenant = try await Tenant(cloud)
            let project = try await tenant.project("p")
            for value in [true, false, "true"] as [JSONValue] {
                let refused = try await tenant.mark(project, value, token: tenant.manager)
                #expect(refused.status == 403, "\(refused.json)")
            }
            let path = "/v3/projects"
            let created = try await cloud.call(
                "POST", path, token: tenant.manager, body: ["project": ["name": "q", "cloud_project": true, "domain_id": "default"]])
            #expect(created.status == 403, "\(created.json)")
            #expect(try await tenant.assigning(on: project).status == 204)
            // As the stock client's --property sends it.
            #expect(try await tenant.mark(project, "true").json["project"]?["cloud_project"] == true)
            #expect(try await tenant.mark(project, "maybe").status == 400)
            #expect(try await tenant.mark("default", true).status == 400)
            #expect(try await tenant.assigning(on: project).status == 403)
            let listed = try await cloud.call("GET", "\(path)?cloud_project=true", token: tenant.admin)
            #expect(listed.json["projects"]?.arrayValue?.compactMap { $0["name"]?.stringValue }.sorted() == ["admin", "p", "service"])
            let own = try await cloud.call(
                "POST", path, token: tenant.admin, body: ["project": ["name": "q", "cloud_project": true, "domain_id": "default"]])
            #expect(own.json["project"]?["cloud_project"] == true, "\(own.json)")
        }
    }

    @Test("S8: what an administrator assigned in a former cloud project counts as from before when it is one again")
    func s8ConfirmationsEnd() async throws {
        try await IdentityCloud.with { cloud in
            let tenant = try await Tenant(cloud)
            let project = try await tenant.project("p")
            let group = try await cloud.make("groups", "group", ["name": "g"]).id
            func confirmed() async throws -> [Bool] {
                try await cloud.database.read {
                    try $0.query("SELECT confirmed FROM role_assignments WHERE group_id = \(group)").map { try $0.bool("confirmed") }
                }
            }
            #expect(try await tenant.mark(project, true).status == 200)
            try await tenant.put("projects/\(project)/groups/\(group)/roles/\(tenant.member)")
            #expect(try await confirmed() == [true])
            #expect(try await tenant.mark(project, false).status == 200)
            #expect(try await confirmed() == [false])
            #expect(try await tenant.mark(project, true).status == 200)
            #expect(try await confirmed() == [false])
        }
    }

    @Test("S8: the mark stays while somebody is an operator there, with the reasons") func s8MarksOfOperators() async throws {
        try await IdentityCloud.with { cloud in
            let tenant = try await Tenant(cloud)
            let (top, adminRole) = (try await tenant.project("top"), try await cloud.id("roles", "admin"))
            let project = try await tenant.project("p", in: top)
            let operatorID = try await cloud.make("users", "user", ["name": "operator"]).id
            let group = try await cloud.make("groups", "group", ["name": "operators"]).id
            let service = try await cloud.id("users", "wolke")
            let preferring: JSONValue = ["user": ["default_project_id": .string(project)]]
            let preferringNone: JSONValue = ["user": ["default_project_id": nil]]
            let direct = "projects/\(project)/groups/\(group)/roles/\(adminRole)"
            let inherited = "OS-INHERIT/projects/\(top)/users/\(operatorID)/roles/\(adminRole)/inherited_to_projects"
            let plane = "projects/\(project)/users/\(service)/roles/\(tenant.member)"
            let system = "system/users/\(operatorID)/roles/\(adminRole)"
            try await tenant.put(system)
            for (begin, end, body, reason) in [
                (("PUT", direct), ("DELETE", direct), nil, "the group operators has the role admin there"),
                (("PUT", inherited), ("DELETE", inherited), nil, "operator has the role admin there, inherited from the project top"),
                (("PUT", plane), ("DELETE", plane), nil, "the operators' user wolke has the role member there"),
                (
                    ("PATCH", "users/\(operatorID)"), ("PATCH", "users/\(operatorID)"), preferring,
                    "it is the default project of operator, who is an operator"
                ),
            ] as [((String, String), (String, String), JSONValue?, String)] {
                try await tenant.put(begin.1, begin.0, body: body)
                let refused = try await tenant.mark(project, false)
                #expect(refused.status == 409, "\(reason) \(refused.json)")
                #expect(refused.message.contains(reason), "\(refused.message)")
                // The change removes no required right of service users: only `service` is protected.
                try await tenant.put(end.1, end.0, body: body == nil ? nil : preferringNone)
                #expect(try await tenant.mark(project, false).status == 200)
            }
        }
    }

    @Test("S8: a role assigned by a manager while the project becomes the operators' is refused") func s8ConcurrentAssignment() async throws
    {
        try await IdentityCloud.with { cloud in
            let tenant = try await Tenant(cloud)
            let project = try await tenant.project("p")
            let cloudProjects = cloud.identity.cloudProjects
            let assigning = try await cloud.database.write { connection in
                try cloudProjects.lock(connection)
                let task = Task { try await tenant.assigning(on: project) }
                try cloudProjects.mark(connection, also: "p.id = \(project)")
                // The manager's request has been decided and waits for this transaction.
                for _ in 0..<3000 {
                    let waiting = try connection.query(
                        """
                        SELECT 1 AS one FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 8025
                            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                        """)
                    if !waiting.isEmpty { break }
                    try connection.query("SELECT pg_sleep(0.01)::text")
                }
                return task
            }
            let answer = try await assigning.value
            #expect(answer.status == 403, "\(answer.json)")
        }
    }

    @Test("S8: roles from before a project became the operators' are reported until they are removed or repeated")
    func s8AssignmentsFromBefore() async throws {
        try await IdentityCloud.with { cloud in
            let tenant = try await Tenant(cloud)
            let project = try await tenant.project("p")
            let (role, adminRole) = (tenant.member, try await cloud.id("roles", "admin"))
            let boss = try await cloud.make("users", "user", ["name": "boss"]).id
            try await tenant.put("system/users/\(boss)/roles/\(adminRole)")
            let direct = "projects/\(project)/users/\(tenant.user)/roles/\(role)"
            let ofGroup = "projects/\(project)/groups/\(tenant.group)/roles/\(role)"
            let inherited = "OS-INHERIT/domains/default/users/\(tenant.user)/roles/\(role)/inherited_to_projects"
            for path in [direct, ofGroup, inherited] {
                let given = try await cloud.call("PUT", "/v3/\(path)", token: tenant.manager)
                // The domain has cloud projects from the start, so the manager may never assign an inherited role.
                #expect(given.status == (path == inherited ? 403 : 204), "\(given.json)")
            }
            try await cloud.database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO role_assignments (role_id, user_id, domain_id, inherited, created_at)
                    VALUES (\(role), \(tenant.user), 'default', true, \(cloud.identity.ambient.now))
                    """)
            }
            try await tenant.put("projects/\(project)/users/\(boss)/roles/\(role)")
            let operatorID = try await cloud.make("users", "user", ["name": "operator"]).id
            try await tenant.put("projects/\(project)/users/\(operatorID)/roles/\(adminRole)")
            // Not reported: what an administrator assigns from now on.
            let later = try await cloud.make("users", "user", ["name": "later"]).id
            try await tenant.put("projects/\(project)/users/\(later)/roles/\(role)")
            let commands = [
                "\(role) --group \(tenant.group) --project \(project)", "\(role) --user \(tenant.user) --domain default --inherited",
                "\(role) --user \(tenant.user) --project \(project)",
            ]
            let found = try await tenant.findings()
            #expect(found.count == 3, "\(found)")
            for command in commands {
                #expect(found.contains { $0.contains("osctl role remove \(command). Keep it: osctl role add \(command)") }, "\(found)")
            }
            try await tenant.put(direct)
            try await tenant.put(inherited)
            try await tenant.put(ofGroup, "DELETE")
            #expect(try await tenant.findings() == [])
        }
    }

    @Test("S8: operators' roles are those of the policy in force") func s8PolicyRoles() async throws {
        try await IdentityCloud.with(policy: ["admin_required": "role:admin or role:CloudAdmin"]) { cloud in
            let tenant = try await Tenant(cloud)
            let project = try await tenant.project("p")
            let role = try await cloud.make("roles", "role", ["name": "cloudadmin"]).id
            let operatorID = try await cloud.make("users", "user", ["name": "operator", "password": "operator-pw"]).id
            let assignment = "projects/\(project)/users/\(operatorID)/roles/\(role)"
            try await tenant.put(assignment)
            #expect(try await tenant.assigning(on: project).status == 403)
            // It also counts as a role of the last administrator.
            for (path, table) in [("system/users", "admin"), ("projects/\(try await cloud.id("projects", "admin"))/users", "admin")] {
                try await tenant.put("\(path)/\(cloud.id("users", table))/roles/\(cloud.id("roles", "admin"))", "DELETE")
            }
            let token = try await cloud.token("operator", project: "p")
            let refused = try await cloud.call("DELETE", "/v3/\(assignment)", token: token)
            #expect(refused.status == 403, "\(refused.json)")
            #expect(refused.message.contains("operator is the last user with the role admin or cloudadmin"), "\(refused.message)")
        }
    }

    @Test(
        "S8: the roles, projects and users that make operators are read from the rules",
        arguments: [
            ([:], ["admin", "service"], ["admin"], [], []),
            (["admin_required": "role:cloudadmin"], ["admin", "cloudadmin", "service"], ["cloudadmin"], [], []),
            (
                ["admin_required": "rule:chief and role:member", "chief": "role:chief or role:boss"],
                ["admin", "boss", "chief", "service"],
                ["boss", "chief", "member"], [], []
            ), (["admin_required": "role:manager"], ["admin", "manager", "service"], ["manager"], [], []),
            (["admin_required": "role:admin or (role:member and project_id:p1)"], ["admin", "service"], ["admin"], ["p1"], []),
            (["admin_required": "role:admin or user_id:u1"], ["admin", "service"], ["admin"], [], ["u1"]),
            (["admin_required": "not (not role:x or role:y) and not project_id:p1"], ["admin", "service", "x"], ["x"], [], []),
            (["admin_required": "role:x and system_scope:all"], ["admin", "service", "x"], ["x"], [], []),
            (["admin_required": "role:admin or (role:z and project_id:%(project_id)s)"], ["admin", "service"], ["admin"], [], []),
            (["service_role": "role:robot"], ["admin", "robot", "service"], ["admin"], [], []),
        ] as [([String: String], [String], [String], [String], [String])])
    func s8OperatorRoles(
        rules: [String: String], names: [String], administrators: [String], projects: [String], users: [String]
    ) throws {
        let roles = try OperatorRoles(overrides: rules)
        #expect(roles.names == names)
        #expect(roles.administrators == administrators)
        #expect(roles.projects == projects)
        #expect(roles.users == users)
    }

    @Test("S8: a rule about a domain says nothing about the projects of others") func s8RulesAboutDomains() throws {
        func roles(_ condition: String) throws -> OperatorRoles {
            try OperatorRoles(overrides: ["admin_required": "role:admin or (role:member and \(condition))"])
        }
        for condition in ["domain_id:d1", "system_scope:all", "domain_id:d1 and user_id:u1"] {
            let roles = try roles(condition)
            #expect(roles.names == ["admin", "service"] && roles.administrators == ["admin"], "\(condition)")
            #expect(roles.users == [] && roles.projectDomains == [] && roles.userDomains == [])
        }
        #expect(try roles("project_domain_id:d1").names == ["admin", "service"])
        #expect(try roles("project_domain_id:d1").projectDomains == ["d1"])
        #expect(try roles("user_domain_id:d1").names == ["admin", "service"])
        #expect(try roles("user_domain_id:d1").userDomains == ["d1"])
        #expect(try roles("user_domain_id:d1 and project_id:p1").projects == ["p1"])
    }

    @Test("S8: rules about domains mark the projects that they are about", arguments: ["domain_id", "user_domain_id", "project_domain_id"])
    func s8DomainsOfOperators(attribute: String) async throws {
        let rule = "role:admin or (role:member and \(attribute):default)"
        try await IdentityCloud.with(policy: ["admin_required": rule]) { cloud in
            let tenant = try await Tenant(cloud)
            let domain = try await cloud.make("domains", "domain", ["name": "others"]).id
            func project(_ name: String, in domain: String) async throws -> String {
                try await cloud.make("projects", "project", ["name": .string(name), "domain_id": .string(domain)]).id
            }
            func isMarked(_ id: String) async throws -> Bool {
                try await cloud.identity.database.read {
                    try $0.query("SELECT cloud_project FROM projects WHERE id = \(id)")[0].bool("cloud_project")
                }
            }
            let member = try await cloud.id("roles", "member")
            let other = try await cloud.make("users", "user", ["name": "other-user", "domain_id": .string(domain)]).id
            let theirs = try await project("theirs", in: domain)
            let ours = try await project("ours", in: "default")
            for id in [theirs, ours] { try await tenant.put("projects/\(id)/users/\(other)/roles/\(member)") }
            #expect(try await !isMarked(theirs), "\(attribute)")
            #expect(try await isMarked(ours) == (attribute == "project_domain_id"), "\(attribute)")
            let mixed = try await project("mixed", in: domain)
            try await tenant.put("projects/\(mixed)/users/\(tenant.user)/roles/\(member)")
            #expect(try await isMarked(mixed) == (attribute == "user_domain_id"), "\(attribute)")
        }
    }

    @Test("Rules that refer to themselves or have too many alternatives are refused") func ruleLimits() throws {
        let choice = "(role:a or role:b or role:c or role:d or role:e or role:f or role:g or role:h)"
        let many = (0..<4).map { choice.replacing("role:", with: "role:r\($0)") }.joined(separator: " and ")
        for rule in ["rule:admin_required", many] {
            #expect(throws: ResourceError.self) { try OperatorRoles(overrides: ["admin_required": rule]) }
        }
    }
}
