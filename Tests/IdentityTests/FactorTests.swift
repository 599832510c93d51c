import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@testable import IdentityService

/// Sign-on with more than a password.
@Suite struct FactorTests {
    private static let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"

    /// RFC 6238, appendix B, the last six of eight digits.
    @Test func codesAreTheStandards() throws {
        let key = try #require(OneTimeCode.secret(base32: FactorTests.secret))
        #expect(key == Array("12345678901234567890".utf8))
        for (seconds, code) in [
            (59, "287082"), (1_111_111_109, "081804"), (1_111_111_111, "050471"), (1_234_567_890, "005924"),
            (2_000_000_000, "279037"), (20_000_000_000, "353130"),
        ] as [(Int64, String)] {
            let time = Timestamp(microseconds: seconds * 1_000_000)
            #expect(OneTimeCode.code(secret: key, step: OneTimeCode.step(at: time)) == code)
        }
        for text in ["A=A", "a b", "1234", "GEZDGNB!"] { #expect(OneTimeCode.secret(base32: text) == nil, "\(text)") }
        #expect(OneTimeCode.secret(base32: "gezdgnbv====") == OneTimeCode.secret(base32: "GEZDGNBV"))
    }

    @Test func rulesAreEvaluatedAsInKeystone() throws {
        func met(_ options: JSONValue, _ methods: [String]) -> Bool { FactorRules(options: options).areMet(by: methods) }
        let rules: JSONValue = [["password", "totp"], ["application_credential"]]
        #expect(met([:], ["password"]))
        #expect(met(["multi_factor_auth_rules": rules, "multi_factor_auth_enabled": false], ["password"]))
        #expect(!met(["multi_factor_auth_rules": rules], ["password"]))
        #expect(!met(["multi_factor_auth_rules": rules, "multi_factor_auth_enabled": true], ["totp"]))
        #expect(met(["multi_factor_auth_rules": rules], ["totp", "password", "token"]))
        #expect(met(["multi_factor_auth_rules": rules], ["application_credential"]))
        #expect(met(["multi_factor_auth_rules": [["mapped"]]], ["password"]))
        #expect(FactorRules(options: ["multi_factor_auth_rules": rules]).begun(with: ["password"]) == [["password", "totp"]])
        for wrong: JSONValue in [[[]], [["password", "mapped"]], [["totp", "totp"]]] {
            #expect(throws: ResourceError.self) { try FactorRules.check(["multi_factor_auth_rules": wrong]) }
        }
    }

    /// A cloud whose user `demo` needs a password and a code.
    private struct Setup {
        let cloud: IdentityCloud
        let user: String

        init(_ cloud: IdentityCloud) async throws {
            self.cloud = cloud
            user = try await cloud.id("users", "demo")
            let token = try await cloud.token("demo", project: "demo")
            let stored = try await cloud.call(
                "POST", "/v3/credentials", token: token,
                body: ["credential": ["type": "totp", "blob": .string(FactorTests.secret), "user_id": .string(user)]])
            try #require(stored.status == 201, "\(stored.json)")
            let set = try await cloud.call(
                "PATCH", "/v3/users/\(user)", token: try await cloud.admin(),
                body: ["user": ["options": ["multi_factor_auth_enabled": true, "multi_factor_auth_rules": [["password", "totp"]]]]])
            try #require(set.status == 200, "\(set.json)")
        }

        /// - Parameter steps: time steps before or after the current one.
        func code(_ steps: Int64 = 0) throws -> String {
            OneTimeCode.code(
                secret: try #require(OneTimeCode.secret(base32: FactorTests.secret)),
                step: OneTimeCode.step(at: cloud.time.now()) + steps)
        }

        func signOn(password: String? = nil, code: String? = nil, receipt: String? = nil, user name: String = "demo") async throws
            -> IdentityCloud.Answer
        {
            var identity: JSONObject = [
                "methods": JSONValue([password.map { _ in "password" }, code.map { _ in "totp" }].compactMap { $0 })
            ]
            let user: JSONObject = ["name": .string(name), "domain": ["id": "default"]]
            if let password {
                var user = user
                user["password"] = .string(password)
                identity["password"] = ["user": .object(user)]
            }
            if let code {
                var user = user
                user["passcode"] = .string(code)
                identity["totp"] = ["user": .object(user)]
            }
            return try await cloud.call(
                "POST", "/v3/auth/tokens", headers: receipt.map { [("Openstack-Auth-Receipt", $0)] } ?? [],
                body: ["auth": ["identity": .object(identity), "scope": IdentityCloud.project("demo")]])
        }
    }

    @Test("S7: multi-factor rules apply to every method of getting a token")
    func s7RulesAreEnforced() async throws {
        try await IdentityCloud.with { cloud in
            let before = try await cloud.token("demo", project: "demo")
            let setup = try await Setup(cloud)
            let half = try await setup.signOn(password: "demo-pw")
            #expect(half.status == 401 && half.headers["x-subject-token"] == nil)
            let receipt = try #require(half.headers["openstack-auth-receipt"])
            #expect(half.json["required_auth_methods"] == [["password", "totp"]])
            #expect(half.json["receipt"]?["methods"] == ["password"])
            #expect(half.json["receipt"]?["user"]?["name"] == "demo")
            // A receipt alone, a code alone, and a receipt used as a token are refused.
            #expect(try await setup.signOn(code: setup.code()).status == 401)
            #expect(try await setup.signOn(password: "wrong", receipt: receipt).status == 401)
            #expect(try await cloud.call("GET", "/v3/auth/projects", token: receipt).status == 401)
            #expect(try await cloud.call("GET", "/v3/auth/projects", token: "w1" + receipt.dropFirst(2)).status == 401)
            #expect(try await setup.signOn(code: setup.code(), receipt: before).status == 401)
            #expect(try await setup.signOn(code: setup.code(), receipt: "r1" + before.dropFirst(2)).status == 401)
            // A token from before the rules cannot be used for a new one.
            let again = try await cloud.call(
                "POST", "/v3/auth/tokens",
                body: [
                    "auth": ["identity": ["methods": ["token"], "token": ["id": .string(before)]], "scope": IdentityCloud.project("demo")]
                ])
            #expect(again.status == 401 && again.headers["openstack-auth-receipt"] == nil, "\(again.json)")
            let whole = try await setup.signOn(code: setup.code(), receipt: receipt)
            #expect(whole.status == 201, "\(whole.json)")
            #expect(Set((whole.json["token"]?["methods"]?.arrayValue ?? []).compactMap(\.stringValue)) == ["password", "totp"])
            // This token can be used for others.
            let token = try #require(whole.headers["x-subject-token"])
            let next = try await cloud.call(
                "POST", "/v3/auth/tokens",
                body: [
                    "auth": ["identity": ["methods": ["token"], "token": ["id": .string(token)]], "scope": IdentityCloud.project("demo")]
                ])
            #expect(next.status == 201, "\(next.json)")
            cloud.time.advance(by: .seconds(90))
            #expect(try await setup.signOn(password: "demo-pw", code: setup.code()).status == 201)
        }
    }

    @Test("S7: a one-time code is valid once and for a minute, and cannot be guessed")
    func s7CodesAreSpent() async throws {
        try await IdentityCloud.with { cloud in
            let setup = try await Setup(cloud)
            let code = try setup.code()
            #expect(try await setup.signOn(password: "demo-pw", code: code).status == 201)
            #expect(try await setup.signOn(password: "demo-pw", code: code).status == 401)
            // A code of an earlier time step is refused too.
            #expect(try await setup.signOn(password: "demo-pw", code: setup.code(-1)).status == 401)
            cloud.time.advance(by: .seconds(60))
            #expect(try await setup.signOn(password: "demo-pw", code: setup.code(1)).status == 401)
            #expect(try await setup.signOn(password: "demo-pw", code: setup.code(-1)).status == 201)
            #expect(try await setup.signOn(password: "demo-pw", code: setup.code()).status == 201)
            cloud.time.advance(by: .seconds(60))
            for _ in 0..<5 { #expect(try await setup.signOn(password: "demo-pw", code: "xxxxxx").status == 401) }
            #expect(try await setup.signOn(password: "demo-pw", code: setup.code()).status == 401)
            // Wrong codes without the password do not count.
            for _ in 0..<6 { #expect(try await setup.signOn(password: "wrong", code: "xxxxxx").status == 401) }
            cloud.time.advance(by: .seconds(310))
            #expect(try await setup.signOn(password: "demo-pw", code: setup.code()).status == 201)
        }
    }

    @Test("S7: receipts end when they expire, with a new password, and with the user")
    func s7ReceiptsEnd() async throws {
        try await IdentityCloud.with { cloud in
            let setup = try await Setup(cloud)
            let admin = try await cloud.admin()
            func receipt() async throws -> String {
                try #require(try await setup.signOn(password: "demo-pw").headers["openstack-auth-receipt"])
            }
            let first = try await receipt()
            // Another user's code is not valid with it.
            #expect(try await setup.signOn(code: setup.code(), receipt: first, user: "viewer").status == 401)
            #expect(try await setup.signOn(password: "viewer-pw", receipt: first, user: "viewer").status == 401)
            cloud.time.advance(by: .seconds(301))
            #expect(try await setup.signOn(code: setup.code(), receipt: first).status == 401)
            let second = try await receipt()
            let user = "/v3/users/\(setup.user)"
            #expect(try await cloud.call("PATCH", user, token: admin, body: ["user": ["password": "demo-pw"]]).status == 200)
            #expect(try await setup.signOn(code: setup.code(), receipt: second).status == 401)
            let third = try await receipt()
            #expect(try await cloud.call("PATCH", user, token: admin, body: ["user": ["enabled": false]]).status == 200)
            #expect(try await setup.signOn(code: setup.code(), receipt: third).status == 401)
            #expect(try await setup.signOn(password: "demo-pw").headers["openstack-auth-receipt"] == nil)
        }
    }

    @Test("S10: credentials belong to their owner and are encrypted")
    func s10CredentialsAreTheirOwners() async throws {
        try await IdentityCloud.with { cloud in
            let setup = try await Setup(cloud)
            let admin = try await cloud.admin()
            let other = try await cloud.token("other", project: "other")
            let all = try await cloud.call("GET", "/v3/credentials?type=totp", token: admin)
            let id = try #require(all.json["credentials"]?.arrayValue?.first?.id)
            #expect(try await cloud.call("GET", "/v3/credentials?user_id=\(setup.user)", token: other).json["credentials"] == [])
            #expect(try await cloud.call("GET", "/v3/credentials/\(id)", token: other).status == 403)
            #expect(try await cloud.call("GET", "/v3/credentials/none", token: other).status == 403)
            #expect(try await cloud.call("GET", "/v3/credentials/none", token: admin).status == 404)
            func create(_ type: String, _ blob: String, user: String? = nil, token: String) async throws -> Int {
                try await cloud.call(
                    "POST", "/v3/credentials", token: token,
                    body: ["credential": ["type": .string(type), "blob": .string(blob), "user_id": .string(user ?? setup.user)]]
                ).status
            }
            #expect(try await create("totp", FactorTests.secret, token: other) == 403)
            #expect(try await create("totp", "short", token: admin) == 400)
            #expect(try await create("totp", "not base 32 at all!", token: admin) == 400)
            #expect(try await create("ec2", "{}", token: admin) == 400)
            #expect(try await create("cert", "PEM", user: "nobody", token: admin) == 400)
            #expect(try await create("cert", "a certificate", token: admin) == 201)
            for (method, path, more) in [
                ("POST", "/v3/credentials", ["type": "cert", "blob": "text", "user_id": .string(setup.user)]),
                ("PATCH", "/v3/credentials/\(id)", [:]),
            ] as [(String, String, JSONObject)] {
                var body = more
                body["project_id"] = "nowhere"
                let answer = try await cloud.call(method, path, token: admin, body: ["credential": .object(body)])
                #expect(answer.status == 400 && answer.message.contains("project_id"), "\(method) \(answer.status) \(answer.json)")
            }
            let changed = try await cloud.call("PATCH", "/v3/credentials/\(id)", token: admin, body: ["credential": ["user_id": "other"]])
            #expect(changed.status == 400)
            let stored = try await cloud.database.read { connection in
                try connection.query(
                    """
                    SELECT (SELECT string_agg(encode(sealed, 'escape'), ' ') FROM credentials)
                        || (SELECT string_agg(coalesce(content::text, ''), ' ') FROM audit_records) AS text
                    """)[0].string("text")
            }
            #expect(!stored.contains(FactorTests.secret) && !stored.contains("a certificate"))
            // A sealed text that was moved to another row cannot be decrypted.
            let updated = try await cloud.database.write { connection in
                try connection.execute("UPDATE credentials SET type = 'totp' WHERE type = 'cert'")
            }
            #expect(updated == 1)
            #expect(try await cloud.call("GET", "/v3/credentials", token: admin).status == 500)
            #expect(try await cloud.call("DELETE", "/v3/credentials/\(id)", token: admin).status == 204)
        }
    }

    @Test("S23: rules about factors are lists of known methods, flags are booleans")
    func s23OptionsAreChecked() async throws {
        try await IdentityCloud.with { cloud in
            let (admin, user) = (try await cloud.admin(), try await cloud.id("users", "other"))
            for options: JSONValue in [
                ["multi_factor_auth_rules": "password"], ["multi_factor_auth_rules": ["password"]],
                ["multi_factor_auth_rules": [["x509"]]], ["multi_factor_auth_rules": [[]]], ["multi_factor_auth_rules": [[1]]],
                ["multi_factor_auth_enabled": "perhaps"], ["lock_password": 7], ["unknown_option": true],
            ] {
                let answer = try await cloud.call("PATCH", "/v3/users/\(user)", token: admin, body: ["user": ["options": options]])
                #expect(answer.status == 400 && answer.message.contains("options"), "\(options) \(answer.json)")
            }
            let rules: JSONValue = ["multi_factor_auth_rules": [["password", "totp"], ["token"]]]
            let set = try await cloud.call("PATCH", "/v3/users/\(user)", token: admin, body: ["user": ["options": rules]])
            #expect(set.json["user"]?["options"] == rules)
            let gone = try await cloud.call(
                "PATCH", "/v3/users/\(user)", token: admin, body: ["user": ["options": ["multi_factor_auth_rules": .null]]])
            #expect(gone.json["user"]?["options"] == [:])
        }
    }

    @Test("S23: passwords of every length are accepted or refused, never an internal error")
    func s23PasswordLengths() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            for (index, length) in [1, 511, 512, 513, 2048, 4095, 4096].enumerated() {
                let password = String(repeating: "é", count: length / 2) + (length % 2 == 1 ? "x" : "")
                let user = try await cloud.make("users", "user", ["name": .string("long\(index)"), "password": .string(password)])
                _ = try await cloud.token("long\(index)", scope: "unscoped", password: password)
                for wrong in [String(password.dropLast()) + "y", password + "y", String(password.dropLast())] where !wrong.isEmpty {
                    let answer = try await cloud.call("POST", "/v3/auth/tokens", body: IdentityCloud.signOn("long\(index)", wrong))
                    #expect(answer.status == (wrong.utf8.count > 4096 ? 400 : 401), "\(length) \(answer.json)")
                }
                let next = String(repeating: "n", count: length)
                let changed = try await cloud.call(
                    "POST", "/v3/users/\(user.id)/password",
                    body: ["user": ["original_password": .string(password), "password": .string(next)]])
                #expect(changed.status == 204, "\(length) \(changed.json)")
                _ = try await cloud.token("long\(index)", scope: "unscoped", password: next)
                let again = try await cloud.call(
                    "PATCH", "/v3/users/\(user.id)", token: admin, body: ["user": ["password": .string(password)]])
                #expect(again.status == 200)
            }
            for wrong in [String(repeating: "x", count: 4097), String(repeating: "é", count: 2049), ""] {
                let answer = try await cloud.call(
                    "POST", "/v3/users", token: admin, body: ["user": ["name": "w", "password": .string(wrong)]])
                #expect(answer.status == 400 && answer.message.contains("password"), "\(answer.json)")
            }
        }
    }

    @Test("S23: no text in a body causes an internal error")
    func s23TextsAreStoredOrRefused() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let user = try await cloud.id("users", "demo")
            let own = try await cloud.token("demo", project: "demo")
            let texts = [
                "", " ", "a\u{0}b", "\u{1F600}", "\u{202E}x", String(repeating: "\u{1F600}", count: 255),
                String(repeating: "x", count: 70_000),
            ]
            let bodies: [(String, String, JSONObject, [String])] = [
                ("users", "user", ["name": "n"], ["name", "description", "email", "default_project_id", "domain_id"]),
                ("projects", "project", ["name": "n"], ["name", "description", "note", "parent_id", "domain_id"]),
                ("domains", "domain", ["name": "n"], ["name", "description", "note", "explicit_domain_id"]),
                ("groups", "group", ["name": "n"], ["name", "description", "note"]),
                ("roles", "role", ["name": "n"], ["name", "description", "note", "domain_id"]),
                ("regions", "region", [:], ["id", "description", "note", "parent_region_id"]),
                ("services", "service", ["type": "t"], ["type", "name", "description", "note"]),
                (
                    "credentials", "credential", ["type": "cert", "blob": "b", "user_id": .string(user)],
                    ["type", "blob", "user_id", "project_id"]
                ),
                (
                    "users/\(user)/application_credentials", "application_credential", ["name": "n"],
                    ["name", "description", "secret", "expires_at"]
                ),
            ]
            for (path, kind, base, fields) in bodies {
                for field in fields {
                    for text in texts {
                        var body = base
                        if field != "name", body["name"] != nil { body["name"] = .string("n\(cloud.time.now().microseconds)") }
                        body[field] = .string(text)
                        let answer = try await cloud.call(
                            "POST", "/v3/\(path)", token: path.hasPrefix("users/") ? own : admin, body: [kind: .object(body)])
                        #expect(answer.status < 500, "\(path) \(field) \(text.prefix(8).debugDescription) \(answer.json)")
                    }
                }
            }
        }
    }
}
