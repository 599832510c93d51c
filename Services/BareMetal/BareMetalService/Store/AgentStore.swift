import BareMetalCore
import Cryptography
import Database
import Kernel

/// The agent in the ramdisk with which a node was started.
struct Agent: Sendable {
    let nodeID: UUID128
    /// When the ramdisk was started.
    let expectedAt: Timestamp
    /// Nil until the agent has looked its node up.
    let token: NodeSecrets.Sealed?
    /// Nil until its first call, like the rest.
    let callbackURL: String?
    let version: String?
    /// PEM; nil for a certificate that the machine's authorities verify.
    let certificate: String?
    let heartbeatAt: Timestamp?
}

/// The statements about agents. Agents have no accounts: a token that a started ramdisk gets once proves who calls.
enum AgentStore {
    /// Expects the agent of a ramdisk that is about to start. An agent of an earlier start loses its token.
    static func expect(_ connection: Connection, _ node: UUID128, at now: Timestamp) throws {
        try connection.execute("DELETE FROM bare_metal_agents WHERE node_id = \(node)")
        try connection.execute("INSERT INTO bare_metal_agents (node_id, expected_at) VALUES (\(node), \(now))")
    }

    /// Ends what an agent may do, when its ramdisk is not used any more.
    static func forget(_ connection: Connection, _ node: UUID128) throws {
        try connection.execute("DELETE FROM bare_metal_agents WHERE node_id = \(node)")
    }

    static func find(_ connection: Connection, of node: UUID128) throws -> Agent? {
        try connection.query(
            """
            SELECT a.node_id, a.expected_at, encode(a.token, 'hex') AS token, a.token_key, a.callback_url, a.version, a.certificate,
                a.heartbeat_at
            FROM bare_metal_agents a WHERE a.node_id = \(node)
            """
        ).first.map { row in
            var token: NodeSecrets.Sealed?
            if let text = try row.optionalString("token"), let bytes = Hexadecimal.decode(text),
                let key = try row.optionalString("token_key")
            {
                token = NodeSecrets.Sealed(keyID: key, bytes: bytes)
            }
            return Agent(
                nodeID: try row.uuid("node_id"), expectedAt: try row.timestamp("expected_at"), token: token,
                callbackURL: try row.optionalString("callback_url"), version: try row.optionalString("version"),
                certificate: try row.optionalString("certificate"), heartbeatAt: try row.optionalTimestamp("heartbeat_at"))
        }
    }

    /// The nodes that have one of these network interfaces.
    static func nodes(_ connection: Connection, withAddresses addresses: [String]) throws -> [UUID128] {
        try connection.query(
            "SELECT DISTINCT p.node_id FROM bare_metal_ports p WHERE p.address = ANY(\(addresses)::text[]) ORDER BY p.node_id LIMIT 2"
        ).map { try $0.uuid("node_id") }
    }

    /// Keeps the token of an agent that has none yet.
    ///
    /// - Returns: whether this is the agent's token now.
    static func handOut(_ connection: Connection, _ node: UUID128, _ token: NodeSecrets.Sealed, at now: Timestamp) throws -> Bool {
        try connection.execute(
            """
            UPDATE bare_metal_agents SET token = decode(\(Hexadecimal.encode(token.bytes)), 'hex'), token_key = \(token.keyID),
                handed_out_at = \(now)
            WHERE node_id = \(node) AND token IS NULL
            """) == 1
    }

    /// Records a call of an agent.
    ///
    /// - Returns: false if the agent has called from another address before.
    static func beat(
        _ connection: Connection, _ node: UUID128, url: String, version: String, certificate: String?, at now: Timestamp
    ) throws -> Bool {
        try connection.execute(
            """
            UPDATE bare_metal_agents SET callback_url = \(url), version = \(version), certificate = coalesce(certificate, \(certificate)),
                heartbeat_at = \(now)
            WHERE node_id = \(node) AND coalesce(callback_url, \(url)) = \(url)
                AND (callback_url IS NULL OR certificate IS NOT DISTINCT FROM \(certificate))
            """) == 1
    }
}
