import CLibcrypto

/// An X.509 certificate (RFC 5280).
package struct Certificate: Sendable, Hashable {
    /// In DER.
    package let bytes: [UInt8]

    /// - Throws: `CryptographyError` unless the bytes are exactly one certificate.
    package init(_ bytes: [UInt8]) throws(CryptographyError) {
        Libcrypto.start
        let count = bytes.count
        let isWhole = bytes.withUnsafeBufferPointer { buffer in
            var position = buffer.baseAddress
            guard let certificate = d2i_X509(nil, &position, count) else { return false }
            X509_free(certificate)
            return position == buffer.baseAddress.map { $0 + count }
        }
        guard isWhole else { throw .last("d2i_X509") }
        self.bytes = bytes
    }
}

/// A self-signed certificate with its private key, with which Windows guests let a user log in (WinRM).
package struct ClientCertificate: Sendable {
    package let certificate: Certificate
    /// PKCS #8 in PEM, not encrypted.
    package let privateKey: String

    private static let keyBits: Int32 = 2048
    /// The user principal name of Microsoft, as a name of the subject.
    private static let principalName = "1.3.6.1.4.1.311.20.2.3"

    /// Creates an RSA key and its certificate. Takes about 100 ms, so it must not run on the cooperative pool. The key comes from
    /// libcrypto's random numbers.
    ///
    /// - Parameters:
    ///   - user: the common name, and the principal name before `@localhost`.
    ///   - serial: the certificate's number.
    ///   - notBefore: seconds since 1970.
    ///   - lifetime: in seconds.
    /// - Throws: `CryptographyError` if memory is exhausted, or for a user that does not fit a common name (64 characters).
    package init(user: String, serial: UInt64, notBefore: Int, lifetime: Int) throws(CryptographyError) {
        Libcrypto.start
        let key = try ClientCertificate.makeKey()
        defer { EVP_PKEY_free(key) }
        guard let certificate = X509_new() else { throw .last("X509_new") }
        defer { X509_free(certificate) }
        let name = X509_get_subject_name(certificate)
        guard X509_set_version(certificate, 2) == 1,
            ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), serial) == 1,
            ASN1_TIME_set(X509_getm_notBefore(certificate), notBefore) != nil,
            ASN1_TIME_set(X509_getm_notAfter(certificate), notBefore + lifetime) != nil,
            X509_set_pubkey(certificate, key) == 1,
            X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_FLAG | 0, Array(user.utf8), Int32(user.utf8.count), -1, 0) == 1,
            X509_set_issuer_name(certificate, name) == 1
        else { throw .last("a certificate") }
        try ClientCertificate.addPrincipal(certificate, "\(user)@localhost")
        guard let usage = X509V3_EXT_conf_nid(nil, nil, NID_ext_key_usage, "clientAuth") else { throw .last("clientAuth") }
        defer { X509_EXTENSION_free(usage) }
        guard X509_add_ext(certificate, usage, -1) == 1, X509_sign(certificate, key, HashAlgorithm.sha256.functions) > 0 else {
            throw .last("X509_sign")
        }
        var encoded: UnsafeMutablePointer<UInt8>?
        let count = i2d_X509(certificate, &encoded)
        guard count > 0, let encoded else { throw .last("i2d_X509") }
        defer { CRYPTO_free(encoded, "", 0) }
        self.certificate = try Certificate(Array(UnsafeBufferPointer(start: encoded, count: Int(count))))
        privateKey = try ClientCertificate.text(of: key)
    }

    private static func makeKey() throws(CryptographyError) -> OpaquePointer {
        guard let context = EVP_PKEY_CTX_new_id(EVP_PKEY_RSA, nil) else { throw .last("EVP_PKEY_CTX_new_id") }
        defer { EVP_PKEY_CTX_free(context) }
        var key: OpaquePointer?
        guard EVP_PKEY_keygen_init(context) == 1, EVP_PKEY_CTX_set_rsa_keygen_bits(context, keyBits) == 1,
            EVP_PKEY_keygen(context, &key) == 1, let key
        else { throw .last("EVP_PKEY_keygen") }
        return key
    }

    /// Adds the user principal name. It is built from values instead of libcrypto's text syntax, in which a user's name could inject
    /// further names.
    private static func addPrincipal(_ certificate: OpaquePointer, _ name: String) throws(CryptographyError) {
        guard let identifier = OBJ_txt2obj(principalName, 1), let value = ASN1_TYPE_new(), let text = ASN1_UTF8STRING_new(),
            let general = GENERAL_NAME_new(), let names = GENERAL_NAMES_new()
        else { throw .last("a principal name") }
        defer { GENERAL_NAMES_free(names) }
        guard ASN1_STRING_set(text, Array(name.utf8), Int32(name.utf8.count)) == 1 else { throw .last("ASN1_STRING_set") }
        // Each now owns the value that was passed to it.
        ASN1_TYPE_set(value, V_ASN1_UTF8STRING, UnsafeMutableRawPointer(text))
        guard GENERAL_NAME_set0_othername(general, identifier, value) == 1, OPENSSL_sk_push(names, general) > 0,
            X509_add1_ext_i2d(certificate, NID_subject_alt_name, UnsafeMutableRawPointer(names), 0, 0) == 1
        else { throw .last("a principal name") }
    }

    private static func text(of key: OpaquePointer) throws(CryptographyError) -> String {
        guard let memory = BIO_new(BIO_s_mem()) else { throw .last("BIO_new") }
        defer { BIO_free(memory) }
        guard PEM_write_bio_PKCS8PrivateKey(memory, key, nil, nil, 0, nil, nil) == 1 else { throw .last("PEM_write_bio_PKCS8PrivateKey") }
        var buffer = [UInt8](repeating: 0, count: BIO_ctrl_pending(memory))
        let count = BIO_read(memory, &buffer, Int32(buffer.count))
        guard count > 0 else { throw .last("BIO_read") }
        return String(decoding: buffer.prefix(Int(count)), as: UTF8.self)
    }
}
