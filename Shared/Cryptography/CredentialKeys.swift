import Foundation
import Kernel

/// The keys that encrypt credentials: those of users (`/v3/credentials`) and of machines' controllers. They are stored in a file
/// and not in the database.
package struct CredentialKeys: Sendable {
    private let keys: [(id: String, key: SealingKey)]

    /// - Parameter file: a line for each key: key id and base64 of 32 bytes. The first one seals; the others open what
    ///   was sealed before they were replaced.
    package init(file: String) throws {
        keys = try file.split(separator: "\n").map { line in
            let parts = line.split(whereSeparator: \.isWhitespace)
            guard parts.count == 2, let raw = Data(base64Encoded: String(parts[1])), raw.count == SealingKey.byteCount else {
                throw ResourceError.internalError("malformed credential key file: each line needs a key id and base64 of 32 bytes")
            }
            return (String(parts[0]), try SealingKey(raw))
        }
        guard !keys.isEmpty else { throw ResourceError.internalError("the credential key file has no key") }
    }

    /// The text of a file with one new key.
    package static func generate(keyID: String, random: [UInt8]) -> String {
        "\(keyID) \(Data(random).base64EncodedString())\n"
    }

    /// - Parameter context: the owner of the text, as associated data: decryption requires the same context.
    package func seal(_ text: String, context: String, nonce: [UInt8]) throws -> (keyID: String, bytes: [UInt8]) {
        (keys[0].id, try keys[0].key.seal(Array(text.utf8), nonce: nonce, context: Array(context.utf8)))
    }

    /// - Throws: 500 where the key is not in the file any more or the bytes were changed.
    package func open(_ bytes: [UInt8], keyID: String, context: String) throws -> String {
        guard let key = keys.first(where: { $0.id == keyID })?.key else {
            throw ResourceError.internalError("a credential is sealed with the key \(keyID), which the file of credential keys lacks")
        }
        return String(decoding: try key.open(bytes, context: Array(context.utf8)), as: UTF8.self)
    }
}
