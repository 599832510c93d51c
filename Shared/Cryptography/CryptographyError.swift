import CLibcrypto

/// A call of libcrypto that failed: bad key material, or a seal or signature that does not fit.
package struct CryptographyError: Error, Sendable, Hashable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }

    /// The error that libcrypto has recorded for this thread.
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

/// libcrypto's state for the process. Whoever calls libcrypto first goes through here.
enum Libcrypto {
    /// Without libcrypto's own handler at exit: it would free what threads that still run are using.
    static let start: Void = { _ = OPENSSL_init_crypto(UInt64(OPENSSL_INIT_NO_ATEXIT), nil) }()
}
