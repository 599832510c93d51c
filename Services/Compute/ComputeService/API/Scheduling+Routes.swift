import Database
import JSON
import Kernel
import WebAPI

/// Why a server is where it is, or nowhere: the scheduler's own record. Tenants see filters, counts and reasons;
/// operators see the hosts too.
struct SchedulingRoutes: Sendable {
    let compute: Compute

    var resource: Resource {
        Resource(
            "server-scheduling",
            routes: [
                Route(
                    .get, "/v2.1/servers/{server_id}/os-wolke-scheduling", action: "os_compute_api:os-wolke-scheduling",
                    rule: Rule.reader, "Explain a server's scheduling", handler: show)
            ])
    }

    /// Members of an explanation that name hosts.
    private static let operatorMembers: Set<String> = ["host", "operator", "alternatives", "resource_provider_id"]

    private func show(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context)
        let seesHosts = context.allows("os_compute_api:os-extended-server-attributes", target: server.target)
        return try await compute.database.read { connection in
            let rows = try connection.query(
                """
                SELECT explanation, created_at FROM scheduling_explanations WHERE consumer_id = \(server.id)
                ORDER BY created_at DESC LIMIT 20
                """)
            let list = try rows.map { row -> JSONValue in
                var entry: JSONObject = ["created_at": .string(try row.timestamp("created_at").iso8601)]
                for member in try row.object("explanation").members
                where seesHosts || !SchedulingRoutes.operatorMembers.contains(member.name) {
                    entry[member.name] = member.value
                }
                return .object(entry)
            }
            return .json(200, ["scheduling": .array(list)])
        }
    }
}
