import NIOSSL

/// The client's certificate and the trusted authorities, for OVSDB servers with TLS.
///
/// As in Open vSwitch's own tools, a server is trusted if the authority signed its certificate, regardless of the name in it.
package struct OVSDBCredentials: Sendable {
    let context: NIOSSLContext

    /// Reads the files once; changes take effect at the next start.
    ///
    /// - Parameters: paths of PEM files.
    /// - Throws: `OVSDBError.invalid` if files cannot be read or do not match each other.
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
