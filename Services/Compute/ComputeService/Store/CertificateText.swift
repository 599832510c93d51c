import ComputeCore
import Cryptography
import Kernel

/// Certificates that are uploaded as key pairs, in PEM (RFC 7468).
enum CertificateText {
    private static let first = "-----BEGIN CERTIFICATE-----"
    private static let last = "-----END CERTIFICATE-----"

    /// The first certificate in a text.
    ///
    /// - Throws: 400 that says what is wrong.
    static func certificate(in text: String) throws -> Certificate {
        func refusal(_ reason: String) -> ResourceError {
            .badRequest("Keypair data is invalid: failed to generate X509 fingerprint: \(reason).")
        }
        let lines = text.split(whereSeparator: \.isNewline).map { String($0).trimmedSpaces }
        guard let start = lines.firstIndex(of: first), let end = lines[start...].firstIndex(of: last) else {
            throw refusal("the public key is not a certificate in PEM")
        }
        guard let bytes = Base64.decode(lines[(start + 1)..<end].joined()) else { throw refusal("the certificate is not base64") }
        do { return try Certificate(bytes) } catch { throw refusal("the text between the PEM lines is not a certificate") }
    }

    /// The certificate as text.
    static func text(_ certificate: Certificate) -> String {
        var text = first + "\n"
        var rest = Base64.encode(certificate.bytes)[...]
        while !rest.isEmpty {
            text += rest.prefix(64) + "\n"
            rest = rest.dropFirst(64)
        }
        return text + last + "\n"
    }

    /// SHA-1 of the certificate, as Nova shows it.
    static func fingerprint(_ certificate: Certificate) -> String {
        HashAlgorithm.sha1.hash(certificate.bytes).map { Hexadecimal.encode([$0]) }.joined(separator: ":")
    }
}
