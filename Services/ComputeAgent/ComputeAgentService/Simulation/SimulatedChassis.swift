package import Kernel
package import Logging
package import OVSDB

/// The chassis of the simulated hosts in OVN's southbound database: says, as ovn-controller would, which of their
/// ports are up.
package actor SimulatedChassis {
    private struct PortPlacement {
        var host: String
        /// Whether the placement was written; northd may need a while to create the port binding.
        var written: Bool
    }

    private let client: OVSDBClient
    private let ambient: Ambient
    private let log: Logger
    private var placements: [String: PortPlacement] = [:]

    package static let monitors = [
        OVSDBMonitor("Chassis", columns: ["name"]), OVSDBMonitor("Port_Binding", columns: ["logical_port", "chassis", "up"]),
    ]
    /// Rows in one transaction.
    private static let batch = 500

    package init(client: OVSDBClient, ambient: Ambient, log: Logger) {
        self.client = client
        self.ambient = ambient
        self.log = log
    }

    /// Reports the ports as up on `host`.
    package func bind(ports: [String], to host: String) {
        for port in ports { placements[port] = PortPlacement(host: host, written: false) }
    }

    /// Stops tracking these ports.
    package func release(ports: [String]) {
        for port in ports { placements[port] = nil }
    }

    /// Makes the rows of hosts that have none.
    ///
    /// - Throws: `OVSDBError`.
    package func register(hosts: [String]) async throws {
        try await client.waitUntilConnected(timeout: .seconds(30))
        let known = Set(await client.rows("Chassis").values.compactMap { $0["name"]?.string })
        let missing = hosts.enumerated().filter { !known.contains($0.element) }
        for start in stride(from: 0, to: missing.count, by: 100) {
            var operations: [OVSDBOperation] = []
            for (number, host) in missing[start..<min(start + 100, missing.count)] {
                // Never reached: an address of the block for benchmarks (RFC 2544).
                let address = "198.18.\(number / 250).\(number % 250 + 1)"
                operations.append(
                    .insert(
                        table: "Encap",
                        row: ["type": OVSDBValue("geneve"), "ip": OVSDBValue(address), "chassis_name": OVSDBValue(host)],
                        name: "encap\(number)"))
                operations.append(
                    .insert(
                        table: "Chassis",
                        row: [
                            "name": OVSDBValue(host), "hostname": OVSDBValue(host),
                            "encaps": .set([.namedUUID("encap\(number)")]),
                        ]))
            }
            try await client.transact(operations)
        }
    }

    /// Writes pending placements until the task is cancelled.
    package func run() async throws {
        while true {
            do { try await write() } catch let error as OVSDBError {
                log.warning("the simulated chassis could not be written", metadata: ["error": "\(error)"])
            }
            try await ambient.time.sleep(for: .milliseconds(100))
        }
    }

    private func write() async throws {
        let waiting = placements.filter { !$0.value.written }
        guard !waiting.isEmpty else { return }
        var chassis: [String: UUID128] = [:]
        for (uuid, row) in await client.rows("Chassis") { if let name = row["name"]?.string { chassis[name] = uuid } }
        var operations: [OVSDBOperation] = []
        var written: [String] = []
        for (uuid, row) in await client.rows("Port_Binding") {
            guard let port = row["logical_port"]?.string, let placement = waiting[port], let host = chassis[placement.host] else {
                continue
            }
            written.append(port)
            if row["chassis"]?.uuid == host, row["up"]?.boolean == true { continue }
            operations.append(
                .update(
                    table: "Port_Binding", where: [.uuid(uuid)],
                    row: ["chassis": OVSDBValue(host), "up": OVSDBValue(true)]))
            if operations.count == SimulatedChassis.batch { break }
        }
        if !operations.isEmpty { try await client.transact(operations) }
        for port in written { placements[port]?.written = true }
    }
}
