import Authorization
import Contracts
import Database
import JSON
import Kernel
import Messaging
import Telemetry
import WebAPI

/// Other information about a server: diagnostics, security groups, topology.
struct ServerDetailRoutes: Sendable {
    let compute: Compute

    private static let one = "/v2.1/servers/{server_id}"

    private static let groupsSchema = BodySchema.wrapped(
        "security_groups",
        .many(
            .object([
                .required("id", .anyText), .required("name", .anyText), .required("description", .anyText),
                .required("tenant_id", .anyText),
                .required(
                    "rules",
                    .many(
                        .object([
                            .required("id", .anyText), .required("parent_group_id", .anyText),
                            .required("ip_protocol", .nullable(.anyText)),
                            .required("from_port", .nullable(.count)), .required("to_port", .nullable(.count)),
                            .required("group", .textMap), .required("ip_range", .textMap),
                        ]))),
            ])))

    private static let topologySchema = BodySchema.object([
        .required("nodes", .array(.any, min: 0, max: 0)), .required("pagesize_kb", .nullable(.count)),
    ])

    var resource: Resource {
        let one = ServerDetailRoutes.one
        return Resource(
            "server-detail",
            routes: [
                Route(
                    .get, one + "/diagnostics", action: "os_compute_api:os-server-diagnostics", rule: Rule.admin, versions: .from(48),
                    answer: .form(.object([], additional: .allowed)), "Show figures of a running server", handler: diagnostics),
                Route(
                    .get, one + "/os-security-groups", action: "os_compute_api:os-security-groups:list", rule: Rule.reader,
                    answer: .form(ServerDetailRoutes.groupsSchema), "List a server's security groups", handler: groups),
                Route(
                    .get, one + "/topology", action: "compute:server:topology:index", rule: Rule.reader, versions: .from(78),
                    answer: .form(ServerDetailRoutes.topologySchema), "Show a server's NUMA topology"
                ) { context in
                    _ = try await compute.authorizedServer(context).value
                    // No server has a NUMA topology here: flavors and images that require one are refused (`hw:numa_nodes`).
                    return .json(200, ["nodes": [], "pagesize_kb": nil])
                },
            ])
    }

    private func diagnostics(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context).value
        guard let host = server.host, ["active", "paused", "suspended"].contains(server.vmState) else {
            throw ResourceError.conflict("Cannot 'get_diagnostics' instance \(server.id) while it is in vm_state \(server.vmState)")
        }
        let figures = try await compute.bus.request(
            DiagnosticsQuestion(serverID: server.id), to: .agent(host: host), id: compute.ambient.newUUID(), timeout: .seconds(15),
            expiration: .seconds(20))
        return .json(200, figures)
    }

    private func groups(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context).value
        let list = try await compute.database.read { try ServerSecurityGroups.list($0, of: server.id) }
        return .json(200, ["security_groups": .array(try context.listRequest(filters: []).page(of: list).items)])
    }
}
