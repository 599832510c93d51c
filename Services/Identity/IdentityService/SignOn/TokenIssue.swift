import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import WebAPI

/// Makes tokens.
extension Identity {
    /// `POST /v3/auth/tokens`
    func issue(_ context: RequestContext) async throws -> Response {
        let request = try SignOnRequest(context.body)
        let receipt = try context.headers["openstack-auth-receipt"].map { text in
            guard let receipt = signer.receipt(text) else { throw Identity.refused }
            return receipt
        }
        let proof = try await prove(request, receipt: receipt)
        if let missing = try await missingFactors(proof) { return missing }
        let withCatalog = context.query["nocatalog"] == nil
        let (payload, document) = try await document(proof, request.scope, withCatalog: withCatalog)
        let token = try signer.sign(payload)
        return .json(
            201, headers: ["x-subject-token": token, "vary": "X-Auth-Token"], bytes: document)
    }

    // MARK: more than one factor

    /// How long a receipt is valid, as in Keystone.
    private static let receiptLifetime: Duration = .seconds(300)
    /// Methods that a receipt may record. Tokens and application credentials carry restrictions that a receipt cannot
    /// store.
    private static let receiptMethods: Set<String> = ["password", "totp"]

    /// The response if the user's rules require more methods: 401 with a receipt for the completed ones; nil if they are
    /// sufficient.
    ///
    /// - Throws: 401 if no receipt is possible.
    private func missingFactors(_ proof: Proof) async throws -> Response? {
        let row = try await database.read { connection in
            try connection.query(
                """
                SELECT u.name, u.options, u.domain_id, d.name AS domain_name FROM users u JOIN projects d ON d.id = u.domain_id
                WHERE u.id = \(proof.userID) AND u.enabled AND d.enabled
                """
            ).first.map { row in
                (
                    name: try row.string("name"), rules: FactorRules(options: try row.optionalJSON("options")),
                    domain: try row.string("domain_id"), domainName: try row.string("domain_name")
                )
            }
        }
        guard let row else { throw Identity.refused }
        if row.rules.areMet(by: proof.methods) { return nil }
        guard Identity.receiptMethods.isSuperset(of: proof.methods) else {
            throw ResourceError(
                .unauthorized,
                "The user's multi_factor_auth_rules ask for more than the methods \(proof.methods.joined(separator: ", ")).")
        }
        let now = ambient.now
        let receipt = SignOnReceipt(
            userID: proof.userID, methods: proof.methods, issuedAt: now, expiresAt: now + Identity.receiptLifetime)
        let required = row.rules.begun(with: proof.methods).map { JSONValue($0) }
        return .json(
            401, headers: ["openstack-auth-receipt": try signer.sign(receipt), "vary": "X-Auth-Token"],
            [
                "receipt": [
                    "methods": JSONValue(receipt.methods),
                    "user": [
                        "id": .string(receipt.userID), "name": .string(row.name),
                        "domain": ["id": .string(row.domain), "name": .string(row.domainName)],
                    ],
                    "issued_at": .string(receipt.issuedAt.iso8601Microseconds),
                    "expires_at": .string(receipt.expiresAt.iso8601Microseconds),
                ],
                "required_auth_methods": .array(required),
            ])
    }

    private func document(
        _ proof: Proof, _ scope: SignOnRequest.ScopeRequest, withCatalog: Bool
    ) async throws -> (TokenPayload, [UInt8]) {
        let now = ambient.now
        let own = Base64URL.encode(ambient.random.bytes(16))
        let expiry = min(now + options.tokenLifetime, proof.expiresAt ?? now + options.tokenLifetime)
        let base = TokenPayload(
            userID: proof.userID, scope: .unscoped, methods: proof.methods, issuedAt: now, expiresAt: expiry,
            auditIDs: [own] + (proof.chain.map { [$0] } ?? []), applicationCredentialID: proof.credential?.id)
        return try await database.read { connection in
            let caller = try Identity.scoped(connection, base, scope, proof)
            var writer = JSONWriter(capacity: 8192)
            try TokenDocument.write(connection, caller, withCatalog: withCatalog, into: &writer)
            return (caller.token, writer.bytes)
        }
    }

    /// The token's roles in the requested scope.
    ///
    /// - Throws: 401 where the user has no role there, or it does not exist.
    private static func scoped(
        _ connection: Connection, _ base: TokenPayload, _ request: SignOnRequest.ScopeRequest, _ proof: Proof
    ) throws -> Caller {
        var payload = base
        if let credential = proof.credential {
            payload.scope = .project(ID(credential.projectID))
            let asked = try scope(connection, request)
            guard asked == nil || asked == payload.scope else { throw refused }
        } else if case .implied = request {
            if let caller = try inDefaultProject(connection, base) { return caller }
        } else if request != .unscoped {
            guard let scope = try scope(connection, request) else { throw refused }
            payload.scope = scope
        }
        guard let caller = try TokenAuthenticator.resolve(connection, payload) else { throw refused }
        return caller
    }

    private static func inDefaultProject(_ connection: Connection, _ base: TokenPayload) throws -> Caller? {
        let rows = try connection.query("SELECT default_project_id FROM users WHERE id = \(base.userID)")
        guard let project = try rows.first?.optionalString("default_project_id") else { return nil }
        var payload = base
        payload.scope = .project(ID(project))
        return try TokenAuthenticator.resolve(connection, payload)
    }

    /// The scope in a request; nil if it does not exist, or if the request has none.
    private static func scope(_ connection: Connection, _ request: SignOnRequest.ScopeRequest) throws -> Scope? {
        let rows: Rows
        switch request {
        case .implied, .unscoped: return nil
        case .system: return .system
        case .project(.id(let id)): rows = try connection.query("SELECT id FROM projects WHERE id = \(id) AND NOT is_domain")
        case .project(.name(let name, .id(let domain))):
            rows = try connection.query("SELECT id FROM projects WHERE name = \(name) AND domain_id = \(domain)")
        case .project(.name(let name, .name(let domain))):
            rows = try connection.query(
                """
                SELECT p.id FROM projects p JOIN projects d ON d.id = p.domain_id WHERE p.name = \(name) AND \
                d.name = \(domain) AND d.is_domain
                """
            )
        case .domain(let domain):
            switch domain {
            case .id(let id): rows = try connection.query("SELECT id FROM projects WHERE id = \(id) AND is_domain")
            case .name(let name): rows = try connection.query("SELECT id FROM projects WHERE name = \(name) AND is_domain")
            }
            return try rows.first.map { .domain(ID(try $0.string("id"))) }
        }
        return try rows.first.map { .project(ID(try $0.string("id"))) }
    }
}
