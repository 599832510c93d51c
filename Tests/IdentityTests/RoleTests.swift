import Database
import ServiceCatalog
import ServiceKit
import IdentityCore
import JSON
import Kernel
import Telemetry
import TestKit
import Testing
import WebAPI

@testable import IdentityService

@Suite struct RoleTests {
    @Test func assignmentsInAllForms() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let user = try await cloud.id("users", "other")
            let project = try await cloud.id("projects", "demo")
            let group = try await cloud.make("groups", "group", ["name": "g"]).id
            let role = try await cloud.id("roles", "manager")
            for path in [
                "projects/\(project)/users/\(user)", "projects/\(project)/groups/\(group)", "domains/default/users/\(user)",
                "domains/default/groups/\(group)", "system/users/\(user)", "system/groups/\(group)",
            ] {
                let one = "/v3/\(path)/roles/\(role)"
                #expect(try await cloud.call("HEAD", one, token: admin).status == 404)
                #expect(try await cloud.call("PUT", one, token: admin).status == 204)
                #expect(try await cloud.call("PUT", one, token: admin).status == 204)
                #expect(try await cloud.call("HEAD", one, token: admin).status == 204)
                #expect(try await cloud.call("GET", "/v3/\(path)/roles", token: admin).json.names("roles") == ["manager"])
                #expect(try await cloud.call("DELETE", one, token: admin).status == 204)
                #expect(try await cloud.call("DELETE", one, token: admin).status == 404)
            }
            #expect(try await cloud.call("PUT", "/v3/projects/\(project)/users/nobody/roles/\(role)", token: admin).status == 404)
            #expect(try await cloud.call("PUT", "/v3/projects/nowhere/users/\(user)/roles/\(role)", token: admin).status == 404)
            #expect(try await cloud.call("PUT", "/v3/projects/\(project)/users/\(user)/roles/nothing", token: admin).status == 404)
        }
    }

    @Test func effectiveAssignments() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let user = try await cloud.id("users", "other")
            let reader = try await cloud.id("roles", "reader")
            let member = try await cloud.id("roles", "member")
            let demo = try await cloud.id("projects", "demo")
            let group = try await cloud.make("groups", "group", ["name": "g"]).id
            let child = try await cloud.make("projects", "project", ["name": "child", "parent_id": .string(demo)]).id
            for path in [
                "groups/\(group)/users/\(user)",
                "OS-INHERIT/projects/\(demo)/groups/\(group)/roles/\(member)/inherited_to_projects",
            ] { #expect(try await cloud.call("PUT", "/v3/\(path)", token: admin).status == 204) }
            func list(_ query: String) async throws -> [JSONValue] {
                try await cloud.call("GET", "/v3/role_assignments?\(query)", token: admin).json["role_assignments"]?.arrayValue ?? []
            }
            let stored = try await list("group.id=\(group)&include_names")
            #expect(stored.count == 1)
            #expect(stored.first?["scope"]?["OS-INHERIT:inherited_to"] == "projects")
            #expect(stored.first?["group"]?["name"] == "g")
            #expect(stored.first?["scope"]?["project"]?["domain"]?["name"] == "Default")
            let effective = try await list("user.id=\(user)&effective&scope.project.id=\(child)")
            #expect(Set(effective.compactMap { $0["role"]?["id"]?.stringValue }) == [reader, member])
            #expect(try await list("user.id=\(user)&effective&scope.project.id=\(demo)").isEmpty)
            #expect(try await list("scope.project.id=\(demo)&include_subtree=1&effective").count == 3 + 2)
            #expect(try await list("scope.system=all").count == 1)
            // The token contains the same.
            let token = try await cloud.token("other", project: "child")
            let shown = try await cloud.call("GET", "/v3/auth/tokens", token: token, headers: [("X-Subject-Token", token)])
            #expect(shown.json["token"]?["roles"]?.arrayValue?.compactMap { $0["name"]?.stringValue } == ["member", "reader"])
            let projects = try await cloud.call("GET", "/v3/users/\(user)/projects", token: token)
            #expect(projects.json.names("projects").sorted() == ["child", "other"])
        }
    }

    @Test func impliedRoles() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let support = try await cloud.make("roles", "role", ["name": "support"]).id
            let reader = try await cloud.id("roles", "reader")
            let adminRole = try await cloud.id("roles", "admin")
            let path = "/v3/roles/\(support)/implies/\(reader)"
            #expect(try await cloud.call("PUT", path, token: admin).status == 201)
            #expect(try await cloud.call("HEAD", path, token: admin).status == 204)
            #expect(try await cloud.call("PUT", "/v3/roles/\(support)/implies/\(adminRole)", token: admin).status == 403)
            #expect(try await cloud.call("PUT", "/v3/roles/\(support)/implies/\(support)", token: admin).status == 400)
            let inferences = try await cloud.call("GET", "/v3/role_inferences", token: admin)
            #expect(inferences.json["role_inferences"]?.arrayValue?.count == 4)
            #expect(try await cloud.call("DELETE", path, token: admin).status == 204)
            #expect(try await cloud.call("DELETE", path, token: admin).status == 404)
        }
    }

    /// Roles of a domain are not in a token; the roles that they imply are.
    @Test func domainRoles() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let user = try await cloud.make("users", "user", ["name": "u"]).id
            let demo = try await cloud.id("projects", "demo")
            let reader = try await cloud.id("roles", "reader")
            let own = try await cloud.make("roles", "role", ["name": "own", "domain_id": "default"]).id
            #expect(try await cloud.call("PUT", "/v3/roles/\(reader)/implies/\(own)", token: admin).status == 403)
            #expect(try await cloud.call("PUT", "/v3/projects/\(demo)/users/\(user)/roles/\(own)", token: admin).status == 204)
            let list = "/v3/role_assignments?effective&user.id=\(user)"
            #expect(try await cloud.call("GET", list, token: admin).json["role_assignments"] == [])
            #expect(try await cloud.call("PUT", "/v3/roles/\(own)/implies/\(reader)", token: admin).status == 201)
            let effective = try await cloud.call("GET", list, token: admin).json["role_assignments"]?.arrayValue
            #expect(effective?.compactMap { $0["role"]?["id"]?.stringValue } == [reader])
        }
    }

    /// A domain's manager can only assign roles of a manager, only in their own domain.
    @Test func managersAssignOnlyManagerRoles() async throws {
        try await IdentityCloud.with { cloud in
            let manager = try await cloud.token("domainer", scope: ["domain": ["id": "default"]])
            let user = try await cloud.id("users", "other")
            let project = try await cloud.id("projects", "demo")
            let far = try await cloud.make("domains", "domain", ["name": "far"]).id
            let there = try await cloud.make("projects", "project", ["name": "there", "domain_id": .string(far)]).id
            for (role, place, status) in [
                ("member", project, 204), ("manager", project, 204), ("admin", project, 403), ("service", project, 403),
                ("member", there, 403),
            ] {
                let id = try await cloud.id("roles", role)
                let answer = try await cloud.call("PUT", "/v3/projects/\(place)/users/\(user)/roles/\(id)", token: manager)
                #expect(answer.status == status, "\(role) \(answer.json)")
            }
            let member = try await cloud.id("roles", "member")
            #expect(try await cloud.call("PUT", "/v3/system/users/\(user)/roles/\(member)", token: manager).status == 403)
        }
    }

    @Test func operatorsMayChangeTheRules() async throws {
        try await IdentityCloud.with { cloud in
            func module(_ policy: [String: String]) throws -> ServiceModule {
                let identity = cloud.identity
                return try IdentityModule.make(
                    identity,
                    .test(
                        cloud.database, .identity, ambient: identity.ambient, authenticator: identity.authenticator, policy: policy))
            }
            let api = try module(["identity:list_users": "role:member", "identity:list_projects": "!"]).api
            let token = try await cloud.token("demo", project: "demo")
            let admin = try await cloud.admin()
            let listed = await api.respond(to: try IncomingRequest("GET", "/v3/users", headers: ["x-auth-token": token]))
            #expect(listed.status == 200)
            let denied = await api.respond(to: try IncomingRequest("GET", "/v3/projects", headers: ["x-auth-token": admin]))
            #expect(denied.status == 403)
            #expect(throws: ResourceError.self) { try module(["identity:fly": "@"]) }
        }
    }
}

@Suite struct ApplicationCredentialTests {
    private static func signOn(_ credential: JSONValue, scope: JSONValue? = nil) -> JSONValue {
        var auth: JSONObject = [
            "identity": [
                "methods": ["application_credential"],
                "application_credential": ["id": credential["id"] ?? .null, "secret": credential["secret"] ?? .null],
            ]
        ]
        if let scope { auth["scope"] = scope }
        return ["auth": .object(auth)]
    }

    @Test func theirLife() async throws {
        try await IdentityCloud.with { cloud in
            let demo = try await cloud.token("demo", project: "demo")
            let user = try await cloud.id("users", "demo")
            let base = "users/\(user)/application_credentials"
            let creation = try await cloud.make(base, "application_credential", ["name": "c", "roles": [["name": "reader"]]], token: demo)
            #expect(creation["secret"]?.stringValue?.isEmpty == false)
            #expect(creation["project_id"]?.stringValue == (try await cloud.id("projects", "demo")))
            let shown = try await cloud.call("GET", "/v3/\(base)/\(creation.id)", token: demo)
            #expect(shown.json["application_credential"]?["secret"] == nil)
            let signed = try await cloud.call("POST", "/v3/auth/tokens", body: ApplicationCredentialTests.signOn(creation))
            #expect(signed.status == 201)
            #expect(signed.json["token"]?["roles"]?.arrayValue?.compactMap { $0["name"]?.stringValue } == ["reader"])
            #expect(signed.json["token"]?["application_credential"]?["restricted"] == true)
            let token = try #require(signed.headers["x-subject-token"])
            // A restricted credential cannot create others, and cannot be used outside of its project.
            let more = try await cloud.call("POST", "/v3/\(base)", token: token, body: ["application_credential": ["name": "d"]])
            #expect(more.status == 403)
            let rescoped = try await cloud.call(
                "POST", "/v3/auth/tokens",
                body: [
                    "auth": ["identity": ["methods": ["token"], "token": ["id": .string(token)]], "scope": IdentityCloud.project("other")]
                ])
            #expect(rescoped.status == 401)
            let wrong: JSONValue = ["id": .string(creation.id), "secret": "wrong"]
            #expect(try await cloud.call("POST", "/v3/auth/tokens", body: ApplicationCredentialTests.signOn(wrong)).status == 401)
            #expect(try await cloud.call("DELETE", "/v3/\(base)/\(creation.id)", token: demo).status == 204)
            #expect(try await cloud.call("GET", "/v3/auth/catalog", token: token).status == 401)
            #expect(try await cloud.call("POST", "/v3/auth/tokens", body: ApplicationCredentialTests.signOn(creation)).status == 401)
        }
    }

    @Test func expiryAndRoles() async throws {
        try await IdentityCloud.with { cloud in
            let demo = try await cloud.token("demo", project: "demo")
            let user = try await cloud.id("users", "demo")
            let base = "/v3/users/\(user)/application_credentials"
            func create(_ value: JSONValue) async throws -> IdentityCloud.Answer {
                try await cloud.call("POST", base, token: demo, body: ["application_credential": value])
            }
            #expect(try await create(["name": "x", "roles": [["name": "admin"]]]).status == 400)
            #expect(try await create(["name": "x", "expires_at": "2001-01-01T00:00:00Z"]).status == 400)
            #expect(try await create(["name": "x", "expires_at": "soon"]).status == 400)
            #expect(try await create(["name": "x", "access_rules": [["service": "compute"]]]).status == 400)
            let soon = (cloud.time.now() + .seconds(60)).iso8601
            let creation = try #require(try await create(["name": "x", "expires_at": .string(soon)]).json["application_credential"])
            #expect(try await create(["name": "x"]).status == 409)
            let signed = try await cloud.call("POST", "/v3/auth/tokens", body: ApplicationCredentialTests.signOn(creation))
            let token = try #require(signed.headers["x-subject-token"])
            cloud.time.advance(by: .seconds(61))
            #expect(try await cloud.call("GET", "/v3/auth/catalog", token: token).status == 401)
            #expect(try await cloud.call("POST", "/v3/auth/tokens", body: ApplicationCredentialTests.signOn(creation)).status == 401)
        }
    }

    @Test func accessRulesHold() async throws {
        try await IdentityCloud.with { cloud in
            let demo = try await cloud.token("demo", project: "demo")
            let user = try await cloud.id("users", "demo")
            let creation = try await cloud.make(
                "users/\(user)/application_credentials", "application_credential",
                ["name": "c", "access_rules": [["service": "identity", "path": "/v3/auth/catalog", "method": "GET"]]], token: demo)
            let signed = try await cloud.call("POST", "/v3/auth/tokens", body: ApplicationCredentialTests.signOn(creation))
            let token = try #require(signed.headers["x-subject-token"])
            #expect(try await cloud.call("GET", "/v3/auth/catalog", token: token).status == 200)
            #expect(try await cloud.call("GET", "/v3/auth/projects", token: token).status == 401)
        }
    }
}

@Suite struct IdentityCoreTests {
    @Test(arguments: [
        ("http://x/v3/$(project_id)s", "http://x/v3/p"), ("http://x/%(tenant_id)s/$(user_id)s", "http://x/p/u"),
        ("http://x/100%", "http://x/100%"), ("http://x/$(nothing", "http://x/$(nothing"),
    ])
    func urls(template: String, expanded: String) {
        #expect(CatalogURL.expand(template, projectID: "p", userID: "u") == expanded)
    }

    @Test func urlsThatCannotBe() {
        #expect(CatalogURL.expand("http://x/$(project_id)s", projectID: nil, userID: "u") == nil)
        #expect(CatalogURL.expand("http://x/$(secret)s", projectID: "p", userID: "u") == nil)
        for bad in ["ftp://x", "x", "http://x y", "http://x/$(a)s"] { #expect(!CatalogURL.isUsable(bad)) }
    }

    @Test(arguments: [
        "[]", "{\"colour\": 1}", "{\"users\": [{\"name\": \"x\"}]}", "{\"users\": [{\"name\": \"x\", \"password\": \"\"}]}",
        "{\"users\": [{\"name\": \"x\", \"password\": \"p\", \"assignments\": [{\"project\": \"nowhere\", \"roles\": []}]}]}",
        "{\"users\": [{\"name\": \"x\", \"password\": \"p\", \"assignments\": [{\"system\": true, \"roles\": [\"king\"]}]}]}",
        "{\"services\": [{\"type\": \"x\", \"url\": \"x\"}]}", "{\"projects\": {}}",
    ])
    func badPlans(text: String) throws {
        let document = try JSONValue.parse(text.utf8)
        #expect(throws: ResourceError.self) { try BootstrapPlan(document) }
    }
}
