import NIOSSL

/// What a client shows, and whom it trusts, where it reaches OVSDB servers by TLS.
///
/// As in Open vSwitch's own tools, a server is trusted when the authority has signed its certificate, whatever name is in it.
package struct OVSDBCredentials: Sendable {
    let context: NIOSSLContext

    /// Reads the files, once: a change of them needs a new start.
    ///
    /// - Parameters: paths of files in PEM form.
    /// - Throws: `OVSDBError.invalid` for files that cannot be read or do not fit each other.
    package init(privateKey: String, certificate: String, authorities: String) throws(OVSDBError) {
        do {
            var tls = TLSConfiguration.makeClientConfiguration()
            tls.privateKey = .privateKey(try NIOSSLPrivateKey(file: privateKey, format: .pem))
            tls.certificateChain = try NIOSSLCertificate.fromPEMFile(certificate).map { .certificate($0) }
            tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(authorities))
            tls.certificateVerification = .noHostnameVerification
            tls.minimumTLSVersion = .tlsv12
            context = try NIOSSLContext(configuration: tls)
        } catch {
            throw OVSDBError.invalid(
                "the key \(privateKey), the certificate \(certificate) and the authorities \(authorities) cannot be used: \(error)")
        }
    }
}
