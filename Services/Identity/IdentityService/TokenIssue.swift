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
        let proof = try await prove(request)
        let withCatalog = context.query["nocatalog"] == nil
        let (payload, document) = try await document(proof, request.scope, withCatalog: withCatalog)
        let token = try signer.sign(payload)
        return .json(
            201, headers: ["x-subject-token": token, "vary": "X-Auth-Token"], bytes: document)
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

    /// What the token would resolve to in the scope asked for.
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

    /// The scope that a request names; nil where there is no such thing, or it names none.
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
                "SELECT p.id FROM projects p JOIN projects d ON d.id = p.domain_id WHERE p.name = \(name) AND d.name = \(domain) AND d.is_domain")
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
