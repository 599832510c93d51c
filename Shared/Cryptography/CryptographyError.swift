import CLibcrypto

/// The error of a failed libcrypto call: invalid key material, or sealed data or a signature that does not match.
package struct CryptographyError: Error, Sendable, Hashable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }

    /// The error that libcrypto recorded for this thread.
    static func last(_ call: String) -> CryptographyError {
        let code = ERR_get_error()
        ERR_clear_error()
        guard code != 0 else { return CryptographyError("\(call) failed") }
        var text = [CChar](repeating: 0, count: 256)
        ERR_error_string_n(code, &text, text.count)
        let reason = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return CryptographyError("\(call) failed: \(reason)")
    }
}

/// libcrypto's process-wide state. The first call of libcrypto must go through here.
enum Libcrypto {
    /// Disables libcrypto's exit handler, which would free memory that running threads still use.
    static let start: Void = { _ = OPENSSL_init_crypto(UInt64(OPENSSL_INIT_NO_ATEXIT), nil) }()
}
