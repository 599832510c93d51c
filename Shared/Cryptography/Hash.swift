import CLibcrypto

/// A hash function.
package enum HashAlgorithm: String, Sendable, CaseIterable {
    /// RFC 1321; only for checksums that OpenStack's APIs require, never for security.
    case md5
    /// FIPS 180-4; only for one-time passwords (RFC 6238) and fingerprints that OpenStack's APIs require, never for signatures.
    case sha1
    /// FIPS 180-4.
    case sha256
    /// FIPS 180-4.
    case sha512

    // Fetched once, because looking up an algorithm takes longer than hashing a short text. EVP_MD is immutable.
    private nonisolated(unsafe) static let md5Functions = fetch("MD5")
    private nonisolated(unsafe) static let sha1Functions = fetch("SHA1")
    private nonisolated(unsafe) static let sha256Functions = fetch("SHA256")
    private nonisolated(unsafe) static let sha512Functions = fetch("SHA512")

    private static func fetch(_ name: String) -> OpaquePointer {
        Libcrypto.start
        guard let found = EVP_MD_fetch(nil, name, nil) else { preconditionFailure("libcrypto has no \(name)") }
        return found
    }

    var functions: OpaquePointer {
        switch self {
        case .md5: HashAlgorithm.md5Functions
        case .sha1: HashAlgorithm.sha1Functions
        case .sha256: HashAlgorithm.sha256Functions
        case .sha512: HashAlgorithm.sha512Functions
        }
    }

    /// Length of a hash, in bytes.
    package var byteCount: Int { Int(EVP_MD_get_size(functions)) }

    /// The hash of `bytes`.
    package func hash(_ bytes: some Collection<UInt8>) -> [UInt8] {
        let hash = IncrementalHash(self)
        hash.update(bytes)
        return hash.finish()
    }

    /// The message authentication code of RFC 2104 (HMAC).
    package func authenticationCode(for bytes: some Collection<UInt8>, key: some Collection<UInt8>) -> [UInt8] {
        Libcrypto.start
        let bytes = Array(bytes)
        let key = Array(key)
        var code = [UInt8](repeating: 0, count: byteCount)
        var count: UInt32 = 0
        // A null key would mean the key of an earlier call.
        let result =
            key.isEmpty
            ? HMAC(functions, [0], 0, bytes, bytes.count, &code, &count)
            : HMAC(functions, key, Int32(key.count), bytes, bytes.count, &code, &count)
        precondition(result != nil && Int(count) == code.count, "HMAC with \(self) failed")
        return code
    }

    /// Derives keys from a secret (HKDF, RFC 5869).
    ///
    /// - Parameters:
    ///   - salt: not secret; may be empty.
    ///   - info: the purpose of the key.
    ///   - count: number of bytes to derive, at most 255 times the hash length.
    /// - Throws: `CryptographyError` for a larger count or an empty secret.
    package func deriveKey(from secret: [UInt8], salt: [UInt8], info: [UInt8], count: Int) throws(CryptographyError) -> [UInt8] {
        Libcrypto.start
        guard let context = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, nil) else { throw .last("EVP_PKEY_CTX_new_id") }
        defer { EVP_PKEY_CTX_free(context) }
        var key = [UInt8](repeating: 0, count: count)
        var written = count
        guard EVP_PKEY_derive_init(context) > 0, EVP_PKEY_CTX_set_hkdf_md(context, functions) > 0,
            EVP_PKEY_CTX_set1_hkdf_salt(context, salt, Int32(salt.count)) > 0,
            EVP_PKEY_CTX_set1_hkdf_key(context, secret, Int32(secret.count)) > 0,
            EVP_PKEY_CTX_add1_hkdf_info(context, info, Int32(info.count)) > 0,
            EVP_PKEY_derive(context, &key, &written) > 0, written == count
        else { throw .last("HKDF") }
        return key
    }
}

/// An incremental hash. Must be used by one caller at a time.
package final class IncrementalHash {
    package let algorithm: HashAlgorithm
    private let context: OpaquePointer

    package init(_ algorithm: HashAlgorithm) {
        self.algorithm = algorithm
        guard let context = EVP_MD_CTX_new(), EVP_DigestInit_ex2(context, algorithm.functions, nil) == 1 else {
            preconditionFailure("no memory for a hash")
        }
        self.context = context
    }

    deinit { EVP_MD_CTX_free(context) }

    /// Adds bytes.
    package func update(_ bytes: UnsafeRawBufferPointer) {
        let result = EVP_DigestUpdate(context, bytes.baseAddress, bytes.count)
        precondition(result == 1, "\(algorithm) failed")
    }

    /// Adds bytes.
    package func update(_ bytes: some Collection<UInt8>) {
        if bytes.withContiguousStorageIfAvailable({ update(UnsafeRawBufferPointer($0)) }) == nil {
            Array(bytes).withUnsafeBytes { update($0) }
        }
    }

    /// The hash of all added bytes; nothing can be added afterwards.
    package func finish() -> [UInt8] {
        var hash = [UInt8](repeating: 0, count: algorithm.byteCount)
        var count: UInt32 = 0
        let result = EVP_DigestFinal_ex(context, &hash, &count)
        precondition(result == 1 && Int(count) == hash.count, "\(algorithm) failed")
        return hash
    }
}
