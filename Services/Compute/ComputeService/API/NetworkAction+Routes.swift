import Authorization
import Contracts
import Database
import JSON
import Kernel
import WebAPI

/// Actions on a server's addresses. Nova removed the first two in 2.44, in favour of server interfaces.
struct NetworkActionRoutes: Sendable {
    let compute: Compute

    var resource: Resource {
        let path = ServerActionRoutes.path
        return Resource(
            "network-action",
            routes: [
                .action(
                    path, key: "addFixedIp", action: "os_compute_api:os-multinic:add", rule: Rule.member, versions: .through(43),
                    schema: .object([.init("networkId", .uuid, required: true)]),
                    "Add an address in a network to a server"
                ) { try await addAddress($0) },
                .action(
                    path, key: "removeFixedIp", action: "os_compute_api:os-multinic:remove", rule: Rule.member, versions: .through(43),
                    schema: .object([.init("address", .string(min: 1, max: 45, format: .ip), required: true)]),
                    "Remove an address from a server"
                ) { try await removeAddress($0) },
                .action(
                    path, key: "injectNetworkInfo", action: "os_compute_api:os-admin-actions:inject_network_info", rule: Rule.admin,
                    "Send a server's networks to its host again"
                ) { try await refresh($0) },
                .action(
                    path, key: "resetNetwork", action: "os_compute_api:os-admin-actions:reset_network", rule: Rule.admin, status: 200,
                    "Removed", isUnavailable: true
                ) { context in
                    _ = try await compute.authorizedServer(context)
                    throw ResourceError(.gone, "The action 'resetNetwork' was for the Xen driver, which Nova has removed.")
                },
            ])
    }

    // MARK: addresses

    /// A port of the server with its new addresses.
    private struct Wanted: Codable {
        var port: String
        var fixedIPs: [JSONValue]
        /// Subnets, one of which provides the additional address.
        var subnets: [String]
    }

    private func addAddress(_ context: RequestContext) async throws -> Response {
        let network = context.body["addFixedIp"]?["networkId"]?.stringValue.flatMap { UUID128($0)?.description } ?? ""
        return try await readdress(context) { connection, server in
            guard let port = try InterfaceStore.port(connection, of: server.id, network: network) else {
                throw ResourceError.notFound("Instance \(server.id) has no port in network \(network).")
            }
            let subnets = try InterfaceStore.subnets(connection, of: network)
            return Wanted(port: port, fixedIPs: try NetworkActionRoutes.addresses(connection, of: port), subnets: subnets)
        } send: { wanted, subject in
            for subnet in wanted.subnets {
                let all = wanted.fixedIPs + [["subnet_id": .string(subnet)]]
                do {
                    return try await compute.clients.network.updatePort(wanted.port, ["fixed_ips": .array(all)], as: subject)
                } catch let error as ResourceError where error.code == .conflict {
                    // The subnet has no free address.
                    continue
                }
            }
            throw ResourceError.badRequest("No fixed IP addresses available for network: \(network)")
        }
    }

    private func removeAddress(_ context: RequestContext) async throws -> Response {
        let text = context.body["removeFixedIp"]?["address"]?.stringValue ?? ""
        let address = IPAddress(text)?.description ?? text
        return try await readdress(context) { connection, server in
            guard let port = try InterfaceStore.port(connection, of: server.id, address: address) else {
                throw ResourceError.badRequest("Fixed IP '\(address)' not found for server '\(server.id)'.")
            }
            let rest = try NetworkActionRoutes.addresses(connection, of: port).filter { $0["ip_address"]?.stringValue != address }
            return Wanted(port: port, fixedIPs: rest, subnets: [])
        } send: { wanted, subject in
            try await compute.clients.network.updatePort(wanted.port, ["fixed_ips": .array(wanted.fixedIPs)], as: subject)
        }
    }

    private static func addresses(_ connection: Connection, of port: String) throws -> [JSONValue] {
        try InterfaceStore.fixedIPs(connection, of: port).map { ["subnet_id": .string($0.subnet), "ip_address": .string($0.address)] }
    }

    /// Changes the addresses of a port through Network, which tells the server's host.
    private func readdress(
        _ context: RequestContext, wanted: @escaping @Sendable (Connection, ServerRecord) throws -> Wanted,
        send: (Wanted, ActingSubject) async throws -> Void
    ) async throws -> Response {
        let server = try await compute.authorizedServer(context)
            .value(for: "os_compute_api:os-multinic:add", "os_compute_api:os-multinic:remove")
        let owner = try ServerOwner(context, project: server.project)
        let subject = ActingSubject.accepted(project: server.project, user: owner.user, administrator: owner.administrator)
        return try await context.write(
            compute.database,
            begin: { connection in
                let current = try ServerRecord.find(connection, server.id, lock: true)
                try current.requireUnlocked(context)
                let work = try JSONValue(encoding: wanted(connection, current))
                return BegunWork(work, "server", server.id, content: work)
            },
            finish: { work in
                try await send(try work.decode(as: Wanted.self), subject)
                return .empty(202)
            })
    }

    // MARK: networks

    private func refresh(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let policy = "os_compute_api:os-admin-actions:inject_network_info"
        let server = try decision.value(for: policy)
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            try ServerRecord.find(connection, server.id, lock: true).requireUnlocked(context)
            try DesiredState.refresh(connection, of: decision, for: policy, ambient: ambient)
            return Change(.empty(202), "server", server.id)
        }
    }
}
