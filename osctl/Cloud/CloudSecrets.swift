import Authorization
import Foundation
import JSON
import Kernel

/// Passwords and keys of one cloud: generated once, stored in `$STATE/secrets` (mode 0700).
struct CloudSecrets: Sendable {
    let postgres: String
    let rabbitmq: String
    let erlangCookie: String
    /// The cloud's administrator, the demo tenant and the service user.
    let admin: String
    let demo: String
    let service: String
    /// Shared by the services and the agent to sign messages over channels without encryption.
    let metadata: String
    /// The host UUID of libvirt on each possible host.
    let hostUUIDs: [String]

    let signingKeyFile: String
    /// Encrypts the credentials that users store.
    let credentialKeysFile: String
    let publicKeysFile: String
    let servicePasswordFile: String
    let adminPasswordFile: String

    /// Reads the secrets and generates missing ones.
    ///
    /// - Throws: `CloudError` if the directory cannot be written.
    static func load(_ layout: CloudLayout, _ ambient: Ambient) throws -> CloudSecrets {
        try Machine.makeDirectory(layout.secrets, mode: 0o700)
        func secret(_ name: String, make: () -> String) throws -> String {
            let path = "\(layout.secrets)/\(name)"
            if let text = Machine.readText(path), !text.isEmpty {
                return text.last == "\n" ? String(text.dropLast()) : text
            }
            let fresh = make()
            try Machine.write(path, fresh + "\n", mode: 0o600)
            return fresh
        }
        let signing = layout.secrets + "/token-signing-key"
        let accepted = layout.secrets + "/token-public-keys"
        if !Machine.exists(signing) || !Machine.exists(accepted) {
            let pair = try TokenSigner.generate(keyID: ambient.newSecret(length: 8), random: ambient.random)
            try Machine.write(accepted, pair.publicFile, mode: 0o600)
            try Machine.write(signing, pair.privateFile, mode: 0o600)
        }
        let credentials = layout.secrets + "/credential-keys"
        if !Machine.exists(credentials) {
            let key = Data(ambient.random.bytes(32)).base64EncodedString()
            try Machine.write(credentials, "\(ambient.newSecret(length: 8)) \(key)\n", mode: 0o600)
        }
        let password = { ambient.newSecret() }
        return CloudSecrets(
            postgres: try secret("postgres-password", make: password),
            rabbitmq: try secret("rabbitmq-password", make: password),
            erlangCookie: try secret("erlang-cookie", make: password),
            admin: try secret("admin-password", make: password),
            demo: try secret("demo-password", make: password),
            service: try secret("service-password", make: password),
            metadata: try secret("metadata-secret", make: password),
            hostUUIDs: try (1...HostLayout.countMax).map { number in
                try secret(number == 1 ? "host-uuid" : "host-\(number)-uuid", make: { ambient.newUUID().description })
            },
            signingKeyFile: signing, credentialKeysFile: credentials, publicKeysFile: accepted,
            servicePasswordFile: layout.secrets + "/service-password",
            adminPasswordFile: layout.secrets + "/admin-password")
    }
}
