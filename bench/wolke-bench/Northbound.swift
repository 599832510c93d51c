import ArgumentParser
import Glibc
import JSON
import Kernel
import Logging
import OVSDB

/// OVN's northbound database, as the rows about ports need it.
private enum Northbound {
    static func client(_ endpoint: String, monitors: [OVSDBMonitor], onChange: @escaping @Sendable () -> Void = {}) throws -> OVSDBClient {
        OVSDBClient(
            OVSDBConfiguration(endpoints: try OVSDBEndpoint.list(endpoint), database: "OVN_Northbound", monitors: monitors),
            ambient: Ambient(), logger: Logger(label: "wolke-bench"), onChange: onChange)
    }
}

/// Says when ports have arrived in OVN.
struct PortWatch: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch-ports", abstract: "Prints the names of the logical switch ports that are added, as they are.")

    @Option(help: "OVN's northbound database.")
    var northbound: String

    func run() async throws {
        let (news, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        let client = try Northbound.client(
            northbound, monitors: [OVSDBMonitor("Logical_Switch_Port", columns: ["name"])]) { continuation.yield() }
        let running = Task { await client.run() }
        defer { running.cancel() }
        try await client.waitUntilConnected(timeout: .seconds(20))
        _ = await client.takeChanges()
        print("watching")
        fflush(nil)
        for await _ in news {
            for change in await client.takeChanges().changes {
                if case .inserted(let row) = change.kind, let name = row["name"]?.string { print(name) }
            }
            fflush(nil)
        }
    }
}

/// The peer of the row about port creates: the same rows in OVN, written by nothing but an OVSDB client.
struct PortBatches: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "port-batches", abstract: "Adds ports to a logical switch in batches; prints ports per second.")

    @Option(help: "OVN's northbound database.")
    var northbound: String

    @Option(help: "Ports in one transaction.")
    var batch = 100

    @Option(help: "Ports in all.")
    var ports = 2000

    func run() async throws {
        let client = try Northbound.client(northbound, monitors: [OVSDBMonitor("Logical_Switch", columns: ["name"])])
        let running = Task { await client.run() }
        defer { running.cancel() }
        try await client.waitUntilConnected(timeout: .seconds(20))
        let ambient = Ambient()
        let made = try await client.transact([
            .insert(table: "Logical_Switch", row: ["name": OVSDBValue("wolke-bench")], name: "switch"),
            .insert(table: "Port_Group", row: ["name": OVSDBValue("wolke_bench")], name: "group"),
        ])
        guard let network = made.first?.uuid, let group = made.dropFirst().first?.uuid else { throw ValidationError("OVN made no switch") }
        let begun = ambient.time.monotonicNanoseconds()
        for start in stride(from: 0, to: ports, by: batch) {
            try await client.transact(operations(start..<min(ports, start + batch), network, group, ambient))
        }
        let rate = Double(ports) * 1e9 / Double(ambient.time.monotonicNanoseconds() - begun)
        try await client.transact([
            .delete(table: "Logical_Switch", where: [.uuid(network)]), .delete(table: "Port_Group", where: [.uuid(group)]),
        ])
        print("{\"ports_per_second\": \(rate)}")
    }

    /// What the service writes for a port: the row, its place in the switch and in the group of the default drop rules.
    private func operations(_ numbers: Range<Int>, _ network: UUID128, _ group: UUID128, _ ambient: Ambient) -> [OVSDBOperation] {
        var operations: [OVSDBOperation] = []
        for number in numbers {
            let own = "fa:16:3e:\(Hexadecimal.encode([UInt8(number >> 16), UInt8(number >> 8 & 255), UInt8(number & 255)])) 10.9.\(number >> 8).\(number & 255)"
            operations.append(
                .insert(
                    table: "Logical_Switch_Port",
                    row: [
                        "name": OVSDBValue(ambient.newUUID().description), "enabled": OVSDBValue(true), "type": OVSDBValue(""),
                        "addresses": OVSDBValue(own), "port_security": OVSDBValue(own),
                        "external_ids": OVSDBValue(["wolke:name": "bench", "wolke:device_id": "", "wolke:project_id": "bench"]),
                    ], name: "port\(number)"))
            for (table, row) in [("Logical_Switch", network), ("Port_Group", group)] {
                operations.append(
                    .mutate(table: table, where: [.uuid(row)], mutations: [.insert("ports", .set([.namedUUID("port\(number)")]))]))
            }
        }
        return operations
    }
}
