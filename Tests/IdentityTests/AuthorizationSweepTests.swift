import Database
import IdentityCore
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@testable import IdentityService

/// Every route of Identity's API, for every kind of caller.
@Suite struct IdentityAuthorizationSweepTests {
    /// A cloud with one resource of each kind in the domain `default` and the project `demo`.
    private static func with(_ body: (IdentityCloud, RouteSweep) async throws -> Void) async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            func create(_ path: String, _ name: String, _ value: JSONValue, token: String? = nil) async throws -> String {
                let answer = try await cloud.call("POST", "/v3/\(path)", token: token ?? admin, body: [name: value])
                return try #require(answer.json[name]?["id"]?.stringValue, "\(answer.json)")
            }
            let demo = try await cloud.id("projects", "demo")
            let user = try await create("users", "user", ["name": "target", "password": "target-pw"])
            let group = try await create("groups", "group", ["name": "target"])
            let role = try await create("roles", "role", ["name": "target"])
            let implied = try await create("roles", "role", ["name": "implied"])
            let region = try await create("regions", "region", ["id": "there"])
            let service = try await create("services", "service", ["type": "object-store"])
            let endpoint = try await create(
                "endpoints", "endpoint",
                ["interface": "public", "service_id": .string(service), "url": "http://x.example", "region_id": "RegionOne"])
            for (method, path) in [
                ("PUT", "groups/\(group)/users/\(user)"), ("PUT", "roles/\(role)/implies/\(implied)"),
                ("PUT", "projects/\(demo)/tags/t1"), ("PUT", "projects/\(demo)/users/\(user)/roles/\(role)"),
            ] {
                let answer = try await cloud.call(method, "/v3/\(path)", token: admin)
                #expect(answer.status < 300, "\(path) \(answer.json)")
            }
            let target = try await cloud.token("target", project: "demo")
            let credential = try await create(
                "users/\(user)/application_credentials", "application_credential",
                ["name": "c", "access_rules": [["service": "compute", "path": "/v2.1/servers", "method": "GET"]]], token: target)
            let rules = try await cloud.call("GET", "/v3/users/\(user)/access_rules", token: target)
            let rule = try #require(rules.json["access_rules"]?.arrayValue?.first?["id"]?.stringValue)
            let stored = try await create(
                "credentials", "credential", ["type": "cert", "blob": "text", "user_id": .string(user)], token: target)
            let sweep = RouteSweep(
                cloud.api, database: cloud.database,
                parameters: [
                    "project_id": demo, "domain_id": "default", "user_id": user, "group_id": group, "role_id": role,
                    "implied_id": implied, "tag": "t1", "credential_id": credential, "rule_id": rule,
                    "stored_id": stored,
                    "/v3/regions/{id} id": region, "/v3/services/{id} id": service, "/v3/endpoints/{id} id": endpoint,
                ],
                bodies: [
                    "POST /v3/endpoints": [
                        "endpoint": ["interface": "admin", "service_id": .string(service), "url": "http://y.example"]
                    ],
                    "POST /v3/credentials": ["credential": ["type": "cert", "blob": "text", "user_id": .string(user)]],
                    "POST /v3/regions": ["region": ["id": "elsewhere"]],
                ],
                headers: [("X-Subject-Token", try await cloud.token("target", project: "demo"))])
            try await body(cloud, sweep)
        }
    }

    @Test func aKeyGivesOneEffect() async throws {
        try await IdentityAuthorizationSweepTests.with { cloud, sweep in
            let findings = try await sweep.repeated(
                try await cloud.admin(), except: [IdentityAuthorizationSweepTests.own: "one's own only: below"],
                keeping: ["users", "projects", "roles", "role_assignments", "identity_changes"])
            #expect(findings == [])
            let token = try await cloud.token("target", project: "demo")
            let own = try await sweep.repeated(
                token, keeping: ["users"], where: { RouteSweep.name($0) == IdentityAuthorizationSweepTests.own })
            #expect(own == [])
        }
    }

    private static let own = "POST /v3/users/{user_id}/application_credentials"

    /// Neither the secret nor the key that decrypts the stored response is in the database.
    @Test func keptAnswersAreSealed() async throws {
        try await IdentityAuthorizationSweepTests.with { cloud, sweep in
            let user = try await cloud.id("users", "target")
            let token = try await cloud.token("target", project: "demo")
            let key = "a key that nobody guesses 8712634"
            func create(_ key: String) async throws -> (status: Int, secret: String) {
                let answer = try await cloud.call(
                    "POST", "/v3/users/\(user)/application_credentials", token: token, headers: [("Idempotency-Key", key)],
                    body: ["application_credential": ["name": "sealed"]])
                return (answer.status, answer.json["application_credential"]?["secret"]?.stringValue ?? "")
            }
            #expect(try await create("short").status == 400)
            let first = try await create(key)
            #expect(first.status == 201 && first.secret.count > 40)
            #expect(try await create(key) == first)
            let stored = try await cloud.database.read { connection in
                try connection.query(
                    "SELECT scope || key || fingerprint || headers || encode(body, 'escape') || encode(body, 'hex') AS text FROM idempotency_keys"
                ).map { try $0.string("text") }.joined()
            }
            let hex = first.secret.utf8.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
            for secret in [first.secret, hex, key] { #expect(!stored.contains(secret)) }
        }
    }

    /// Not all of Keystone's lists have paging; those without it refuse `limit` here.
    @Test func everyListComesInPages() async throws {
        try await IdentityAuthorizationSweepTests.with { cloud, sweep in
            for n in 0..<2 {
                for (path, name) in [
                    ("users", "user"), ("groups", "group"), ("roles", "role"), ("projects", "project"), ("domains", "domain"),
                ] {
                    let answer = try await cloud.call(
                        "POST", "/v3/\(path)", token: cloud.admin(), body: [name: ["name": .string("\(name)-\(n)")]])
                    #expect(answer.status == 201, "\(answer.json)")
                }
            }
            let (user, target) = (try await cloud.id("users", "target"), try await cloud.token("target", project: "demo"))
            let rules = ["/v2.1/flavors", "/v2.1/images"].map {
                JSONValue.object(["service": "compute", "path": .string($0), "method": "GET"])
            }
            let credential = try await cloud.call(
                "POST", "/v3/users/\(user)/application_credentials", token: target,
                body: ["application_credential": ["name": "with rules", "access_rules": .array(rules)]])
            #expect(credential.status == 201, "\(credential.json)")
            let whole = try await cloud.call("GET", "/v3/users/\(user)/access_rules", token: target)
            #expect(whole.json["access_rules"]?.arrayValue?.count == 3, "\(whole.json)")
            let page = try await cloud.call("GET", "/v3/users/\(user)/access_rules?limit=1&service=compute", token: target)
            #expect(page.json["access_rules"]?.arrayValue?.count == 1 && page.json["links"]?["next"]?.stringValue != nil, "\(page.json)")
            let (findings, walked) = try await sweep.unpaged([try await cloud.admin(), try await cloud.token("target", project: "demo")])
            #expect(findings == [])
            #expect(walked >= 10)
        }
    }

    @Test func answersFitTheirSchemas() async throws {
        try await IdentityAuthorizationSweepTests.with { cloud, sweep in
            let tokens = [try await cloud.admin(), try await cloud.token("target", project: "demo")]
            let (findings, compared) = try await sweep.answersDifferingFromSchemas(tokens)
            #expect(findings == [])
            #expect(sweep.undeclaredAnswers([:]) == [])
            #expect(compared >= 60)
            #expect(try await sweep.comparisonsWithoutIndex().findings == [])
            for query in ["", "?include_names", "?effective&include_names"] {
                _ = try await cloud.call("GET", "/v3/role_assignments\(query)", token: tokens[0])
            }
        }
    }

    @Test func requestsWithoutATokenAreRefused() async throws {
        try await IdentityAuthorizationSweepTests.with { _, sweep in
            let findings = try await sweep.anonymous()
            #expect(findings == [])
        }
    }

    /// Allowed to every authenticated caller: the catalog's regions, and the user's own domain.
    private static let forAll: Set<String> = ["identity:get_region", "identity:get_domain"]

    @Test func otherProjectsAreRefused() async throws {
        try await IdentityAuthorizationSweepTests.with { cloud, sweep in
            let other = try await cloud.token("other", project: "other")
            let otherProjectFindings = try await sweep.foreigner(other, except: IdentityAuthorizationSweepTests.forAll)
            #expect(otherProjectFindings == [])
        }
    }

    @Test("S11: another project's resource looks like a missing one") func s11ForeignResourcesLookMissing() async throws {
        try await IdentityAuthorizationSweepTests.with { cloud, sweep in
            let other = try await cloud.token("other", project: "other")
            let findings = try await sweep.tellsExistence(other, except: IdentityAuthorizationSweepTests.forAll)
            #expect(findings == [])
        }
    }

    @Test func readersDoNotWrite() async throws {
        try await IdentityAuthorizationSweepTests.with { cloud, sweep in
            let token = try await cloud.token("viewer", project: "demo")
            let written = try await sweep.reader(token)
            #expect(written == [])
        }
    }

    @Test("S10: a decision about reading does not allow writing") func s10ReadingIsNoWriting() async throws {
        try await IdentityAuthorizationSweepTests.with { cloud, sweep in
            let findings = try await sweep.readingWrites(cloud.admin())
            #expect(findings == [])
        }
    }

    @Test func membersDoNotWrite() async throws {
        try await IdentityAuthorizationSweepTests.with { cloud, sweep in
            let token = try await cloud.token("demo", project: "demo")
            let written = try await sweep.reader(token)
            #expect(written == [])
        }
    }

    @Test func unscopedTokensReachOnlyTheirOwn() async throws {
        try await IdentityAuthorizationSweepTests.with { cloud, sweep in
            let token = try await cloud.token("demo", scope: "unscoped")
            let otherProjectFindings = try await sweep.foreigner(token, except: IdentityAuthorizationSweepTests.forAll)
            #expect(otherProjectFindings == [])
            let written = try await sweep.reader(token)
            #expect(written == [])
        }
    }

    /// The status for each caller and each route: other, reader, member, domain manager, admin.
    @Test func everyRouteAnswersAsTheTableSays() async throws {
        var columns: [[String: Int]] = []
        for (user, scope) in [
            ("other", IdentityCloud.project("other")), ("viewer", IdentityCloud.project("demo")), ("demo", IdentityCloud.project("demo")),
            ("domainer", ["domain": ["id": "default"]]), ("admin", IdentityCloud.project("admin")),
        ] as [(String, JSONValue)] {
            try await IdentityAuthorizationSweepTests.with { cloud, sweep in
                let token = try await cloud.token(user, scope: scope)
                let outcomes = try await sweep.outcomes(token) { $0.action != nil }
                for outcome in outcomes where outcome.status >= 500 { Issue.record("\(outcome)") }
                columns.append(Dictionary(outcomes.map { ($0.route, $0.status) }, uniquingKeysWith: { $1 }))
            }
        }
        let found = columns[0].keys.sorted().map { route in
            route + " " + columns.map { String($0[route] ?? 0) }.joined(separator: " ")
        }
        let wanted = SweepTable.text.split(separator: "\n").map(String.init)
        for line in Set(found).symmetricDifference(wanted).sorted() {
            Issue.record("\(found.contains(line) ? "found" : "expected"): \(line)")
        }
    }

    @Test("S6: only services may act on behalf of others, and nobody in Identity") func s6SubjectsAreForServicesOnly() async throws {
        try await IdentityAuthorizationSweepTests.with { cloud, sweep in
            let tokens = [try await cloud.admin(), try await cloud.token("demo", project: "demo")]
            let findings = try await sweep.forgedSubjects(tokens)
            #expect(findings == [])
            let service = try await cloud.token("wolke", project: "service", password: "service-pw")
            for headers in [ActingSubject(project: "p1", user: "u1", grounds: .user), .accepted(project: "p1", user: "u1")].map(\.headers) {
                let open = try await sweep.with(headers: headers).outcomes(service) { $0.action != nil }.filter { $0.status != 403 }
                #expect(open == [])
            }
        }
    }
}
