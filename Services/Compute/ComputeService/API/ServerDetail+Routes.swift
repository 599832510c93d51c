import Authorization
import Contracts
import Database
import GuestKeys
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
        .required(
            "nodes",
            .many(
                .object([
                    .required("memory_mb", .count), .required("siblings", .many(.many(.count))), .required("vcpu_set", .many(.count)),
                    .init("cpu_pinning", .object([], additional: .allowed)), .init("host_node", .nullable(.count)),
                ]))),
        .required("pagesize_kb", .nullable(.count)),
    ])
    /// Nova's policy action for the parts of the topology that concern the host.
    static let hostTopology = "compute:server:topology:host:index"

    var resource: Resource {
        let one = ServerDetailRoutes.one
        return Resource(
            "server-detail",
            routes: [
                Route(
                    .get, one + "/diagnostics", action: "os_compute_api:os-server-diagnostics", rule: Rule.admin,
                    answer: .form(.object([], additional: .allowed)), "Show figures of a running server", handler: diagnostics),
                Route(
                    .get, one + "/os-security-groups", action: "os_compute_api:os-security-groups:list", rule: Rule.reader,
                    answer: .form(ServerDetailRoutes.groupsSchema), "List a server's security groups", handler: groups),
                Route(
                    .get, one + "/topology", action: "compute:server:topology:index", rule: Rule.reader, versions: .from(78),
                    answer: .form(ServerDetailRoutes.topologySchema), "Show a server's NUMA topology",
                    handler: topology),
            ])
    }

    private func diagnostics(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context).value
        guard let host = server.host, ["active", "paused", "suspended"].contains(server.vmState) else {
            throw ResourceError.conflict("Cannot 'get_diagnostics' instance \(server.id) while it is in vm_state \(server.vmState)")
        }
        let hasCommonForm = context.version(atLeast: 2, 48)
        let figures = try await compute.bus.request(
            DiagnosticsQuestion(serverID: server.id, ofHypervisor: hasCommonForm ? nil : true), to: .agent(host: host),
            id: compute.ambient.newUUID(), timeout: .seconds(15), expiration: .seconds(20))
        guard hasCommonForm, var document = figures.objectValue else { return .json(200, figures) }
        // As in Nova, since the server was launched.
        let launched = try await compute.database.read { try ServerStore.launchedAt($0, server.id) }
        if let launched { document["uptime"] = .integer(max(0, compute.ambient.now.seconds - launched.seconds)) }
        return .json(200, .object(document))
    }

    /// The NUMA nodes that the guest sees. A server with dedicated processors and no nodes has one, as in Nova. Callers with access to host
    /// details also see the host's processors, which the agent reports.
    private func topology(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context).value
        let (flavor, properties) = try await compute.database.read { try ServerStore.hardware($0, of: server.id) }
        let hardware = GuestHardware(flavor, properties)
        let isDedicated = hardware.processorPolicy == .dedicated
        var nodes = hardware.nodes(vcpus: flavor.vcpus, memoryMiB: flavor.memoryMiB)
        if nodes.isEmpty, isDedicated { nodes = [NUMANode(processors: Array(0..<flavor.vcpus), memoryMiB: flavor.memoryMiB)] }
        let seesHost = context.allows(ServerDetailRoutes.hostTopology, target: server.target)
        var pins: [Int] = []
        if seesHost, isDedicated, let host = server.host {
            pins = try await compute.bus.request(
                ProcessorsQuestion(serverID: server.id), to: .agent(host: host), id: compute.ambient.newUUID(), timeout: .seconds(15),
                expiration: .seconds(20)
            ).processors
        }
        let list = nodes.map { node -> JSONValue in
            var document: JSONObject = [
                "memory_mb": JSONValue(node.memoryMiB), "siblings": [], "vcpu_set": .array(node.processors.map { JSONValue($0) }),
            ]
            if seesHost {
                var pinning = JSONObject()
                for processor in node.processors where pins.indices.contains(processor) {
                    pinning[String(processor)] = JSONValue(pins[processor])
                }
                document["cpu_pinning"] = .object(pinning)
                // The guest's NUMA nodes are not bound to NUMA nodes of the host.
                document["host_node"] = .null
            }
            return .object(document)
        }
        return .json(200, ["nodes": .array(list), "pagesize_kb": nil])
    }

    private func groups(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context).value
        let list = try await compute.database.read { try ServerSecurityGroups.list($0, of: server.id) }
        return .json(200, ["security_groups": .array(try context.listRequest(filters: []).page(of: list).items)])
    }
}
