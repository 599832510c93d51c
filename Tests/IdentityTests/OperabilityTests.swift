import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@testable import IdentityService

/// No request can make the cloud unusable for everyone.
@Suite struct OperabilityTests {
    @Test("S9: sign-on of the services and of the last administrator cannot be removed")
    func s9TheCloudStaysOperable() async throws {
        try await IdentityCloud.with { cloud in
            let token = try await cloud.admin()
            let (admin, wolke) = (try await cloud.id("users", "admin"), try await cloud.id("users", "wolke"))
            let (adminProject, service) = (try await cloud.id("projects", "admin"), try await cloud.id("projects", "service"))
            let (adminRole, serviceRole) = (try await cloud.id("roles", "admin"), try await cloud.id("roles", "service"))
            let rules: JSONValue = ["multi_factor_auth_rules": [["password", "totp"]]]
            let system = "system/users/\(admin)/roles/\(adminRole)"
            #expect(try await cloud.call("DELETE", "/v3/\(system)", token: token).status == 204)
            for (method, path, body) in [
                ("PATCH", "domains/default", ["domain": ["enabled": false]]), ("DELETE", "domains/default", nil),
                ("PATCH", "projects/default", ["project": ["enabled": false]]),
                ("PATCH", "users/\(admin)", ["user": ["enabled": false]]), ("DELETE", "users/\(admin)", nil),
                ("PATCH", "users/\(admin)", ["user": ["options": rules]]),
                ("PATCH", "users/\(admin)", ["user": ["password": .null]]),
                ("PATCH", "users/\(wolke)", ["user": ["enabled": false]]), ("DELETE", "users/\(wolke)", nil),
                ("PATCH", "users/\(wolke)", ["user": ["name": "wind"]]),
                ("PATCH", "users/\(wolke)", ["user": ["options": rules]]),
                ("PATCH", "projects/\(adminProject)", ["project": ["enabled": false]]), ("DELETE", "projects/\(adminProject)", nil),
                ("PATCH", "projects/\(service)", ["project": ["enabled": false]]), ("DELETE", "projects/\(service)", nil),
                ("PATCH", "projects/\(service)", ["project": ["name": "servitude"]]),
                ("DELETE", "roles/\(adminRole)", nil), ("PATCH", "roles/\(adminRole)", ["role": ["name": "root"]]),
                ("DELETE", "roles/\(serviceRole)", nil), ("PATCH", "roles/\(serviceRole)", ["role": ["name": "servants"]]),
                ("DELETE", "projects/\(adminProject)/users/\(admin)/roles/\(adminRole)", nil),
                ("DELETE", "projects/\(service)/users/\(wolke)/roles/\(serviceRole)", nil),
            ] as [(String, String, JSONValue?)] {
                let answer = try await cloud.call(method, "/v3/\(path)", token: token, body: body)
                #expect(answer.status == 403 && !answer.message.isEmpty, "\(method) \(path) \(answer.status) \(answer.json)")
            }
            _ = try await cloud.token("wolke", project: "service", password: "service-pw")
            _ = try await cloud.admin()
            // Other changes are still possible: a new password, another administrator, then removing the first one.
            #expect(
                try await cloud.call("PATCH", "/v3/domains/default", token: token, body: ["domain": ["description": "d"]]).status == 200)
            let second = try await cloud.make("users", "user", ["name": "second", "password": "second-pw"]).id
            #expect(try await cloud.call("PUT", "/v3/system/users/\(second)/roles/\(adminRole)", token: token).status == 204)
            let other = try await cloud.token("second", scope: ["system": ["all": true]])
            #expect(try await cloud.call("DELETE", "/v3/users/\(admin)", token: other).status == 204)
            #expect(try await cloud.call("DELETE", "/v3/users/\(second)", token: other).status == 403)
        }
    }

    @Test func refusalsNameTheLastOperator() async throws {
        try await IdentityCloud.with { cloud in
            let token = try await cloud.admin()
            let off: JSONValue = ["domain": ["enabled": false]]
            let one = try await cloud.call("PATCH", "/v3/domains/default", token: token, body: off)
            #expect(one.status == 403 && one.message.contains("admin is the last user with the role admin"), "\(one.json)")
            let second = try await cloud.make("users", "user", ["name": "second", "password": "second-pw"]).id
            let role = try await cloud.id("roles", "admin")
            #expect(try await cloud.call("PUT", "/v3/system/users/\(second)/roles/\(role)", token: token).status == 204)
            let both = try await cloud.call("PATCH", "/v3/domains/default", token: token, body: off)
            #expect(both.status == 403 && both.message.contains("all 2 users with the role admin (admin, second)"), "\(both.json)")
        }
    }

    @Test("S9: multi-factor rules cannot lock out the last administrator")
    func s9FactorRulesLeaveAWayIn() async throws {
        try await IdentityCloud.with { cloud in
            let token = try await cloud.admin()
            let (admin, wolke) = (try await cloud.id("users", "admin"), try await cloud.id("users", "wolke"))
            func status(_ user: String, _ rules: JSONValue) async throws -> Int {
                try await cloud.call(
                    "PATCH", "/v3/users/\(user)", token: token, body: ["user": ["options": ["multi_factor_auth_rules": rules]]]
                ).status
            }
            #expect(try await status(admin, [["password", "totp"]]) == 403)
            let stored = try await cloud.call(
                "POST", "/v3/credentials", token: token,
                body: ["credential": ["type": "totp", "blob": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "user_id": .string(admin)]])
            #expect(stored.status == 201, "\(stored.json)")
            // Tokens and application credentials expire, and nothing creates new ones.
            for rules: JSONValue in [
                [["token"]], [["application_credential"]], [["password", "application_credential"]], [["password", "token"]],
                [["token"], ["totp", "application_credential"]],
            ] {
                #expect(try await status(admin, rules) == 403, "\(rules)")
            }
            for rules: JSONValue in [[["password"]], [["token"], ["password"]], [["token"], ["password", "totp"]], [["totp"]]] {
                #expect(try await status(admin, rules) == 200, "\(rules)")
            }
            let credential = stored.json["credential"]?.id ?? ""
            #expect(try await cloud.call("DELETE", "/v3/credentials/\(credential)", token: token).status == 403)
            // Services sign on with only a password.
            #expect(try await status(wolke, [["token"], ["password", "totp"]]) == 403)
            #expect(try await status(wolke, [["token"], ["password"]]) == 200)
        }
    }

    /// Two administrators remove each other at the same time: one stays.
    @Test("S9: two administrators who remove each other at once leave one")
    func s9OneAdministratorStays() async throws {
        try await IdentityCloud.with { cloud in
            let token = try await cloud.admin()
            let role = try await cloud.id("roles", "admin")
            let ids = try await [cloud.id("users", "admin"), cloud.make("users", "user", ["name": "second", "password": "second-pw"]).id]
            #expect(try await cloud.call("PUT", "/v3/system/users/\(ids[1])/roles/\(role)", token: token).status == 204)
            let tokens = try await [token, cloud.token("second", scope: ["system": ["all": true]])]
            let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
                for (token, id) in zip(tokens, ids.reversed()) {
                    group.addTask { try await cloud.call("DELETE", "/v3/users/\(id)", token: token).status }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(statuses.count { $0 == 204 } == 1, "\(statuses)")
        }
    }

    @Test("S7: wrong passwords cannot lock out the services")
    func s7ServicesAreNeverLocked() async throws {
        try await IdentityCloud.with(options: IdentityOptions(lockoutAttempts: 2)) { cloud in
            for _ in 0..<4 {
                #expect(try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("wolke", "wrong")).status == 401)
                #expect(try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("demo", "wrong")).status == 401)
            }
            _ = try await cloud.token("wolke", project: "service", password: "service-pw")
            #expect(try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("demo", "demo-pw")).status == 401)
        }
    }

    /// Recovery by the operator, regardless of the state of the database.
    @Test("S9: the operator can restore an administrator's access") func s9Recovery() async throws {
        try await IdentityCloud.with { cloud in
            try await cloud.database.write { connection in
                try connection.execute("UPDATE projects SET enabled = false")
                try connection.execute(
                    """
                    UPDATE users SET enabled = false, password_hash = NULL, failed_attempts = 9, failed_at = now(),
                        options = '{"multi_factor_auth_rules": [["password", "totp"]]}'
                    """)
                try connection.execute("DELETE FROM role_assignments")
                try connection.execute("UPDATE roles SET name = 'root' WHERE name = 'admin'")
            }
            let plan = try BootstrapPlan(IdentityCloud.plan)
            // A bootstrap restores the service users and does not change tenants.
            try await cloud.bootstrap().run(plan)
            cloud.time.advance(by: .seconds(1))
            _ = try await cloud.token("wolke", project: "service", password: "service-pw")
            #expect(try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("demo", "demo-pw")).status == 401)
            try await cloud.bootstrap(restoring: true).run(plan)
            cloud.time.advance(by: .seconds(1))
            let admin = try await cloud.admin()
            #expect(try await cloud.call("GET", "/v3/users", token: admin).status == 200)
            _ = try await cloud.token("demo", project: "demo")
        }
    }
}
