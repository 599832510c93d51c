import BareMetalCore
import Cryptography
import Database
import JSON
import Kernel
import Workflow

/// The calls of agents in the nodes' ramdisks: look-up and heartbeat.
struct AgentCalls: Sendable {
    let database: Database
    let secrets: NodeSecrets
    let rules: AgentRules
    let ambient: Ambient

    private static let tokenBytes = 32
    /// The text in place of a token that was handed out before. Agents know it.
    private static let mask = "******"

    /// A node that has been found for an agent.
    struct Found: Sendable {
        let node: Node
        let properties: JSONObject
        /// A new token, or the text in its place.
        let token: String
    }

    private static let unknown = ResourceError.notFound("No node was found for this agent.")

    /// Finds the node in whose ramdisk an agent runs, and hands its token out, which happens once for each start of the ramdisk.
    ///
    /// - Parameter id: the node's id; nil to find it by its network interfaces.
    /// - Throws: 404 with one message for nodes that do not exist, and for those that wait for no agent.
    func lookUp(id: UUID128?, addresses: [String]) async throws -> Found {
        let random = ambient.random
        return try await database.write { connection in
            let ids = try id.map { [$0] } ?? AgentStore.nodes(connection, withAddresses: addresses)
            guard ids.count == 1, let node = try NodeStore.node(connection, ids[0].description, isLocked: true), node.state.admitsAgents,
                let agent = try AgentStore.find(connection, of: node.id)
            else { throw AgentCalls.unknown }
            var token = AgentCalls.mask
            if agent.token == nil {
                token = Hexadecimal.encode(random.bytes(AgentCalls.tokenBytes))
                let sealed = try secrets.seal(agentToken: token, of: node.id)
                guard try AgentStore.handOut(connection, node.id, sealed, at: ambient.now) else { throw AgentCalls.unknown }
                try NodeStore.record(
                    connection, node.id.description, "agent", "The deploy ramdisk has asked for its node.", isError: false,
                    ambient: ambient)
            }
            return Found(node: node, properties: try NodeStore.properties(connection, of: node.id), token: token)
        }
    }

    /// What an agent says of itself.
    struct Heartbeat: Sendable {
        var url: String
        var token: String?
        var version: String?
        var certificate: String?
    }

    /// Records a call of an agent, and lets the node's workflow continue.
    ///
    /// - Throws: 404 for a node that waits for no agent, 400 for a wrong token or an address that has changed.
    func beat(_ ident: String, _ heartbeat: Heartbeat) async throws {
        let url = try rules.callbackURL(heartbeat.url)
        guard let version = heartbeat.version else {
            throw ResourceError.badRequest(
                "Agent did not transmit a version, and a version is required. Please update the agent being used.")
        }
        try AgentRules.requireVersion(version)
        if let certificate = heartbeat.certificate { try AgentRules.requireCertificate(certificate) }
        try await database.write { connection in
            guard let node = try NodeStore.node(connection, ident, isLocked: true), node.state.admitsAgents,
                let agent = try AgentStore.find(connection, of: node.id)
            else { throw ResourceError.notFound("Node \(ident.prefix(64)) could not be found.") }
            guard let sealed = agent.token, let given = heartbeat.token,
                constantTimeEqual(Array(try secrets.open(agentToken: sealed, of: node.id).exposed.utf8), Array(given.utf8))
            else { throw ResourceError.badRequest("Invalid or missing agent token received.") }
            guard
                try AgentStore.beat(
                    connection, node.id, url: url, version: version, certificate: heartbeat.certificate, at: ambient.now)
            else { throw ResourceError.badRequest("Detected change in ramdisk provided \"callback_url\" or certificate.") }
            if agent.callbackURL == nil {
                try NodeStore.record(
                    connection, node.id.description, "agent", "The agent (\(version)) has called from \(url).", isError: false,
                    ambient: ambient)
            }
            Workflows.wake(connection, service: NodeWorkflows.service, subject: node.id.description)
        }
    }
}
