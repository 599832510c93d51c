import Authorization
import Cryptography
import ServiceCatalog
import ServiceKit
import Database
import IdentityCore
import JSON
import Kernel
import Telemetry
import TestKit
import Testing
import WebAPI

@testable import IdentityService

/// A bootstrapped Identity with a private database.
struct IdentityCloud: Sendable {
    let database: Database
    let identity: Identity
    let api: API
    let time: ManualTime
    let verifier: TokenVerifier

    static let plan: JSONValue = [
        "projects": [["name": "admin"], ["name": "service"], ["name": "demo"], ["name": "other"]],
        "users": [
            [
                "name": "admin", "password": "admin-pw", "default_project": "admin",
                "assignments": [["project": "admin", "roles": ["admin"]], ["system": true, "roles": ["admin"]]],
            ],
            ["name": "wolke", "password": "service-pw", "assignments": [["project": "service", "roles": ["service"]]]],
            ["name": "demo", "password": "demo-pw", "assignments": [["project": "demo", "roles": ["member"]]]],
            ["name": "viewer", "password": "viewer-pw", "assignments": [["project": "demo", "roles": ["reader"]]]],
            ["name": "other", "password": "other-pw", "assignments": [["project": "other", "roles": ["member"]]]],
            [
                "name": "domainer", "password": "domainer-pw",
                "assignments": [["domain": "default", "roles": ["manager"]]],
            ],
        ],
        "services": [
            ["type": "identity", "name": "identity", "url": "http://cloud.example:5000/v3"],
            ["type": "volumev3", "name": "volume", "url": "http://cloud.example:8776/v3/$(project_id)s"],
        ],
    ]

    static func with(
        options: IdentityOptions = IdentityOptions(), policy: [String: String] = [:], plan: JSONValue = IdentityCloud.plan,
        _ body: (IdentityCloud) async throws -> Void
    ) async throws {
        try await TestDatabase.with { test in
            let time = ManualTime()
            let ambient = Ambient(time: time)
            let pair = try TokenSigner.generate(keyID: "k1", random: SystemRandom())
            let verifier = try TokenVerifier(file: pair.publicFile)
            let authenticator = TokenAuthenticator(
                verifier: verifier, database: test.database, ambient: ambient)
            let hasher = PasswordHasher(cost: 1)
            let identity = try Identity(
                database: test.database, authenticator: authenticator, signer: try TokenSigner(file: pair.privateFile),
                hasher: hasher, options: options,
                credentialKeys: try CredentialKeys(file: CredentialKeys.generate(keyID: "c1", random: ambient.random.bytes(32))),
                ambient: ambient, policyOverrides: policy)
            let bootstrap = Bootstrap(
                database: test.database, hasher: hasher, ambient: ambient, operatorRoles: identity.operatorRoles)
            try await bootstrap.run(BootstrapPlan(plan))
            time.advance(by: .seconds(1))
            let api = try IdentityModule.make(
                identity,
                .test(
                    test.database, .identity, ambient: ambient, authenticator: authenticator, policy: policy,
                    publicURL: "http://cloud.example:5000")
            ).api
            try await body(IdentityCloud(database: test.database, identity: identity, api: api, time: time, verifier: verifier))
        }
    }

    func bootstrap(restoring: Bool = false) -> Bootstrap {
        Bootstrap(
            database: database, hasher: identity.hasher, ambient: identity.ambient, operatorRoles: identity.operatorRoles,
            restoring: restoring)
    }

    struct Answer: Sendable {
        let status: Int
        let json: JSONValue
        let headers: Headers

        var message: String { json["error"]?["message"]?.stringValue ?? "" }
    }

    func call(
        _ method: String, _ target: String, token: String? = nil, headers: [(String, String)] = [], body: JSONValue? = nil
    ) async throws -> Answer {
        var fields = Headers(headers)
        if let token { fields["x-auth-token"] = token }
        // The clock advances a moment before each request.
        time.advance(by: .milliseconds(1))
        let response = await api.respond(to: try IncomingRequest(method, target, headers: fields, body: body?.encoded ?? []))
        let bytes = response.bytes ?? []
        let json = bytes.isEmpty ? JSONValue.null : try JSONValue.parse(bytes)
        if response.status < 300, !bytes.isEmpty, let method = WebAPI.Method(rawValue: method) {
            #expect(api.answerFindings(method, String(target.prefix { $0 != "?" }), json) == [])
        }
        return Answer(status: response.status, json: json, headers: response.headers)
    }

    /// A password sign-on body; nil `scope` for an unscoped token.
    static func signOn(_ user: String, _ password: String, scope: JSONValue? = nil) -> JSONValue {
        var auth: JSONObject = [
            "identity": [
                "methods": ["password"],
                "password": [
                    "user": ["name": .string(user), "domain": ["id": "default"], "password": .string(password)]
                ],
            ]
        ]
        if let scope { auth["scope"] = scope }
        return ["auth": .object(auth)]
    }

    static func project(_ name: String) -> JSONValue { ["project": ["name": .string(name), "domain": ["id": "default"]]] }

    /// Issues a token; fails the test if the sign-on is refused.
    func token(_ user: String, project: String? = nil, scope: JSONValue? = nil, password: String? = nil) async throws -> String {
        let scope = scope ?? project.map(IdentityCloud.project)
        let answer = try await call(
            "POST", "/v3/auth/tokens", body: IdentityCloud.signOn(user, password ?? user + "-pw", scope: scope))
        try #require(answer.status == 201, "\(answer.json)")
        return try #require(answer.headers["x-subject-token"])
    }

    func admin() async throws -> String { try await token("admin", project: "admin") }

    func id(_ table: String, _ name: String) async throws -> String {
        try await database.read {
            try $0.query("SELECT id FROM \(raw: table) WHERE name = \(name)")[0].string("id")
        }
    }
}
