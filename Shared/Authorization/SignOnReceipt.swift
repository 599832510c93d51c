import Cryptography
import Foundation
import JSON
package import Kernel

/// Records the methods that a user has completed when more are required. The client sends it with the missing methods and
/// need not repeat the completed ones.
package struct SignOnReceipt: Sendable, Hashable {
    package let userID: String
    package let methods: [String]
    package let issuedAt: Timestamp
    package let expiresAt: Timestamp

    package init(userID: String, methods: [String], issuedAt: Timestamp, expiresAt: Timestamp) {
        self.userID = userID
        self.methods = methods
        self.issuedAt = issuedAt
        self.expiresAt = expiresAt
    }

    fileprivate var json: JSONValue {
        [
            "u": .string(userID), "m": JSONValue(methods), "i": .integer(issuedAt.microseconds),
            "e": .integer(expiresAt.microseconds),
        ]
    }

    fileprivate init?(_ json: JSONValue) {
        guard let user = json["u"]?.stringValue, let methods = json["m"]?.arrayValue, case .integer(let issued)? = json["i"],
            case .integer(let expires)? = json["e"]
        else { return nil }
        self.init(
            userID: user, methods: methods.compactMap(\.stringValue), issuedAt: Timestamp(microseconds: issued),
            expiresAt: Timestamp(microseconds: expires))
    }
}

extension TokenSigner {
    /// Signed together with the body, so that a receipt cannot be used as a token, or a token as a receipt.
    private static let receiptPrefix = Array("receipt:".utf8)

    /// The receipt's text: `r1.KEY.BODY.SIGNATURE`.
    package func sign(_ receipt: SignOnReceipt) throws -> String {
        let body = receipt.json.encoded
        let signature = try key.signature(for: TokenSigner.receiptPrefix + body)
        return "r1.\(keyID).\(Base64URL.encode(body)).\(Base64URL.encode(signature))"
    }

    /// The receipt, if this key signed the text; otherwise nil. The expiry is not checked.
    package func receipt(_ text: String) -> SignOnReceipt? {
        guard text.utf8.count <= Limits.tokenBytesMax else { return nil }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4, parts[0] == "r1", parts[1] == keyID, let body = Base64URL.decode(parts[2]),
            let signature = Base64URL.decode(parts[3]),
            key.publicKey.isValid(signature, for: TokenSigner.receiptPrefix + body)
        else { return nil }
        do { return SignOnReceipt(try JSONValue.parse(body)) } catch { return nil }
    }
}
