import Cryptography
import Foundation
import JSON
package import Kernel

/// The payload of a token.
package struct TokenPayload: Sendable, Hashable {
    package var userID: String
    package var scope: Scope
    /// `password`, `token`, `application_credential`, …
    package var methods: [String]
    package var issuedAt: Timestamp
    package var expiresAt: Timestamp
    /// The token's own audit id, then that of the first token of its chain.
    package var auditIDs: [String]
    package var applicationCredentialID: String?

    package init(
        userID: String, scope: Scope, methods: [String], issuedAt: Timestamp, expiresAt: Timestamp,
        auditIDs: [String], applicationCredentialID: String? = nil
    ) {
        self.userID = userID
        self.scope = scope
        self.methods = methods
        self.issuedAt = issuedAt
        self.expiresAt = expiresAt
        self.auditIDs = auditIDs
        self.applicationCredentialID = applicationCredentialID
    }

    fileprivate var json: JSONValue {
        var object: JSONObject = [
            "u": .string(userID), "m": JSONValue(methods), "i": .integer(issuedAt.microseconds),
            "e": .integer(expiresAt.microseconds), "a": JSONValue(auditIDs),
        ]
        switch scope {
        case .unscoped: break
        case .project(let id): object["p"] = .string(id.text)
        case .domain(let id): object["d"] = .string(id.text)
        case .system: object["s"] = 1
        }
        if let applicationCredentialID { object["c"] = .string(applicationCredentialID) }
        return .object(object)
    }

    fileprivate init?(_ json: JSONValue) {
        guard let user = json["u"]?.stringValue, case .integer(let issued)? = json["i"],
            case .integer(let expires)? = json["e"], let methods = json["m"]?.arrayValue,
            let audits = json["a"]?.arrayValue
        else { return nil }
        let scope: Scope =
            if let project = json["p"]?.stringValue { .project(ID(project)) } else if let domain = json["d"]?.stringValue {
                .domain(ID(domain))
            } else if json["s"] != nil { .system } else { .unscoped }
        self.init(
            userID: user, scope: scope, methods: methods.compactMap(\.stringValue),
            issuedAt: Timestamp(microseconds: issued), expiresAt: Timestamp(microseconds: expires),
            auditIDs: audits.compactMap(\.stringValue), applicationCredentialID: json["c"]?.stringValue)
    }
}

/// Signs tokens with Ed25519 (RFC 8032) over the payload's bytes. Only Identity has one.
package struct TokenSigner: Sendable {
    let key: SigningKey
    package let keyID: String

    /// - Parameter file: content of a signing key file: key id and base64 of the 32 private bytes.
    /// - Throws: 500 if the content is malformed.
    package init(file: String) throws {
        let parts = file.split(whereSeparator: \.isWhitespace)
        guard parts.count == 2, let raw = Data(base64Encoded: String(parts[1])) else {
            throw ResourceError.internalError("malformed token signing key file")
        }
        key = try SigningKey(raw)
        keyID = String(parts[0])
    }

    /// Generates a key pair: the contents of its private and its public file.
    ///
    /// - Parameter random: a cryptographically secure source.
    package static func generate(keyID: String, random: some RandomSource) throws -> (privateFile: String, publicFile: String) {
        let key = try SigningKey(random.bytes(SigningKey.byteCount))
        return (
            "\(keyID) \(Data(key.bytes).base64EncodedString())\n",
            "\(keyID) \(Data(key.publicKey.bytes).base64EncodedString())\n"
        )
    }

    /// The line for the file of public keys.
    package var publicFile: String { "\(keyID) \(Data(key.publicKey.bytes).base64EncodedString())\n" }

    /// The token's text: `w1.KEY.BODY.SIGNATURE`.
    package func sign(_ payload: TokenPayload) throws -> String {
        let body = payload.json.encoded
        let signature = try key.signature(for: body)
        return "w1.\(keyID).\(Base64URL.encode(body)).\(Base64URL.encode(signature))"
    }
}

/// Verifies tokens with public keys.
package struct TokenVerifier: Sendable {
    private let keys: [String: VerificationKey]

    /// - Parameter file: one line for each accepted key: key id and base64 of the 32 public bytes.
    package init(file: String) throws {
        var keys: [String: VerificationKey] = [:]
        for line in file.split(separator: "\n") {
            let parts = line.split(whereSeparator: \.isWhitespace)
            guard parts.count == 2, let raw = Data(base64Encoded: String(parts[1])) else {
                throw ResourceError.internalError("malformed token verification key file")
            }
            keys[String(parts[0])] = try VerificationKey(raw)
        }
        self.keys = keys
    }

    /// The payload of a token with a valid signature; otherwise nil. The expiry is not checked.
    package func verify(_ token: String) -> TokenPayload? {
        guard token.utf8.count <= Limits.tokenBytesMax else { return nil }
        let parts = token.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4, parts[0] == "w1", let key = keys[String(parts[1])],
            let body = Base64URL.decode(parts[2]), let signature = Base64URL.decode(parts[3]),
            key.isValid(signature, for: body)
        else { return nil }
        do { return TokenPayload(try JSONValue.parse(body)) } catch { return nil }
    }
}

/// base64url without padding (RFC 4648 §5).
package enum Base64URL {
    /// The text of these bytes.
    package static func encode(_ bytes: some Collection<UInt8>) -> String {
        let base64 = Data(bytes).base64EncodedData()
        return String(
            decoding: base64.compactMap { byte -> UInt8? in
                switch byte {
                case UInt8(ascii: "+"): UInt8(ascii: "-")
                case UInt8(ascii: "/"): UInt8(ascii: "_")
                case UInt8(ascii: "="): nil
                default: byte
                }
            }, as: UTF8.self)
    }

    /// The bytes; nil if the text is not base64url.
    package static func decode(_ text: some StringProtocol) -> [UInt8]? {
        var base = text.utf8.map { byte -> UInt8 in
            switch byte {
            case UInt8(ascii: "-"): UInt8(ascii: "+")
            case UInt8(ascii: "_"): UInt8(ascii: "/")
            default: byte
            }
        }
        while base.count % 4 != 0 { base.append(UInt8(ascii: "=")) }
        return Data(base64Encoded: Data(base)).map { Array($0) }
    }
}
