import CLibcrypto

/// A private key of Ed25519 (RFC 8032).
package struct SigningKey: Sendable {
    package static let byteCount = 32
    private let key: KeyHandle
    /// The 32 bytes of the key (the seed of RFC 8032).
    package let bytes: [UInt8]
    package let publicKey: VerificationKey

    /// - Throws: `CryptographyError` unless there are exactly 32 bytes.
    package init(_ bytes: some Collection<UInt8>) throws(CryptographyError) {
        let bytes = Array(bytes)
        key = try KeyHandle(EVP_PKEY_new_raw_private_key, bytes, "private")
        self.bytes = bytes
        var written = VerificationKey.byteCount
        var raw = [UInt8](repeating: 0, count: written)
        guard EVP_PKEY_get_raw_public_key(key.pointer, &raw, &written) == 1 else { throw .last("EVP_PKEY_get_raw_public_key") }
        publicKey = try VerificationKey(raw)
    }

    /// The signature of `bytes`: 64 bytes.
    ///
    /// - Throws: `CryptographyError` if memory is exhausted.
    package func signature(for bytes: [UInt8]) throws(CryptographyError) -> [UInt8] {
        guard let context = EVP_MD_CTX_new() else { throw .last("EVP_MD_CTX_new") }
        defer { EVP_MD_CTX_free(context) }
        var signature = [UInt8](repeating: 0, count: VerificationKey.signatureBytes)
        var count = signature.count
        guard EVP_DigestSignInit(context, nil, nil, nil, key.pointer) == 1,
            EVP_DigestSign(context, &signature, &count, bytes, bytes.count) == 1, count == signature.count
        else { throw .last("EVP_DigestSign") }
        return signature
    }
}

/// A public key of Ed25519 (RFC 8032).
package struct VerificationKey: Sendable {
    package static let byteCount = 32
    package static let signatureBytes = 64
    private let key: KeyHandle
    /// The 32 bytes of the key.
    package let bytes: [UInt8]

    /// - Throws: `CryptographyError` unless there are exactly 32 bytes.
    package init(_ bytes: some Collection<UInt8>) throws(CryptographyError) {
        let bytes = Array(bytes)
        key = try KeyHandle(EVP_PKEY_new_raw_public_key, bytes, "public")
        self.bytes = bytes
    }

    /// Whether `signature` is the private key's signature of `bytes`.
    package func isValid(_ signature: [UInt8], for bytes: [UInt8]) -> Bool {
        guard signature.count == VerificationKey.signatureBytes, let context = EVP_MD_CTX_new() else { return false }
        defer { EVP_MD_CTX_free(context) }
        let isValid =
            EVP_DigestVerifyInit(context, nil, nil, nil, key.pointer) == 1
            && EVP_DigestVerify(context, signature, signature.count, bytes, bytes.count) == 1
        // An invalid signature is recorded as an error.
        if !isValid { ERR_clear_error() }
        return isValid
    }
}

/// Owns a libcrypto key, which is immutable and may be used by several threads.
private final class KeyHandle: @unchecked Sendable {
    typealias Make = (Int32, OpaquePointer?, UnsafePointer<UInt8>?, Int) -> OpaquePointer?

    let pointer: OpaquePointer

    init(_ make: Make, _ bytes: [UInt8], _ kind: String) throws(CryptographyError) {
        Libcrypto.start
        guard bytes.count == SigningKey.byteCount else {
            throw CryptographyError("a \(kind) key of Ed25519 has \(SigningKey.byteCount) bytes, not \(bytes.count)")
        }
        guard let pointer = make(EVP_PKEY_ED25519, nil, bytes, bytes.count) else { throw .last("a \(kind) key of Ed25519") }
        self.pointer = pointer
    }

    deinit { EVP_PKEY_free(pointer) }
}
