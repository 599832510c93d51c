import Authorization
import Database
import JSON
import Kernel
import Synchronization
import TestKit
import Testing
import WebAPI

@testable import IdentityService

/// The revocation of tokens, seen by another service: a separate authenticator that only follows the database.
@Suite struct RevocationTests {
    private struct Scene: Sendable {
        let cloud: IdentityCloud
        let elsewhere: TokenAuthenticator
        let admin: String
        let token: String
        let user: String
        let project: String

        func accepted() async -> Bool {
            // The change arrives by notification; the test triggers the check.
            await elsewhere.refresh()
            do {
                _ = try await elsewhere.caller(token: token)
                return true
            } catch { return false }
        }

        func change(_ method: String, _ path: String, _ body: JSONValue? = nil) async throws {
            let answer = try await cloud.call(method, "/v3/\(path)", token: admin, body: body)
            #expect(answer.status < 300, "\(method) \(path) \(answer.json)")
        }
    }

    private func with(_ body: (Scene) async throws -> Void) async throws {
        try await IdentityCloud.with { cloud in
            let elsewhere = TokenAuthenticator(
                verifier: cloud.verifier, database: cloud.database, ambient: cloud.identity.ambient)
            let scene = Scene(
                cloud: cloud, elsewhere: elsewhere, admin: try await cloud.admin(),
                token: try await cloud.token("demo", project: "demo"), user: try await cloud.id("users", "demo"),
                project: try await cloud.id("projects", "demo"))
            #expect(await scene.accepted())
            try await body(scene)
        }
    }

    @Test func deletingTheToken() async throws {
        try await with { scene in
            let answer = try await scene.cloud.call(
                "DELETE", "/v3/auth/tokens", token: scene.token, headers: [("X-Subject-Token", scene.token)])
            #expect(answer.status == 204)
            #expect(await !scene.accepted())
            #expect(try await scene.cloud.call("GET", "/v3/auth/catalog", token: scene.token).status == 401)
            let another = try await scene.cloud.token("demo", project: "demo")
            let shown = try await scene.cloud.call(
                "GET", "/v3/auth/tokens", token: another, headers: [("X-Subject-Token", scene.token)])
            #expect(shown.status == 404)
        }
    }

    @Test func aNewPassword() async throws {
        try await with { scene in
            try await scene.change("PATCH", "users/\(scene.user)", ["user": ["password": "new-pw"]])
            #expect(await !scene.accepted())
            _ = try await scene.cloud.token("demo", project: "demo", password: "new-pw")
        }
    }

    @Test func onesOwnNewPassword() async throws {
        try await with { scene in
            let path = "/v3/users/\(scene.user)/password"
            let wrong: JSONValue = ["user": ["password": "newer", "original_password": "nope"]]
            #expect(try await scene.cloud.call("POST", path, body: wrong).status == 401)
            #expect(await scene.accepted())
            let right: JSONValue = ["user": ["password": "newer", "original_password": "demo-pw"]]
            #expect(try await scene.cloud.call("POST", path, token: scene.token, body: right).status == 204)
            #expect(await !scene.accepted())
            _ = try await scene.cloud.token("demo", project: "demo", password: "newer")
        }
    }

    @Test func disablingTheUserAlsoForLater() async throws {
        try await with { scene in
            try await scene.change("PATCH", "users/\(scene.user)", ["user": ["enabled": false]])
            #expect(await !scene.accepted())
            try await scene.change("PATCH", "users/\(scene.user)", ["user": ["enabled": true]])
            #expect(await !scene.accepted())
            _ = try await scene.cloud.token("demo", project: "demo")
        }
    }

    @Test func deletingTheUser() async throws {
        try await with { scene in
            try await scene.change("DELETE", "users/\(scene.user)")
            #expect(await !scene.accepted())
        }
    }

    @Test func disablingTheProject() async throws {
        try await with { scene in
            try await scene.change("PATCH", "projects/\(scene.project)", ["project": ["enabled": false]])
            #expect(await !scene.accepted())
            let refused = try await scene.cloud.call(
                "POST", "/v3/auth/tokens", body: IdentityCloud.signOn("demo", "demo-pw", scope: IdentityCloud.project("demo")))
            #expect(refused.status == 401)
        }
    }

    @Test func deletingTheProject() async throws {
        try await with { scene in
            try await scene.change("DELETE", "projects/\(scene.project)")
            #expect(await !scene.accepted())
        }
    }

    @Test func removingTheOnlyRole() async throws {
        try await with { scene in
            let role = try await scene.cloud.id("roles", "member")
            try await scene.change("DELETE", "projects/\(scene.project)/users/\(scene.user)/roles/\(role)")
            #expect(await !scene.accepted())
        }
    }

    @Test func aChangedRoleCountsAtOnce() async throws {
        try await with { scene in
            let member = try await scene.cloud.id("roles", "member")
            let reader = try await scene.cloud.id("roles", "reader")
            try await scene.change("PUT", "projects/\(scene.project)/users/\(scene.user)/roles/\(reader)")
            try await scene.change("DELETE", "projects/\(scene.project)/users/\(scene.user)/roles/\(member)")
            await scene.elsewhere.refresh()
            let caller = try await scene.elsewhere.caller(token: scene.token)
            #expect(caller.roles.map(\.name) == ["reader"])
        }
    }

    @Test func leavingTheGroupThatGaveTheRole() async throws {
        try await with { scene in
            let created = try await scene.cloud.call(
                "POST", "/v3/groups", token: scene.admin, body: ["group": ["name": "crew"]])
            let group = try #require(created.json["group"]?["id"]?.stringValue)
            let member = try await scene.cloud.id("roles", "member")
            try await scene.change("PUT", "projects/\(scene.project)/groups/\(group)/roles/\(member)")
            try await scene.change("PUT", "groups/\(group)/users/\(scene.user)")
            try await scene.change("DELETE", "projects/\(scene.project)/users/\(scene.user)/roles/\(member)")
            #expect(await scene.accepted())
            try await scene.change("DELETE", "groups/\(group)/users/\(scene.user)")
            #expect(await !scene.accepted())
        }
    }

    @Test func disablingTheDomain() async throws {
        try await with { scene in
            let domain = try await scene.cloud.call(
                "POST", "/v3/domains", token: scene.admin, body: ["domain": ["name": "d2"]])
            let id = try #require(domain.json["domain"]?["id"]?.stringValue)
            let user = try await scene.cloud.call(
                "POST", "/v3/users", token: scene.admin,
                body: ["user": ["name": "far", "domain_id": .string(id), "password": "far-pw"]])
            let userID = try #require(user.json["user"]?["id"]?.stringValue)
            let member = try await scene.cloud.id("roles", "member")
            try await scene.change("PUT", "projects/\(scene.project)/users/\(userID)/roles/\(member)")
            let body: JSONValue = [
                "auth": [
                    "identity": [
                        "methods": ["password"], "password": ["user": ["id": .string(userID), "password": "far-pw"]],
                    ], "scope": IdentityCloud.project("demo"),
                ]
            ]
            let far = try #require(try await scene.cloud.call("POST", "/v3/auth/tokens", body: body).headers["x-subject-token"])
            _ = try await scene.elsewhere.caller(token: far)
            #expect(try await scene.cloud.call("DELETE", "/v3/domains/\(id)", token: scene.admin).status == 403)
            try await scene.change("PATCH", "domains/\(id)", ["domain": ["enabled": false]])
            await scene.elsewhere.refresh()
            await #expect(throws: ResourceError.self) { try await scene.elsewhere.caller(token: far) }
            try await scene.change("DELETE", "domains/\(id)")
            let left = try await scene.cloud.database.read {
                try $0.query("SELECT count(*) AS n FROM users WHERE id = \(userID)")[0].int("n")
            }
            #expect(left == 0)
        }
    }

    /// The listening path: the other service learns of the change only by notification or polling.
    @Test func theNewsTravels() async throws {
        try await with { scene in
            let real = TokenAuthenticator(verifier: scene.cloud.verifier, database: scene.cloud.database, ambient: Ambient())
            let listener = Task { try await real.run() }
            let clock = ContinuousClock()
            // Real time differs from the manual clock: only the signature and the look-up matter here.
            let payload = try #require(scene.cloud.verifier.verify(scene.token))
            let before = try await real.resolve(payload).epoch
            let start = clock.now
            try await scene.change("PATCH", "users/\(scene.user)", ["user": ["enabled": false]])
            while (real.confirmedEpoch() ?? 0) <= before, clock.now - start < .seconds(5) {
                try await Task.sleep(for: .milliseconds(5))
            }
            #expect(clock.now - start < .seconds(2))
            listener.cancel()
            _ = try? await listener.value
        }
    }

    /// Without notifications and polling, cached results are not used for longer than two seconds.
    @Test func silenceIsNotTrusted() async throws {
        try await with { scene in
            let now = scene.cloud.time.now() + .seconds(1)
            try await scene.cloud.database.write {
                try $0.execute("UPDATE users SET tokens_valid_from = \(now) WHERE id = \(scene.user)")
            }
            _ = try await scene.elsewhere.caller(token: scene.token)
            scene.cloud.time.advance(by: .seconds(2))
            #expect(scene.elsewhere.confirmedEpoch() == nil)
            await #expect(throws: ResourceError.self) { try await scene.elsewhere.caller(token: scene.token) }
        }
    }

    /// Numbers of changes become visible in order, regardless of the order of commits: an open transaction makes others wait.
    @Test func noChangeIsOvertaken() async throws {
        try await with { scene in
            let database = scene.cloud.database
            let order = Order()
            async let first: Void = database.write { connection in
                try connection.execute("UPDATE roles SET name = name WHERE name = 'member'")
                order.append("first changed")
                try connection.query("SELECT pg_sleep(0.3)")
                order.append("first commits")
            }
            while !order.events.contains("first changed") { try await Task.sleep(for: .milliseconds(5)) }
            try await database.write { try $0.execute("UPDATE roles SET name = name WHERE name = 'reader'") }
            order.append("second committed")
            try await first
            #expect(order.events == ["first changed", "first commits", "second committed"])
        }
    }
}

private final class Order: Sendable {
    private let list = Mutex<[String]>([])
    var events: [String] { list.withLock { $0 } }
    func append(_ event: String) { list.withLock { $0.append(event) } }
}
