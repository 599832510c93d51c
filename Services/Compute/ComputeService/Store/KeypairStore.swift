import Authorization
import ComputeCore
import Cryptography
import Database
import Kernel
import WebAPI

/// The statements about users' key pairs.
enum KeypairStore {
    /// The kinds of key pairs, as the API names them.
    enum KeyType: String, Sendable {
        case ssh
        /// A certificate, for guests with Windows.
        case x509

        /// - Throws: 400 for a text that is not a public key of this kind.
        func fingerprint(of publicKey: String) throws -> String {
            switch self {
            case .ssh:
                let key = try SSHPublicKey(publicKey)
                return HashAlgorithm.md5.hash(key.blob).map { Hexadecimal.encode([$0]) }.joined(separator: ":")
            case .x509: return CertificateText.fingerprint(try CertificateText.certificate(in: publicKey))
            }
        }
    }

    struct Draft: Sendable {
        let user: String
        let name: String
        let type: KeyType
        let fingerprint: String
        let publicKey: String
    }

    /// - Throws: 403 if the quota is used up, 409 for a name that the user has.
    static func insert(
        _ connection: Connection, _ decision: Authorized<Draft>, limitsOf project: String?, quota: Quota, at now: Timestamp
    ) throws {
        let draft = try decision.value(for: "os_compute_api:os-keypairs:create")
        try quota.reserve(connection, project: draft.user, limitsOf: project, [(ComputeQuotas.keyPairs, 1)])
        let row: Changes = [
            "user_id": "\(draft.user)", "name": "\(draft.name)", "type": "\(draft.type.rawValue)", "fingerprint": "\(draft.fingerprint)",
            "public_key": "\(draft.publicKey)",
        ]
        let added = try connection.execute("\(row.insertion("keypairs", at: now, isUpdated: false)) ON CONFLICT DO NOTHING")
        if added == 0 { throw ResourceError.conflict("Key pair '\(draft.name)' already exists.") }
    }

    /// - Parameter decision: about the user whose key pair it is.
    /// - Returns: whether there was one of this name.
    static func delete(_ connection: Connection, named name: String, of decision: Authorized<String>) throws -> Bool {
        let user = try decision.value(for: "os_compute_api:os-keypairs:delete")
        guard try connection.execute("DELETE FROM keypairs WHERE user_id = \(user) AND name = \(name)") == 1 else { return false }
        try Quota.release(connection, project: user, [(ComputeQuotas.keyPairs, 1)])
        return true
    }
}
