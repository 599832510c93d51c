import CLibcrypto

/// A key for authenticated encryption: ChaCha20-Poly1305 (RFC 8439).
package struct SealingKey: Sendable {
    package static let byteCount = 32
    package static let nonceBytes = 12
    private static let tagBytes = 16

    private let bytes: [UInt8]

    /// - Throws: `CryptographyError` unless there are exactly 32 bytes.
    package init(_ bytes: some Collection<UInt8>) throws(CryptographyError) {
        guard bytes.count == SealingKey.byteCount else {
            throw CryptographyError("a sealing key has \(SealingKey.byteCount) bytes, not \(bytes.count)")
        }
        self.bytes = Array(bytes)
    }

    /// Encrypts `text`.
    ///
    /// - Parameters:
    ///   - nonce: 12 bytes, never used twice with this key.
    ///   - context: authenticated but not part of the result; opening requires the same bytes.
    /// - Returns: nonce, ciphertext and tag, concatenated.
    /// - Throws: `CryptographyError` for a nonce of another length.
    package func seal(_ text: [UInt8], nonce: [UInt8], context: [UInt8]) throws(CryptographyError) -> [UInt8] {
        guard nonce.count == SealingKey.nonceBytes else {
            throw CryptographyError("a nonce has \(SealingKey.nonceBytes) bytes, not \(nonce.count)")
        }
        let cipher = try Cipher()
        var sealed = [UInt8](repeating: 0, count: text.count)
        var tag = [UInt8](repeating: 0, count: SealingKey.tagBytes)
        var (count, rest): (Int32, Int32) = (0, 0)
        guard EVP_EncryptInit_ex2(cipher.context, EVP_chacha20_poly1305(), bytes, nonce, nil) == 1,
            EVP_EncryptUpdate(cipher.context, nil, &rest, context, Int32(context.count)) == 1,
            EVP_EncryptUpdate(cipher.context, &sealed, &count, text, Int32(text.count)) == 1, Int(count) == text.count,
            EVP_EncryptFinal_ex(cipher.context, nil, &rest) == 1,
            EVP_CIPHER_CTX_ctrl(cipher.context, EVP_CTRL_AEAD_GET_TAG, Int32(tag.count), &tag) == 1
        else { throw .last("ChaCha20-Poly1305") }
        return nonce + sealed + tag
    }

    /// Decrypts the result of `seal`.
    ///
    /// - Throws: `CryptographyError` if the key or the context differs, or the data was changed.
    package func open(_ sealed: [UInt8], context: [UInt8]) throws(CryptographyError) -> [UInt8] {
        let length = sealed.count - SealingKey.nonceBytes - SealingKey.tagBytes
        guard length >= 0 else { throw CryptographyError("\(sealed.count) bytes are too few for sealed data") }
        let nonce = Array(sealed.prefix(SealingKey.nonceBytes))
        var tag = Array(sealed.suffix(SealingKey.tagBytes))
        let body = Array(sealed.dropFirst(SealingKey.nonceBytes).prefix(length))
        let cipher = try Cipher()
        var text = [UInt8](repeating: 0, count: length)
        var (count, rest): (Int32, Int32) = (0, 0)
        guard EVP_DecryptInit_ex2(cipher.context, EVP_chacha20_poly1305(), bytes, nonce, nil) == 1,
            EVP_DecryptUpdate(cipher.context, nil, &rest, context, Int32(context.count)) == 1,
            EVP_DecryptUpdate(cipher.context, &text, &count, body, Int32(length)) == 1, Int(count) == length,
            EVP_CIPHER_CTX_ctrl(cipher.context, EVP_CTRL_AEAD_SET_TAG, Int32(tag.count), &tag) == 1
        else { throw .last("ChaCha20-Poly1305") }
        guard EVP_DecryptFinal_ex(cipher.context, nil, &rest) == 1 else {
            ERR_clear_error()
            throw CryptographyError("the sealed data does not belong to this key and context, or was changed")
        }
        return text
    }
}

/// Owns the libcrypto context of one operation.
private struct Cipher: ~Copyable {
    let context: OpaquePointer

    init() throws(CryptographyError) {
        Libcrypto.start
        guard let context = EVP_CIPHER_CTX_new() else { throw .last("EVP_CIPHER_CTX_new") }
        self.context = context
    }

    deinit { EVP_CIPHER_CTX_free(context) }
}
