import Authorization
import Kernel
import TestKit
import Testing

@Suite struct PolicyTests {
    private let member = StaticAuthenticator.caller()
    private let admin = StaticAuthenticator.caller(user: "a", project: "admin", roles: ["admin"])

    private func allows(_ rule: String, _ caller: Caller, _ target: PolicyTarget = .project("p1")) throws -> Bool {
        try Policy(defaults: ["x:y": rule]).allows("x:y", caller, target)
    }

    @Test(arguments: [
        ("", true, true), ("@", true, true), ("!", false, false), ("role:member", true, false),
        ("role:ADMIN", false, true), ("project_id:%(project_id)s", true, false),
        ("role:admin or project_id:%(project_id)s", true, true), ("not role:admin", true, false),
        ("(role:member and not role:admin) or (role:admin and user_id:a)", true, true),
        ("role:member and (user_id:%(user_id)s or role:reader)", true, false), ("rule:admin_required", false, true),
        ("is_admin:True", false, true), ("project_id:%(absent)s", false, false),
    ])
    func rules(rule: String, memberMay: Bool, adminMay: Bool) throws {
        #expect(try allows(rule, member) == memberMay)
        #expect(try allows(rule, admin) == adminMay)
    }

    @Test(arguments: ["role:", "(role:a", "role:a and", "role:a role:b", ":x", "rule:absent"])
    func malformed(rule: String) { #expect(throws: ResourceError.self) { try Policy(defaults: ["x:y": rule]) } }

    @Test func unknownActionIsDenied() throws {
        #expect(try !Policy(defaults: [:]).allows("nobody:declared", admin, .none))
    }

    @Test("S10: a decision is valid for its own action only") func s10DecisionsDoNotPassOn() throws {
        let policy = try Policy(defaults: ["x:get": "@", "x:delete": "@", "x:purge": "@"])
        let read = try policy.authorize("x:get", member, "thing", target: .none)
        let refusal = #expect(throws: ResourceError.self) { try read.value(for: "x:delete", "x:purge") }
        #expect(refusal?.code == .internalError)
        #expect(refusal.map { "\($0)" }?.contains("a decision about x:get was passed to a mutation for x:delete or x:purge") == true)
        let purge = try policy.authorize("x:purge", member, "thing", target: .none)
        #expect(try purge.value(for: "x:delete", "x:purge") == "thing")
        #expect(try [purge, purge].values(for: "x:purge") == ["thing", "thing"])
        #expect(throws: ResourceError.self) { try [purge, read].values(for: "x:purge") }
    }

    @Test func overridesWin() throws {
        let policy = try Policy(defaults: ["x:y": "role:admin"], overrides: ["x:y": "rule:support", "support": "role:support"])
        #expect(policy.allows("x:y", StaticAuthenticator.caller(roles: ["support"]), .none))
        #expect(!policy.allows("x:y", admin, .none))
    }

    @Test("S8: a policy file with a misspelt action is refused, not left without effect", arguments: ["x:z", "getimage"])
    func s8MisspeltActions(name: String) {
        #expect(throws: ResourceError.self) {
            try Policy(defaults: ["x:y": "role:admin", "get_image": "@"], overrides: [name: "rule:admin_required"])
        }
    }
}

@Suite struct TokenTests {
    @Test func signedTokensVerifyAndForgedOnesDoNot() throws {
        let (privateFile, publicFile) = try TokenSigner.generate(keyID: "k1", random: SystemRandom())
        let signer = try TokenSigner(file: privateFile)
        let verifier = try TokenVerifier(file: publicFile)
        let payload = TokenPayload(
            userID: "u", scope: .project(ID("p")), methods: ["password"], issuedAt: Timestamp(seconds: 1),
            expiresAt: Timestamp(seconds: 2), auditIDs: ["a", "b"], applicationCredentialID: "c")
        let token = try signer.sign(payload)
        #expect(verifier.verify(token) == payload)
        #expect(try TokenVerifier(file: TokenSigner.generate(keyID: "k1", random: SystemRandom()).publicFile).verify(token) == nil)
        for index in [3, 10, 40, token.utf8.count - 2] {
            var bytes = Array(token.utf8)
            bytes[index] = bytes[index] == UInt8(ascii: "A") ? UInt8(ascii: "B") : UInt8(ascii: "A")
            #expect(verifier.verify(String(decoding: bytes, as: UTF8.self)) == nil)
        }
        for bad in ["", "w1", "w1.k1..", String(repeating: "x", count: 10_000)] { #expect(verifier.verify(bad) == nil) }
    }
}
