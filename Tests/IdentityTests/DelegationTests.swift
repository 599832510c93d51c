import Authorization
import IdentityCore
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@testable import IdentityService

/// Application credentials that create application credentials.
@Suite struct DelegationTests {
    private struct Link {
        let token: String
        let roles: Set<String>
        let rules: [AccessRule]
        let expiresAt: Timestamp?
        let unrestricted: Bool
    }

    private static let paths = ["/v3/**", "/v3/users/**", "/v3/users/*/*", "/v3/users/{id}/application_credentials", "/v3/auth/**"]

    private static func rule(_ method: String, _ path: String) -> JSONValue {
        ["service": "identity", "method": .string(method), "path": .string(path)]
    }

    /// The current rights of a token, as shown by Identity.
    private static func link(_ cloud: IdentityCloud, credential: JSONValue, admin: String) async throws -> Link {
        let answer = try await cloud.call(
            "POST", "/v3/auth/tokens",
            body: [
                "auth": [
                    "identity": [
                        "methods": ["application_credential"],
                        "application_credential": ["id": .string(credential.id), "secret": credential["secret"] ?? .null],
                    ]
                ]
            ])
        try #require(answer.status == 201, "\(answer.json)")
        let token = try #require(answer.headers["x-subject-token"])
        let described = try await cloud.call("GET", "/v3/auth/tokens", token: admin, headers: [("X-Subject-Token", token)])
        let shown = try #require(described.json["token"])
        let rules = shown["application_credential"]?["access_rules"]?.arrayValue ?? []
        return Link(
            token: token, roles: Set((shown["roles"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }),
            rules: rules.compactMap { AccessRule($0) },
            expiresAt: credential["expires_at"]?.stringValue.flatMap { Timestamp($0) },
            unrestricted: credential["unrestricted"]?.boolValue == true)
    }

    private static func body(_ random: SeededRandom, _ name: Int, now: Timestamp) -> JSONValue {
        func chance(_ one: Int) -> Bool { random.below(one) == 0 }
        var body: JSONObject = ["name": .string("c\(name)"), "unrestricted": .bool(!chance(6))]
        if chance(2) { body["expires_at"] = .string((now + .seconds(3600 + random.below(100_000))).iso8601Microseconds) }
        if chance(2) {
            let roles = ["manager", "member", "reader"].filter { _ in chance(2) }
            if !roles.isEmpty { body["roles"] = .array(roles.map { ["name": .string($0)] }) }
        }
        if chance(2) {
            let count = 1 + random.below(3)
            body["access_rules"] = .array(
                (0..<count).map { _ in rule(["GET", "POST"][random.below(2)], paths[random.below(paths.count)]) })
        }
        return ["application_credential": .object(body)]
    }

    @Test("S8: no chain of application credentials extends rights")
    func s8ChainsNeverWiden() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let user = try await cloud.id("users", "domainer")
            let (demo, manager) = (try await cloud.id("projects", "demo"), try await cloud.id("roles", "manager"))
            #expect(try await cloud.call("PUT", "/v3/projects/\(demo)/users/\(user)/roles/\(manager)", token: admin).status == 204)
            let path = "/v3/users/\(user)/application_credentials"
            let random = SeededRandom(seed: 20_261_129)
            var creation = 0
            var refused = 0
            for chain in 0..<24 {
                let first = try await cloud.token("domainer", project: "demo")
                var parent = Link(token: first, roles: ["manager", "member", "reader"], rules: [], expiresAt: nil, unrestricted: true)
                for depth in 0..<6 {
                    let body = DelegationTests.body(random, chain * 10 + depth, now: cloud.time.now())
                    let answer = try await cloud.call("POST", path, token: parent.token, body: body)
                    guard answer.status == 201 else {
                        #expect([400, 401, 403].contains(answer.status), "\(answer.json)")
                        refused += 1
                        continue
                    }
                    creation += 1
                    #expect(parent.unrestricted)
                    let child = try await DelegationTests.link(
                        cloud, credential: try #require(answer.json["application_credential"]), admin: admin)
                    #expect(child.roles.isSubset(of: parent.roles))
                    if let end = parent.expiresAt { #expect(try #require(child.expiresAt) <= end) }
                    if !parent.rules.isEmpty {
                        #expect(!child.rules.isEmpty)
                        for rule in child.rules { #expect(parent.rules.contains { $0.covers(rule) }, "\(rule) \(parent.rules)") }
                    }
                    parent = child
                }
            }
            #expect(creation > 30 && refused > 10, "\(creation) made, \(refused) refused")
        }
    }

    @Test("S8: a credential's expiry and access rules also apply to credentials created with it")
    func s8LimitsAreHandedOn() async throws {
        try await IdentityCloud.with { cloud in
            let user = try await cloud.id("users", "demo")
            let path = "/v3/users/\(user)/application_credentials"
            let end = "2099-01-01T00:00:00.000000"
            let first = try await cloud.call(
                "POST", path, token: try await cloud.token("demo", project: "demo"),
                body: [
                    "application_credential": [
                        "name": "first", "unrestricted": true, "expires_at": .string(end),
                        "access_rules": [
                            DelegationTests.rule("POST", path), DelegationTests.rule("GET", "/v3/users/*/application_credentials"),
                        ],
                    ]
                ])
            let link = try await DelegationTests.link(
                cloud, credential: try #require(first.json["application_credential"]), admin: try await cloud.admin())
            func make(_ more: JSONObject) async throws -> IdentityCloud.Answer {
                var body = more
                body["name"] = .string("child \(more.names.joined())")
                return try await cloud.call("POST", path, token: link.token, body: ["application_credential": .object(body)])
            }
            let plain = try await make([:])
            #expect(plain.status == 201, "\(plain.json)")
            #expect(plain.json["application_credential"]?["expires_at"] == .string(end))
            #expect(plain.json["application_credential"]?["access_rules"] == first.json["application_credential"]?["access_rules"])
            #expect(try await make(["access_rules": []]).json["application_credential"]?["access_rules"]?.arrayValue?.count == 2)
            let later = try await make(["expires_at": "2099-01-01T00:00:01Z"])
            #expect(later.status == 403 && later.message.contains("expires_at"), "\(later.json)")
            for wider in [
                DelegationTests.rule("GET", "/v3/**"), DelegationTests.rule("DELETE", path),
                DelegationTests.rule("POST", "/v3/users/*/application_credentials"),
                ["service": "compute", "method": "GET", "path": "/v3/users/*/application_credentials"],
            ] {
                let answer = try await make(["access_rules": [wider]])
                #expect(answer.status == 403 && answer.message.contains("access rule"), "\(wider) \(answer.json)")
            }
            let narrower = try await make(["access_rules": [DelegationTests.rule("GET", path)], "expires_at": "2098-01-01T00:00:00Z"])
            #expect(narrower.status == 201, "\(narrower.json)")
        }
    }

    @Test("S8: an application credential cannot read or create second factors")
    func s8NoSecondFactors() async throws {
        try await IdentityCloud.with { cloud in
            let (user, own) = (try await cloud.id("users", "demo"), try await cloud.token("demo", project: "demo"))
            let body: JSONValue = ["credential": ["type": "totp", "blob": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "user_id": .string(user)]]
            let stored = try await cloud.call("POST", "/v3/credentials", token: own, body: body)
            let id = try #require(stored.json["credential"]?.id)
            let creation = try await cloud.call(
                "POST", "/v3/users/\(user)/application_credentials", token: own,
                body: ["application_credential": ["name": "c", "unrestricted": true]])
            let link = try await DelegationTests.link(
                cloud, credential: try #require(creation.json["application_credential"]), admin: try await cloud.admin())
            for (method, path, body) in [
                ("GET", "/v3/credentials", nil), ("POST", "/v3/credentials", body), ("GET", "/v3/credentials/\(id)", nil),
                ("PATCH", "/v3/credentials/\(id)", body), ("DELETE", "/v3/credentials/\(id)", nil),
            ] as [(String, String, JSONValue?)] {
                let answer = try await cloud.call(method, path, token: link.token, body: body)
                #expect(answer.status == 403, "\(method) \(path) \(answer.json)")
            }
        }
    }

    @Test func accessRulesStayUntilTheyAreDeleted() async throws {
        try await IdentityCloud.with { cloud in
            let (user, token) = (try await cloud.id("users", "demo"), try await cloud.token("demo", project: "demo"))
            let (credentials, rules) = ("/v3/users/\(user)/application_credentials", "/v3/users/\(user)/access_rules")
            func make(_ name: String, _ rule: JSONValue) async throws -> JSONValue {
                let answer = try await cloud.call(
                    "POST", credentials, token: token,
                    body: ["application_credential": ["name": .string(name), "access_rules": [rule]]])
                return try #require(answer.json["application_credential"], "\(answer.json)")
            }
            let first = try await make("a", DelegationTests.rule("GET", "/v3/users"))
            let rule = try #require(first["access_rules"]?.arrayValue?.first?.id)
            // The same rule has the same id, also if it is given only by id.
            #expect(try await make("b", DelegationTests.rule("GET", "/v3/users"))["access_rules"] == first["access_rules"])
            #expect(try await make("c", ["id": .string(rule)])["access_rules"] == first["access_rules"])
            #expect(try await cloud.call("GET", rules, token: token).json["access_rules"]?.arrayValue?.count == 1)
            #expect(try await cloud.call("GET", rules + "?method=POST", token: token).json["access_rules"] == [])
            let used = try await cloud.call("DELETE", "\(rules)/\(rule)", token: token)
            #expect(used.status == 403 && used.message.contains("in use"), "\(used.json)")
            for one in try await cloud.call("GET", credentials, token: token).json["application_credentials"]?.arrayValue ?? [] {
                #expect(try await cloud.call("DELETE", "\(credentials)/\(one.id)", token: token).status == 204)
            }
            #expect(try await cloud.call("GET", "\(rules)/\(rule)", token: token).status == 200)
            let otherProject = try await cloud.token("other", project: "other")
            #expect(try await cloud.call("DELETE", "\(rules)/\(rule)", token: otherProject).status == 403)
            #expect(try await cloud.call("DELETE", "\(rules)/\(rule)", token: token).status == 204)
            #expect(try await cloud.call("DELETE", "\(rules)/\(rule)", token: token).status == 404)
            let unknown = try await cloud.call(
                "POST", credentials, token: token,
                body: ["application_credential": ["name": "d", "access_rules": [["id": .string(rule)]]]])
            #expect(unknown.status == 400)
        }
    }

    @Test func rulesCover() {
        func covers(_ wide: String, _ narrow: String) -> Bool {
            AccessRule(service: "s", method: "GET", path: wide).covers(AccessRule(service: "s", method: "GET", path: narrow))
        }
        for (wide, narrow) in [
            ("/a/b", "/a/b"), ("/a/*", "/a/b"), ("/a/*", "/a/{x}"), ("/a/{x}", "/a/*"), ("/**", "/a/**"), ("/**", "/**"),
            ("/a/**/b", "/a/b"), ("/a/**/b", "/a/x/**/b"), ("/**/b", "/a/*/b"),
        ] { #expect(covers(wide, narrow), "\(wide) \(narrow)") }
        for (wide, narrow) in [
            ("/a/b", "/a/*"), ("/a/b", "/a/{x}"), ("/a/*", "/a/**"), ("/a/*", "/a"), ("/a/**/b", "/a/**"), ("/a", "/a/b"), ("/*/*", "/**"),
        ] { #expect(!covers(wide, narrow), "\(wide) \(narrow)") }
        // The time is bounded for all patterns.
        let stars = String(repeating: "/**", count: 80)
        #expect(!covers(stars + "/x", String(repeating: "/a", count: 120)))
    }
}
