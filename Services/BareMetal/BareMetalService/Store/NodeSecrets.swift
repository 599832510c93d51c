import BareMetalCore
import Cryptography
import Database
import JSON
import Kernel
import WebAPI

/// The credentials in a node's `driver_info`. They are stored sealed, in a column of their own; `driver_info` holds masks.
struct NodeSecrets: Sendable {
    /// Nil if `credential_keys_file` is not set.
    let keys: CredentialKeys?
    let ambient: Ambient

    /// The size of a credential, in bytes.
    private static let valueMax = 1024

    /// A node's sealed credentials or config drive.
    struct Sealed: Sendable {
        let keyID: String
        let bytes: [UInt8]
    }

    /// The credentials of a node, by their names in `driver_info`.
    ///
    /// - Throws: 500 if the key is missing or the bytes were changed.
    func open(_ sealed: Sealed?, of node: UUID128) throws -> [String: Secret<String>] {
        guard let sealed else { return [:] }
        let text = try requireKeys().open(sealed.bytes, keyID: sealed.keyID, context: NodeSecrets.context(node))
        let members = try JSONValue.parse(Array(text.utf8)).objectValue?.members ?? []
        return Dictionary(uniqueKeysWithValues: members.map { ($0.name, Secret($0.value.stringValue ?? "")) })
    }

    /// Separates the credentials from a `driver_info` that is to be stored.
    ///
    /// - Parameters:
    ///   - old: the stored credentials and `driver_info`. A member whose value is the mask keeps its credential, unless it would be sent
    ///     to another controller.
    /// - Returns: the columns for `info` with masks and for the sealed credentials.
    /// - Throws: 400 for credentials that hardware of this type does not have, and for values that are not strings.
    func settings(_ info: JSONObject, _ type: HardwareType, node: UUID128, old: (sealed: Sealed?, info: JSONObject)) throws -> Changes {
        var shown = info
        var secrets = JSONObject()
        let kept = try open(old.sealed, of: node)
        let changedMember = type.destination.sorted().first { info[$0] != old.info[$0] }
        for (name, value) in info.members where NodeRules.isSecret(name) {
            guard type.secrets.contains(name) else {
                throw ResourceError.badRequest(
                    """
                    Invalid input for driver_info/\(name.prefix(64)). Hardware of the type \(type.name) has \
                    \(type.secrets.isEmpty ? "no credentials" : "only the credentials \(type.secrets.sorted().joined(separator: ", "))").
                    """)
            }
            if value == NodeRules.mask {
                guard let secret = kept[name] else {
                    throw ResourceError.badRequest(
                        "Invalid input for driver_info/\(name). Its value is the mask of a stored credential, but none is stored.")
                }
                if let changedMember {
                    throw ResourceError.badRequest(
                        "Invalid input for driver_info/\(name). It must be given again, because driver_info/\(changedMember) changes.")
                }
                secrets[name] = .string(secret.exposed)
                continue
            }
            guard let text = value.stringValue, (1...NodeSecrets.valueMax).contains(text.utf8.count),
                !text.unicodeScalars.contains(where: { $0.properties.generalCategory == .control })
            else {
                throw ResourceError.badRequest(
                    """
                    Invalid input for driver_info/\(name). It must be a text of 1 to \(NodeSecrets.valueMax) bytes without control \
                    characters.
                    """)
            }
            secrets[name] = value
            shown[name] = NodeRules.mask
        }
        var changes = Changes()
        changes.set(json: "driver_info", .object(shown))
        guard !secrets.isEmpty else {
            changes.set("driver_secrets", nil as String?)
            changes.set("driver_secrets_key", nil as String?)
            return changes
        }
        let sealed = try seal(JSONValue.object(secrets).description, context: NodeSecrets.context(node))
        changes.set("driver_secrets", sql: "decode(\(Hexadecimal.encode(sealed.bytes)), 'hex')")
        changes.set("driver_secrets_key", sealed.keyID)
        return changes
    }

    // MARK: config drives

    /// Seals a config drive, which may hold passwords of the instance.
    ///
    /// - Throws: 400 if the operator has set no file of keys.
    func seal(configDrive text: String, of node: UUID128) throws -> Sealed { try seal(text, context: NodeSecrets.driveContext(node)) }

    /// - Throws: 500 if the key is missing or the bytes were changed.
    func open(configDrive sealed: Sealed, of node: UUID128) throws -> String {
        try requireKeys().open(sealed.bytes, keyID: sealed.keyID, context: NodeSecrets.driveContext(node))
    }

    // MARK: tokens of agents

    /// Seals the token of an agent.
    ///
    /// - Throws: 400 if the operator has set no file of keys.
    func seal(agentToken text: String, of node: UUID128) throws -> Sealed { try seal(text, context: NodeSecrets.tokenContext(node)) }

    /// - Throws: 500 where the key is missing or the bytes were changed.
    func open(agentToken sealed: Sealed, of node: UUID128) throws -> Secret<String> {
        Secret(try requireKeys().open(sealed.bytes, keyID: sealed.keyID, context: NodeSecrets.tokenContext(node)))
    }

    private static func tokenContext(_ node: UUID128) -> String { "agent token of bare metal node \(node)" }

    private func seal(_ text: String, context: String) throws -> Sealed {
        let sealed = try requireKeys().seal(text, context: context, nonce: ambient.random.bytes(SealingKey.nonceBytes))
        return Sealed(keyID: sealed.keyID, bytes: sealed.bytes)
    }

    private static func driveContext(_ node: UUID128) -> String { "config drive of bare metal node \(node)" }

    private static func context(_ node: UUID128) -> String { "bare metal node \(node)" }

    private func requireKeys() throws -> CredentialKeys {
        guard let keys else {
            throw ResourceError.badRequest(
                "This cloud cannot store credentials or config drives of nodes: its operator has not set bare_metal.credential_keys_file.")
        }
        return keys
    }
}
