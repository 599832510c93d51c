import Database
import Glibc
import JSON
import Kernel
import ServiceCatalog

/// A cloud on this machine: everything that its supervisor needs.
struct Cloud: Sendable {
    let layout: CloudLayout
    let secrets: CloudSecrets
    /// This program, and the directory with the services' executables.
    let program: String
    let guestImage: String?
    let ambient: Ambient

    private var binaries: String { String(program[..<(program.lastIndex(of: "/") ?? program.startIndex)]) }

    /// One per host, in the hosts' order.
    var libvirt: [LibvirtParts] {
        layout.hosts.map { LibvirtParts(layout: layout, host: $0, program: program, hostUUID: secrets.hostUUIDs[$0.number - 1]) }
    }

    // MARK: Parts

    /// All processes, in the order of their display.
    func parts(network: [NetworkParts]) -> [Part] {
        StoreParts(layout: layout, secrets: secrets).all + zip(network, libvirt).flatMap { $0.all + $1.all } + services + agents
    }

    static let schemaMilestone = "database schema"

    var milestones: [Milestone] {
        let layout = layout
        let bootstrap = InitialObjects(layout: layout, secrets: secrets, binaries: binaries, guestImage: guestImage)
        let identity = "users and catalog"
        return [
            Milestone(name: Cloud.schemaMilestone, needs: ["postgres"]) {
                try await CloudCommand.migrate(layout)
            },
            Milestone(name: identity, needs: [Cloud.schemaMilestone]) { try await bootstrap.identity() },
            Milestone(name: "flavors", needs: [identity, "wolke-identity", "wolke-compute"]) { try await bootstrap.flavors() },
            Milestone(name: "image", needs: [identity, "wolke-identity", "wolke-image"]) { try await bootstrap.image() },
            Milestone(name: "external network", needs: [identity, "wolke-identity", "wolke-network", "ovs-vswitchd"]) {
                try await bootstrap.network()
            },
            Milestone(
                name: "hosts", needs: ["wolke-compute", "wolke-placement"] + layout.hosts.map { "wolke-compute-agent" + $0.partSuffix }
            ) { try await hostsAreKnown() },
        ]
    }

    /// Waits until the scheduler can use every host; before that, servers might not find one.
    private func hostsAreKnown() async throws -> String {
        let database = Database(DatabaseConfiguration(connectionString: layout.databaseURL, connectionsMax: 1))
        defer { database.close() }
        let names = layout.hosts.map(\.name)
        let end = ambient.now + .seconds(30)
        while true {
            let known = try await database.read { connection in
                try connection.query(
                    """
                    SELECT p.host FROM resource_providers p JOIN compute_services s ON s.host = p.host
                    WHERE p.host = ANY(\(names)::text[]) AND s.last_seen_at > now() - interval '10 seconds'
                    AND EXISTS (SELECT 1 FROM inventories i WHERE i.resource_provider_id = p.id)
                    """
                ).map { try $0.string("host") }
            }
            let missing = names.filter { !known.contains($0) }
            if missing.isEmpty {
                // The scheduler's memory follows the database within 0.2 s.
                try await ambient.time.sleep(for: .milliseconds(300))
                return names.joined(separator: ", ")
            }
            guard ambient.now < end else {
                throw CloudError("not announced yet: \(missing.joined(separator: ", "))")
            }
            try await ambient.time.sleep(for: .milliseconds(100))
        }
    }

    private var services: [Part] {
        layout.processes.map { service in
            part(
                service.executable, executable: service.executable, host: layout.machine, port: layout.port(service.port),
                operatorPort: layout.port(service.operatorPort),
                needs: service.infrastructure.contains(.ovn) ? ["ovn-northbound", "ovn-southbound"] : [])
        }
    }

    /// The parts on each host.
    private var agents: [Part] {
        layout.hosts.map { host in
            let needs = ["libvirtd", "ovn-controller"].map { $0 + host.partSuffix }
            return part(
                HostAgent.compute.executable + host.partSuffix, executable: HostAgent.compute.executable, host: host,
                port: layout.port(HostAgent.compute.port), operatorPort: layout.port(HostAgent.compute.port), needs: needs)
        }
    }

    private func part(
        _ name: String, executable: String, host: HostLayout, port: Int, operatorPort: Int, needs: [String]
    ) -> Part {
        let path = "\(binaries)/\(executable)"
        var environment = Machine.environment.filter { $0.key.hasPrefix("WOLKE_") }
        environment["PATH"] = Tool.searchPath
        environment["LC_ALL"] = "C.UTF-8"
        environment["HOME"] = "/root"
        let command = [path, "--config", host.configuration]
        let address = host.address.description
        return Part(
            name: name, group: .wolke, address: "http://\(address):\(port)",
            launch: Launch(
                arguments: host.isMachine
                    ? command : host.command(command, program: program, mounts: [(source: host.namespaces, target: "/run/netns")]),
                environment: environment, output: "\(layout.log)/\(name).log"),
            needs: [Cloud.schemaMilestone, "rabbitmq"] + needs,
            readyWithin: .seconds(20),
            prepare: {
                guard access(path, X_OK) == 0 else { throw CloudError("\(path) is not built", isFinal: true) }
            },
            probe: {
                try await Cloud.ready(host: address, port: operatorPort)
                return try await Cloud.release(host: address, port: operatorPort) ?? ""
            })
    }

    /// Requests `/readyz` of a service, which gives the reason if the service cannot work.
    static func ready(host: String, port: Int) async throws {
        let answer = try await Probe.http(host: host, port: port, path: "/readyz")
        guard answer.status == 200 else {
            throw CloudError("not ready (\(answer.status)): \(answer.body.prefix(300))")
        }
    }

    /// The release of the process; nil if it does not report one (release 0.1.0).
    static func release(host: String, port: Int) async throws -> String? {
        let answer = try await Probe.http(host: host, port: port, path: "/version")
        return answer.status == 200 ? answer.body.split(separator: "\n").first.map(String.init) : nil
    }

    // MARK: Before the start

    /// Reasons why this machine cannot run a cloud, each with the remedy; empty if there are none.
    func obstacles() -> [String] {
        var found: [String] = []
        if geteuid() != 0 { found.append("needs root, for taps and mount namespaces; run it with sudo") }
        let programs = [
            StoreParts.postgresBinaries + "/postgres", StoreParts.rabbitmqBinaries + "/rabbitmq-server", "epmd", "ovsdb-server",
            "ovs-vswitchd", "ovn-northd", "ovn-controller", "ovs-vsctl", "libvirtd", "virtlogd", "virsh", "qemu-system-x86_64",
            "qemu-img", "bwrap", "setpriv", "prlimit", "ip",
        ]
        let missing = programs.filter { Tool.find($0) == nil }
        if !missing.isEmpty { found.append("not installed: \(missing.joined(separator: ", ")); run `make install`") }
        if !Machine.exists("/dev/net/tun") { found.append("/dev/net/tun does not exist: the kernel needs the tun driver") }
        let ports =
            [
                ("PostgreSQL", layout.postgresPort), ("RabbitMQ", layout.amqpPort), ("Erlang distribution", layout.erlangDistributionPort),
                ("epmd", layout.epmdPort),
            ] + layout.processes.map { ($0.executable, layout.port($0.port)) }
            + layout.processes.map { ($0.executable + " for operators", layout.port($0.operatorPort)) }
            + HostAgent.all.map { ($0.executable, layout.port($0.port)) }
        let taken = ports.filter { !Machine.isFree(port: $0.1) }
        if !taken.isEmpty {
            found.append(
                "ports in use by something else: \(taken.map { "\($0.1) (\($0.0))" }.joined(separator: ", ")); choose another PORT_OFFSET")
        }
        return found
    }
}
