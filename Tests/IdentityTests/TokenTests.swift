import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@testable import IdentityService

@Suite struct SignOnTests {
    @Test func aProjectScopedTokenSaysEverything() async throws {
        try await IdentityCloud.with { cloud in
            let answer = try await cloud.call(
                "POST", "/v3/auth/tokens", body: IdentityCloud.signOn("demo", "demo-pw", scope: IdentityCloud.project("demo")))
            #expect(answer.status == 201)
            let token = try #require(answer.json["token"])
            #expect(token["user"]?["name"] == "demo")
            #expect(token["user"]?["domain"] == ["id": "default", "name": "Default"])
            #expect(token["project"]?["name"] == "demo")
            #expect(token["methods"] == ["password"])
            #expect(token["audit_ids"]?.arrayValue?.count == 1)
            #expect(token["is_domain"] == false)
            #expect(token["roles"]?.arrayValue?.compactMap { $0["name"]?.stringValue } == ["member", "reader"])
            let project = try await cloud.id("projects", "demo")
            let urls = token["catalog"]?.arrayValue?.flatMap { $0["endpoints"]?.arrayValue ?? [] }
                .compactMap { $0["url"]?.stringValue }
            #expect(urls?.contains("http://cloud.example:8776/v3/\(project)") == true)
            #expect(urls?.count == 6)
            let subject = try #require(answer.headers["x-subject-token"])
            let shown = try await cloud.call("GET", "/v3/auth/tokens", token: subject, headers: [("X-Subject-Token", subject)])
            #expect(shown.status == 200)
            #expect(shown.json == answer.json)
            let head = try await cloud.call("HEAD", "/v3/auth/tokens", token: subject, headers: [("X-Subject-Token", subject)])
            #expect(head.status == 200)
        }
    }

    @Test func scopes() async throws {
        try await IdentityCloud.with { cloud in
            func sign(_ user: String, _ scope: JSONValue?) async throws -> IdentityCloud.Answer {
                try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn(user, user + "-pw", scope: scope))
            }
            let implied = try await sign("admin", nil)
            #expect(implied.json["token"]?["project"]?["name"] == "admin")
            let unscoped = try await sign("admin", "unscoped")
            #expect(unscoped.status == 201)
            #expect(unscoped.json["token"]?["project"] == nil)
            #expect(unscoped.json["token"]?["catalog"] == nil)
            #expect(try await sign("demo", nil).json["token"]?["project"] == nil)
            let system = try await sign("admin", ["system": ["all": true]])
            #expect(system.json["token"]?["system"] == ["all": true])
            #expect(system.json["token"]?["catalog"] != nil)
            let domain = try await sign("domainer", ["domain": ["name": "Default"]])
            #expect(domain.json["token"]?["domain"]?["id"] == "default")
            #expect(try await sign("demo", ["system": ["all": true]]).status == 401)
            #expect(try await sign("demo", ["domain": ["id": "default"]]).status == 401)
            #expect(try await sign("demo", IdentityCloud.project("other")).status == 401)
            #expect(try await sign("demo", IdentityCloud.project("nowhere")).status == 401)
            let byID: JSONValue = ["project": ["id": .string(try await cloud.id("projects", "demo"))]]
            #expect(try await sign("demo", byID).status == 201)
        }
    }

    @Test func rescoping() async throws {
        try await IdentityCloud.with { cloud in
            let first = try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("demo", "demo-pw", scope: "unscoped"))
            let token = try #require(first.headers["x-subject-token"])
            cloud.time.advance(by: .seconds(60))
            let second = try await cloud.call(
                "POST", "/v3/auth/tokens?nocatalog=1",
                body: [
                    "auth": [
                        "identity": ["methods": ["token"], "token": ["id": .string(token)]], "scope": IdentityCloud.project("demo"),
                    ]
                ])
            #expect(second.status == 201)
            #expect(second.json["token"]?["expires_at"] == first.json["token"]?["expires_at"])
            #expect(second.json["token"]?["methods"] == ["password", "token"])
            #expect(second.json["token"]?["catalog"] == nil)
            let chain = second.json["token"]?["audit_ids"]?.arrayValue
            #expect(chain?.count == 2)
            #expect(chain?.last == first.json["token"]?["audit_ids"]?.arrayValue?.first)
        }
    }

    @Test(arguments: [
        ("{", 400), ("[]", 400), ("{}", 400), ("{\"auth\": 5}", 400), ("{\"auth\": {}}", 400),
        ("{\"auth\": {\"identity\": {\"methods\": []}}}", 400),
        ("{\"auth\": {\"identity\": {\"methods\": \"password\"}}}", 400),
        ("{\"auth\": {\"identity\": {\"methods\": [5]}}}", 400),
        ("{\"auth\": {\"identity\": {\"methods\": [\"password\"]}}}", 400),
        ("{\"auth\": {\"identity\": {\"methods\": [\"telepathy\"]}}}", 401),
        (
            "{\"auth\": {\"identity\": {\"methods\": [\"password\"], \"password\": {\"user\": {\"name\": \"demo\", \"password\": \"x\"}}}}}",
            400
        ),
        ("{\"auth\": {\"identity\": {\"methods\": [\"password\"], \"password\": {\"user\": {\"id\": \"x\", \"password\": 5}}}}}", 400),
        (
            "{\"auth\": {\"identity\": {\"methods\": [\"password\"], \"password\": {\"user\": {\"id\": \"x\\u0000y\", \"password\": \"p\"}}}}}",
            400
        ),
        ("{\"auth\": {\"identity\": {\"methods\": [\"token\"], \"token\": {\"id\": \"nonsense\"}}}}", 401),
        ("{\"auth\": {\"identity\": {\"methods\": [\"token\"], \"token\": {\"id\": \"x\"}}, \"scope\": {\"galaxy\": {}}}}", 400),
        (
            "{\"auth\": {\"identity\": {\"methods\": [\"token\"], \"token\": {\"id\": \"x\"}}, \"scope\": {\"project\": {}, \"domain\": {}}}}",
            400
        ),
        (
            "{\"auth\": {\"identity\": {\"methods\": [\"token\"], \"token\": {\"id\": \"x\"}}, \"scope\": {\"system\": {\"all\": false}}}}",
            400
        ),
    ])
    func malformed(body: String, status: Int) async throws {
        try await IdentityCloud.with { cloud in
            let response = await cloud.api.respond(to: try IncomingRequest("POST", "/v3/auth/tokens", body: Array(body.utf8)))
            #expect(response.status == status)
            let error = try JSONValue.parse(response.bytes ?? [])["error"]
            #expect(error?["code"]?.intValue == status)
            #expect(error?["title"]?.stringValue != nil)
            #expect(error?["message"]?.stringValue?.isEmpty == false)
        }
    }

    @Test("S11: a refused sign-on reveals neither whether the user exists nor the reason") func s11RefusedSignOnsLookAlike() async throws {
        try await IdentityCloud.with(options: IdentityOptions(lockoutAttempts: 2, lockoutDuration: .seconds(60))) { cloud in
            let admin = try await cloud.admin()
            for name in ["locked", "disabled"] {
                let creation = try await cloud.call(
                    "POST", "/v3/users", token: admin,
                    body: ["user": ["name": .string(name), "password": "right-pw", "enabled": .bool(name != "disabled")]])
                #expect(creation.status == 201)
            }
            for _ in 0..<2 { _ = try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("locked", "nope")) }
            let reference = try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("viewer", "nope"))
            for (user, password) in [
                ("nobody", "nope"), ("locked", "nope"), ("locked", "right-pw"), ("disabled", "nope"), ("disabled", "right-pw"),
            ] {
                let before = cloud.identity.hasher.hashesDone
                let answer = try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn(user, password))
                #expect(answer.status == 401 && answer.json == reference.json, "\(user) \(password): \(answer.json)")
                #expect(Set(answer.headers.fields.map(\.name)) == Set(reference.headers.fields.map(\.name)), "\(user)")
                // The duration reveals nothing either: there is always one hash.
                #expect(cloud.identity.hasher.hashesDone == before + 1, "\(user) \(password)")
            }
            let wrong = try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("demo", "nope"))
            let unknown = try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("nobody", "nope"))
            #expect(wrong.status == 401)
            #expect(wrong.json == unknown.json)
            #expect(wrong.headers["www-authenticate"] != nil)
            let tooLong = String(repeating: "x", count: 300)
            #expect(try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn(tooLong, "nope")).status == 400)
        }
    }

    @Test("S11: an unknown user takes one hash, as a wrong password does") func s11UnknownUsersCostAHashLikeWrongPasswords() async throws {
        let hasher = PasswordHasher(cost: 4, threads: 1)
        let stored = try await hasher.hash(Secret("right"))
        let before = hasher.hashesDone
        #expect(try await !hasher.verify(Secret("wrong"), hash: stored))
        #expect(hasher.hashesDone == before + 1)
        #expect(try await !hasher.verify(Secret("wrong"), hash: nil))
        #expect(hasher.hashesDone == before + 2)
        #expect(try await hasher.verify(Secret("right"), hash: stored))
    }

    @Test func repeatedFailuresLock() async throws {
        try await IdentityCloud.with(options: IdentityOptions(lockoutAttempts: 3, lockoutDuration: .seconds(60))) { cloud in
            for _ in 0..<3 { _ = try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("demo", "nope")) }
            #expect(try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("demo", "demo-pw")).status == 401)
            cloud.time.advance(by: .seconds(61))
            #expect(try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("demo", "demo-pw")).status == 201)
            for _ in 0..<2 { _ = try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("demo", "nope")) }
            #expect(try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("demo", "demo-pw")).status == 201)
        }
    }
}

@Suite struct ValidationTests {
    @Test func expiredAndForgedTokensAreRefused() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let demo = try await cloud.token("demo", project: "demo")
            #expect(try await cloud.call("GET", "/v3/auth/tokens", token: demo, headers: [("X-Subject-Token", "w1.k1.x.y")]).status == 404)
            #expect(try await cloud.call("GET", "/v3/auth/tokens", token: admin, headers: [("X-Subject-Token", "w1.k1.x.y")]).status == 404)
            #expect(try await cloud.call("GET", "/v3/auth/tokens", token: admin).status == 404)
            #expect(try await cloud.call("GET", "/v3/auth/tokens", headers: [("X-Subject-Token", demo)]).status == 401)
            #expect(try await cloud.call("GET", "/v3/auth/tokens", token: demo, headers: [("X-Subject-Token", admin)]).status == 403)
            #expect(try await cloud.call("GET", "/v3/auth/tokens", token: admin, headers: [("X-Subject-Token", demo)]).status == 200)
            cloud.time.advance(by: .seconds(12 * 3600 + 1))
            #expect(try await cloud.call("GET", "/v3/auth/catalog", token: admin).status == 401)
        }
    }

    @Test func tokensListTheirProjectsAndDomains() async throws {
        try await IdentityCloud.with { cloud in
            let demo = try await cloud.token("demo", scope: "unscoped")
            let projects = try await cloud.call("GET", "/v3/auth/projects", token: demo)
            #expect(projects.json["projects"]?.arrayValue?.compactMap { $0["name"]?.stringValue } == ["demo"])
            #expect(projects.json["links"]?["next"] == .null)
            #expect(try await cloud.call("GET", "/v3/auth/domains", token: demo).json["domains"] == [])
            #expect(try await cloud.call("GET", "/v3/auth/system", token: demo).json["system"] == [])
            let admin = try await cloud.admin()
            #expect(try await cloud.call("GET", "/v3/auth/system", token: admin).json["system"] == [["all": true]])
            let domainer = try await cloud.token("domainer", scope: "unscoped")
            #expect(try await cloud.call("GET", "/v3/auth/domains", token: domainer).json["domains"]?.arrayValue?.count == 1)
            let catalog = try await cloud.call("GET", "/v3/auth/catalog", token: admin)
            #expect(catalog.json["catalog"]?.arrayValue?.count == 2)
        }
    }

    @Test func repeatedBootstrapChangesNothing() async throws {
        try await IdentityCloud.with { cloud in
            let token = try await cloud.admin()
            let bootstrap = cloud.bootstrap()
            try await bootstrap.run(BootstrapPlan(IdentityCloud.plan))
            #expect(try await cloud.call("GET", "/v3/auth/catalog", token: token).status == 200)
            let counts = try await cloud.database.read { connection in
                try ["users", "projects", "role_assignments", "catalog_endpoints"].map {
                    try connection.query("SELECT count(*) AS n FROM \(raw: $0)")[0].int("n")
                }
            }
            #expect(counts == [6, 5, 7, 6])
        }
    }

    @Test func discovery() async throws {
        try await IdentityCloud.with { cloud in
            let root = try await cloud.call("GET", "/")
            #expect(root.status == 300)
            #expect(root.json["versions"]?["values"]?.arrayValue?.first?["id"] == "v3.14")
            let version = try await cloud.call("GET", "/v3/")
            #expect(version.status == 200)
            #expect(version.json["version"]?["links"]?.arrayValue?.first?["href"] == "http://cloud.example:5000/v3/")
        }
    }
}
