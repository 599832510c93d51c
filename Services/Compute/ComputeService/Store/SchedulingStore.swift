import Database
import JSON
import Kernel
import WebAPI

/// The statements about scheduling decisions, and about the servers that a host's failure would affect.
enum SchedulingStore {
    /// The maximum number of decisions in an explanation.
    private static let explanationsMax = 20

    /// A server as a report about its host's failure shows it.
    struct HostedServer: Sendable {
        let id: String
        let name: String
        let project: String
        let vmState: String
        let flavor: String?
    }

    /// The servers on a host, largest first.
    ///
    /// - Throws: 404 if there is no such host.
    static func servers(_ connection: Connection, on host: String) throws -> [HostedServer] {
        guard try ComputeServiceStore.isHost(connection, host) else {
            throw ResourceError.notFound("Compute host \(host) could not be found.")
        }
        return try connection.query(
            """
            SELECT id, name, project_id, vm_state, flavor->>'original_name' AS flavor FROM servers
            WHERE host = \(host) AND NOT deleted
            ORDER BY (flavor->>'ram')::int DESC, (flavor->>'vcpus')::int DESC, created_at, id
            """
        ).map { row in
            HostedServer(
                id: try row.string("id"), name: try row.string("name"), project: try row.string("project_id"),
                vmState: try row.string("vm_state"), flavor: try row.optionalString("flavor"))
        }
    }

    /// The scheduler's decisions about a server, the latest first.
    static func explanations(_ connection: Connection, of server: String) throws -> [(explanation: JSONValue, at: Timestamp)] {
        try connection.query(
            """
            SELECT explanation, created_at FROM published_scheduling_explanations WHERE consumer_id = \(server)
            ORDER BY created_at DESC LIMIT \(explanationsMax)
            """
        ).map { (explanation: try $0.json("explanation"), at: try $0.timestamp("created_at")) }
    }
}
