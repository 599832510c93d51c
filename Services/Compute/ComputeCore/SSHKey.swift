import Kernel

/// A public key as `authorized_keys` has it: `ssh-ed25519 AAAA… comment`.
package struct SSHPublicKey: Sendable, Hashable {
    package static let types = [
        "ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-dss",
        "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
    ]

    package let type: String
    /// The decoded middle part, from which fingerprints are computed.
    package let blob: [UInt8]

    /// - Throws: 400 that says what is wrong.
    package init(_ text: String) throws {
        let text = text.trimmedSpaces
        guard !text.contains("\n"), !text.contains("\r") else {
            throw ResourceError.badRequest("Keypair data is invalid: the public key has more than one line.")
        }
        let parts = text.split(separator: " ", maxSplits: 2)
        guard parts.count >= 2, SSHPublicKey.types.contains(String(parts[0])) else {
            throw ResourceError.badRequest(
                "Keypair data is invalid: failed to generate fingerprint: the key does not begin with a known type.")
        }
        type = String(parts[0])
        guard let blob = Base64.decode(parts[1]), blob.count >= 4 else {
            throw ResourceError.badRequest("Keypair data is invalid: failed to generate fingerprint: the key is not base64.")
        }
        let length = blob[0..<4].reduce(0) { $0 << 8 | Int($1) }
        guard blob.count > 4 + length, String(decoding: blob[4..<4 + length], as: UTF8.self) == type else {
            throw ResourceError.badRequest("Keypair data is invalid: failed to generate fingerprint: the key's content is not of its type.")
        }
        self.blob = blob
    }
}

/// RFC 4251 strings and the private key format of OpenSSH.
package enum SSHFormat {
    /// A string of RFC 4251: its length, then its bytes.
    package static func string(_ bytes: some Collection<UInt8>) -> [UInt8] {
        number(UInt32(bytes.count)) + Array(bytes)
    }

    /// A uint32 of RFC 4251: four bytes, the highest first.
    package static func number(_ value: UInt32) -> [UInt8] {
        [UInt8(value >> 24), UInt8(value >> 16 & 255), UInt8(value >> 8 & 255), UInt8(value & 255)]
    }

    /// The blob of an Ed25519 public key.
    package static func ed25519Blob(publicKey: [UInt8]) -> [UInt8] {
        string("ssh-ed25519".utf8) + string(publicKey)
    }

    /// An unencrypted Ed25519 private key as a file for `ssh -i`.
    package static func ed25519PrivateKey(seed: [UInt8], publicKey: [UInt8], comment: String, check: UInt32) -> String {
        var secret = number(check) + number(check) + string("ssh-ed25519".utf8) + string(publicKey)
        secret += string(seed + publicKey) + string(comment.utf8)
        var padding: UInt8 = 1
        while secret.count % 8 != 0 {
            secret.append(padding)
            padding += 1
        }
        var file = Array("openssh-key-v1\0".utf8) + string("none".utf8) + string("none".utf8) + string([])
        file += number(1) + string(ed25519Blob(publicKey: publicKey)) + string(secret)
        var lines = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
        var rest = Base64.encode(file)[...]
        while !rest.isEmpty {
            lines += rest.prefix(70) + "\n"
            rest = rest.dropFirst(70)
        }
        return lines + "-----END OPENSSH PRIVATE KEY-----\n"
    }
}
