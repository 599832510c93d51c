package import ComputeAgentCore
import Glibc
package import Kernel
package import Logging
import NIOCore
import Synchronization
package import Telemetry
package import WebAPI

/// Maps network and address to a server, to identify the guest that sends a metadata request.
package final class MetadataDirectory: Sendable {
    /// Passes on a password that a guest left.
    package typealias PasswordSink = @Sendable (_ serverID: String, _ password: String) async throws -> Void

    private struct State {
        var servers: [String: DesiredServer] = [:]
        var byAddress: [String: [String: String]] = [:]
        /// Servers whose password was passed on since their last desired state.
        var haveLeftPassword: Set<String> = []
        var passwordSink: PasswordSink?
    }
    private let state = Mutex(State())

    package init() {}

    /// Updates a server's metadata, or removes it if the server no longer exists.
    package func set(_ serverID: String, _ server: DesiredServer?) {
        state.withLock { state in
            for port in state.servers[serverID]?.ports ?? [] {
                for fixed in port.fixedIPs
                where state.byAddress[port.networkID]?[fixed.address.description] == serverID {
                    state.byAddress[port.networkID]?[fixed.address.description] = nil
                }
            }
            state.servers[serverID] = server
            state.haveLeftPassword.remove(serverID)
            for port in server?.ports ?? [] {
                for fixed in port.fixedIPs {
                    state.byAddress[port.networkID, default: [:]][fixed.address.description] = serverID
                }
            }
        }
    }

    /// Sets the receiver of guests' passwords.
    package func sendPasswords(to sink: @escaping PasswordSink) { state.withLock { $0.passwordSink = sink } }

    /// Passes on a password that a guest has posted. A guest can do this once per desired state.
    ///
    /// - Returns: whether it was passed on; false if the guest has already posted one.
    /// - Throws: what the sink throws; the guest may then try again.
    func leave(password: String, of serverID: String) async throws -> Bool {
        let sink = state.withLock { state -> PasswordSink? in
            guard let sink = state.passwordSink, state.haveLeftPassword.insert(serverID).inserted else { return nil }
            return sink
        }
        guard let sink else { return false }
        do { try await sink(serverID, password) } catch {
            _ = state.withLock { $0.haveLeftPassword.remove(serverID) }
            throw error
        }
        return true
    }

    /// The networks with servers.
    package var networks: Set<String> {
        state.withLock { state in Set(state.servers.values.flatMap { $0.ports.map(\.networkID) }) }
    }

    /// The server that has this address in this network.
    package func server(network: String, address: String) -> DesiredServer? {
        state.withLock { state in state.byAddress[network]?[address].flatMap { state.servers[$0] } }
    }
}

extension MetadataDirectory {
    /// Answers a guest's request.
    func response(to request: SmallRequest, of server: DesiredServer, log: Logger) async -> MetadataResponse {
        let tree = MetadataTree(server)
        switch tree.passwordPost(method: request.method, path: request.path, body: request.body) {
        case nil: return tree.response(method: request.method, path: request.path)
        case .refused(let response): return response
        case .accepted(let password):
            do {
                let isFirst = try await leave(password: password, of: server.id)
                return isFirst ? .text("") : .refused(409, "409 Conflict: the password is set already")
            } catch {
                log.warning("a guest's password was not passed on", metadata: ["server": "\(server.id)", "error": "\(error)"])
                return .refused(503, "503 Service Unavailable: try again")
            }
        }
    }
}

/// The metadata service of every network that has a server on this host: a namespace with the network's metadata
/// port, and a listening socket made inside.
package actor MetadataNetworks {
    private struct Network {
        /// The end of the veth pair on the switch.
        let device: String
        let port: MetadataPort
        let mtu: Int
        let namespace: NetworkNamespace
        let channel: any Channel
    }

    static let address = "169.254.169.254"
    /// The device's name inside.
    private static let innerName = "metadata"

    private let links: Links
    private let ports: SwitchPorts
    private let directory: MetadataDirectory
    private let random: any RandomSource
    private let metrics: Metrics
    private let limits: ConnectionLimits
    /// The guests of all networks share the process's descriptors.
    private let total: ConnectionTotal
    private let log: Logger
    private var networks: [String: Network] = [:]
    private let turn = Gate(width: 1)

    /// - Parameter limits: the limits for all guests of a network together, and for each guest.
    package init(
        links: Links, ports: SwitchPorts, directory: MetadataDirectory, random: any RandomSource, metrics: Metrics,
        limits: ConnectionLimits, log: Logger
    ) {
        self.random = random
        self.limits = limits
        let descriptors = DescriptorLimit.raise()
        total = ConnectionTotal(connectionsMax: max(limits.connectionsMax, (descriptors - DescriptorLimit.reserve(of: descriptors)) / 2))
        self.links = links
        self.ports = ports
        self.directory = directory
        self.metrics = metrics
        self.log = log
    }

    /// Use a new device name each time: the switch would keep listening to a deleted device of the same name.
    private func newDevice(_ networkID: String) -> String {
        "mdt" + networkID.prefix(8) + Hexadecimal.encode(random.bytes(2))
    }

    private func isUp(_ network: Network) async -> Bool {
        guard network.channel.isActive, Links.exists(network.device) else { return false }
        return await ports.isPlugged(network.device, interfaceID: network.port.id)
    }

    /// Makes the service of a network answer.
    ///
    /// - Throws: `CommandError`, `FileError`, `OVSDBError`.
    package func ensure(_ networkID: String, port: MetadataPort, mtu: Int) async throws {
        if let known = networks[networkID], known.port == port, known.mtu == mtu, await isUp(known) { return }
        try await turn.run { try await self.build(networkID, port: port, mtu: mtu) }
    }

    private func build(_ networkID: String, port: MetadataPort, mtu: Int) async throws {
        if let known = networks[networkID], known.port != port || known.mtu != mtu || !Links.exists(known.device) {
            try await close(networkID)
        }
        if networks[networkID] == nil {
            try await open(networkID, port: port, mtu: mtu)
            log.info("metadata answers", metadata: ["network": "\(networkID)"])
        }
        guard let network = networks[networkID] else { return }
        // A leftover of an earlier process would claim the same logical port.
        for old in await ports.owned()
        where old.kind == .metadata && old.networkID == networkID && old.device != network.device {
            try await ports.unplug(old.device)
            try await links.remove(old.device)
        }
        try await ports.plug(
            SwitchPort(
                device: network.device, interfaceID: port.id, mac: port.mac, kind: .metadata, networkID: networkID,
                serverID: nil))
    }

    private func open(_ networkID: String, port: MetadataPort, mtu: Int) async throws {
        let device = newDevice(networkID)
        let namespace = try await NetworkNamespace.make()
        try await links.ensureCable(device, inner: MetadataNetworks.innerName, into: namespace, mtu: mtu)
        try await configure(namespace, port, mtu: mtu)
        let socket = try await namespace.listen(MetadataNetworks.address, port: 80)
        let ledger = ConnectionLedger(limits: limits, listener: "metadata", metrics: metrics, total: total)
        let channel = try await SmallHTTPServer.serve(socket: socket, ledger) { [self] request in
            await answer(request, networkID: networkID)
        }
        networks[networkID] = Network(device: device, port: port, mtu: mtu, namespace: namespace, channel: channel)
    }

    private func configure(_ namespace: NetworkNamespace, _ port: MetadataPort, mtu: Int) async throws {
        let inner = MetadataNetworks.innerName
        try await namespace.run { try Links.disableTransmitChecksums(inner) }
        try await namespace.command(["ip", "link", "set", "dev", "lo", "up"])
        try await namespace.command([
            "ip", "link", "set", "dev", inner, "address", port.mac.description, "mtu", String(mtu), "up",
        ])
        try await namespace.command(["ip", "address", "add", MetadataNetworks.address + "/32", "dev", inner])
        for fixed in port.fixedIPs where fixed.address.version == .v4 {
            try await namespace.command([
                "ip", "address", "add", "\(fixed.address)/\(fixed.cidr.prefixLength)", "dev", inner,
            ])
        }
    }

    private nonisolated func answer(_ request: SmallRequest, networkID: String) async -> SmallResponse {
        guard let address = request.remoteAddress,
            let server = directory.server(network: networkID, address: address)
        else {
            metrics.increment(
                "wolke_agent_metadata_requests_total", [("status", "404")], help: "Questions of guests, by answer.")
            return SmallResponse(status: 404, text: "404 Not Found\n")
        }
        let response = await directory.response(to: request, of: server, log: log)
        metrics.increment(
            "wolke_agent_metadata_requests_total", [("status", "\(response.status)")],
            help: "Questions of guests, by answer.")
        return SmallResponse(status: response.status, contentType: response.contentType, body: response.body)
    }

    /// Whether the service of a network answers.
    package func isReady(_ networkID: String, port: MetadataPort) async -> Bool {
        guard let network = networks[networkID], network.port == port else { return false }
        return await isUp(network)
    }

    private func close(_ networkID: String) async throws {
        guard let network = networks.removeValue(forKey: networkID) else { return }
        try await network.channel.close()
        try await ports.unplug(network.device)
        try await links.remove(network.device)
    }

    /// Stops the services of networks without servers here, including leftovers of an earlier process on the switch.
    package func prune() async throws {
        try await turn.run { try await self.closeUnused() }
    }

    private func closeUnused() async throws {
        // Read inside the serialized section: a caller registers with the directory before it creates a service.
        let used = directory.networks
        for networkID in networks.keys where !used.contains(networkID) {
            try await close(networkID)
            log.info("metadata closed", metadata: ["network": "\(networkID)"])
        }
        for port in await ports.owned() where port.kind == .metadata && !used.contains(port.networkID) {
            try await ports.unplug(port.device)
            try await links.remove(port.device)
        }
    }

    package var count: Int { networks.count }
}
