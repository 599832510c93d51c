import Authorization
import Cryptography
package import Database
import Foundation
import JSON
package import Kernel

/// An action that policy allowed, with its target.
struct Grant: Sendable, Hashable {
    let action: String
    let target: PolicyTarget
}

extension Grant {
    var document: JSONValue {
        let attributes = target.attributes.sorted { $0.key < $1.key }.map { ($0.key, JSONValue.string($0.value)) }
        return ["action": .string(action), "target": .object(JSONObject(attributes))]
    }

    /// Reads `document`.
    init(stored value: JSONValue) {
        var target = PolicyTarget.none
        for member in value["target"]?.objectValue?.members ?? [] { target.attributes[member.name] = member.value.stringValue }
        self.init(action: value["action"]?.stringValue ?? "", target: target)
    }
}

/// A stored response with the policy decisions on which it is based.
struct KeptAnswer: Sendable {
    let response: Response
    /// Nil for responses stored by releases that did not store decisions.
    let grants: [Grant]?
}

/// The answer to a request under its `Idempotency-Key`, kept so that the same request gets it again.
///
/// The client's key is not stored. Its hash identifies the response, and a key derived from it encrypts the response, which
/// may contain a secret (docs/adr/0007-sealed-answers.md).
struct Idempotency: Sendable {
    /// The status stored until the response is known.
    static let provisional = 102
    /// Answers are kept for so long.
    static let kept: Duration = .seconds(86_400)
    private static let lengthMax = 255
    /// A key that protects a secret must not be guessable.
    private static let secretLengthMin = 16

    private let scope: String
    private let text: String
    private let name: String
    private let sealing: SealingKey
    private let fingerprint: String

    /// - Parameters:
    ///   - key: what the client sent.
    ///   - scope: the namespace of the key: service, user and project.
    ///   - request: the parts that distinguish this request from another one with the same key.
    /// - Throws: 400 for an invalid key.
    init(key: String, scope: String, request: String) throws {
        guard !key.isEmpty, key.utf8.count <= Idempotency.lengthMax else {
            throw ResourceError.badRequest("The Idempotency-Key header must have 1 to \(Idempotency.lengthMax) characters.")
        }
        self.scope = scope
        text = key
        name = Hexadecimal.encode(HashAlgorithm.sha256.hash("\(scope) \(key)".utf8))
        let secret = try HashAlgorithm.sha256.deriveKey(
            from: Array(key.utf8), salt: Array(scope.utf8), info: Array("answer".utf8), count: SealingKey.byteCount)
        sealing = try SealingKey(secret)
        // The body is included as a keyed hash only, because it may contain a password.
        fingerprint = Hexadecimal.encode(HashAlgorithm.sha256.authenticationCode(for: request.utf8, key: secret))
    }

    /// The stored response. If there is none, the key is claimed in this transaction.
    ///
    /// - Throws: 422 if the key was used with another request.
    func earlier(_ connection: Connection, _ ambient: Ambient) throws -> KeptAnswer? {
        // A concurrent request with the same key waits here for the first one's end.
        let inserted = try connection.query(
            """
            INSERT INTO idempotency_keys (scope, key, fingerprint, created_at)
            VALUES (\(scope), \(name), \(fingerprint), \(ambient.databaseNow)) ON CONFLICT DO NOTHING RETURNING key
            """)
        return inserted.isEmpty ? try look(connection) : nil
    }

    /// The answer that was given before, if there is one.
    ///
    /// - Parameter isLocked: whether to lock the response until the transaction ends.
    /// - Throws: 422 if the key was used with another request.
    func look(_ connection: Connection, isLocked: Bool = false) throws -> KeptAnswer? {
        guard
            let row = try connection.query(
                """
                SELECT fingerprint, status, headers, encode(body, 'hex') AS body, grants FROM idempotency_keys
                WHERE scope = \(scope) AND key = \(name) \(raw: isLocked ? "FOR UPDATE" : "")
                """
            ).first
        else { return nil }
        guard try row.string("fingerprint") == fingerprint else {
            throw ResourceError(
                .unprocessable, "The Idempotency-Key '\(text)' was used before for another request.")
        }
        var headers = Headers()
        for member in try row.object("headers").members { headers.append(member.name, member.value.stringValue ?? "") }
        headers["idempotent-replay"] = "true"
        let bytes = try open(Hexadecimal.decode(try row.string("body")) ?? [])
        let response = Response(status: try row.int("status"), headers: headers, body: bytes.isEmpty ? .none : .bytes(bytes))
        return KeptAnswer(response: response, grants: try row.optionalJSON("grants")?.arrayValue.map { $0.map(Grant.init(stored:)) })
    }

    /// Keeps the answer, sealed.
    ///
    /// - Throws: 400 if the response contains a secret and the key is too weak to protect it.
    func remember(
        _ connection: Connection, _ response: Response, holdsSecret: Bool, _ grants: [Grant], _ ambient: Ambient
    ) throws {
        if holdsSecret, text.utf8.count < Idempotency.secretLengthMin {
            throw ResourceError.badRequest(
                """
                The Idempotency-Key must have at least \(Idempotency.secretLengthMin) characters for this request, \
                because it encrypts the stored response, which contains a secret.
                """
            )
        }
        let headers = JSONObject(response.headers.fields.map { ($0.name, JSONValue.string($0.value)) })
        let body = Hexadecimal.encode(try seal(response.bytes ?? [], nonce: ambient.random.bytes(SealingKey.nonceBytes)))
        try connection.execute(
            """
            UPDATE idempotency_keys SET status = \(response.status), headers = \(headers)::jsonb,
                body = decode(\(body), 'hex'), grants = \(JSONValue.array(grants.map(\.document)))::jsonb
            WHERE scope = \(scope) AND key = \(name)
            """)
    }

    private func seal(_ bytes: [UInt8], nonce: [UInt8]) throws -> [UInt8] {
        guard !bytes.isEmpty else { return [] }
        return try sealing.seal(bytes, nonce: nonce, context: Array(fingerprint.utf8))
    }

    private func open(_ bytes: [UInt8]) throws -> [UInt8] {
        guard !bytes.isEmpty else { return [] }
        return try sealing.open(bytes, context: Array(fingerprint.utf8))
    }
}

/// Deletes expired responses.
package enum KeptAnswers {
    /// - Parameter service: the type of the service whose answers they are.
    package static func forget(_ database: Database, service: String, _ ambient: Ambient) async throws {
        _ = try await database.write {
            try $0.execute(
                """
                DELETE FROM idempotency_keys WHERE created_at < \(ambient.databaseNow) - \
                \(Idempotency.kept)::interval AND scope LIKE \(service + ":%")
                """
            )
        }
    }
}
