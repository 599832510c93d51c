import ArgumentParser
import Glibc
import JSON
import Kernel
import Logging
import OVSDB

/// OVN's northbound database, as the rows about ports need it.
enum Northbound {
    static func client(_ endpoint: String, monitors: [OVSDBMonitor], onChange: @escaping @Sendable () -> Void = {}) throws -> OVSDBClient {
        OVSDBClient(
            OVSDBConfiguration(endpoints: try OVSDBEndpoint.list(endpoint), database: "OVN_Northbound", monitors: monitors),
            ambient: Ambient(), logger: Logger(label: "wolke-bench"), onChange: onChange)
    }

    /// Runs `body` with the names of the switch ports that are added from now on, as they are.
    static func withNewPorts<Result>(
        _ endpoint: String, _ body: (AsyncStream<[String]>) async throws -> Result
    ) async throws -> Result {
        let (news, signal) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        let client = try client(endpoint, monitors: [OVSDBMonitor("Logical_Switch_Port", columns: ["name"])]) { signal.yield() }
        let running = Task { await client.run() }
        defer { running.cancel() }
        try await client.waitUntilConnected(timeout: .seconds(20))
        _ = await client.takeChanges()
        let (names, continuation) = AsyncStream.makeStream(of: [String].self)
        let reading = Task {
            for await _ in news {
                let added = await client.takeChanges().changes.compactMap { change -> String? in
                    guard case .inserted(let row) = change.kind else { return nil }
                    return row["name"]?.string
                }
                continuation.yield(added)
            }
        }
        defer { reading.cancel() }
        return try await body(names)
    }
}

/// Says when ports have arrived in OVN.
struct PortWatch: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch-ports", abstract: "Prints the names of the logical switch ports that are added, as they are.")

    @Option(help: "OVN's northbound database.")
    var northbound: String

    func run() async throws {
        try await Northbound.withNewPorts(northbound) { added in
            print("watching")
            fflush(nil)
            for await names in added {
                for name in names { print(name) }
                fflush(nil)
            }
        }
    }
}

/// The peer of the row about port creates: the same rows in OVN, written by nothing but an OVSDB client. The switch and
/// the group stay and grow with each run, as those of a tenant do: the database copies a holder for each transaction.
struct PortBatches: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "port-batches", abstract: "Adds ports to a logical switch in batches; prints ports per second.")

    @Option(help: "OVN's northbound database.")
    var northbound: String

    @Option(help: "Ports in one transaction.")
    var batch = 100

    @Option(help: "For how long.")
    var seconds = 1.0

    @Option(help: "Ports that are left there at the end.")
    var keep = 2000

    /// The switch and the security group.
    private static let holders = [
        (table: "Logical_Switch", name: "wolke-bench"), (table: "Port_Group", name: "wolke_bench_default"),
    ]
    /// As long as ours.
    private static let project = String(repeating: "b", count: 32)

    func run() async throws {
        let client = try Northbound.client(
            northbound,
            monitors: [
                OVSDBMonitor("Logical_Switch", columns: ["name", "ports"]), OVSDBMonitor("Port_Group", columns: ["name"]),
                OVSDBMonitor("DHCP_Options", columns: ["cidr"]),
            ])
        let running = Task { await client.run() }
        defer { running.cancel() }
        try await client.waitUntilConnected(timeout: .seconds(20))
        let ambient = Ambient()
        var holders: [(table: String, row: UUID128)] = []
        for (table, name) in PortBatches.holders {
            let row = try await row(table, where: "name", name, client, inserting: ["name": OVSDBValue(name)])
            holders.append((table, row))
        }
        let options = try await row(
            "DHCP_Options", where: "cidr", "10.0.0.0/8", client,
            inserting: [
                "cidr": OVSDBValue("10.0.0.0/8"),
                "options": OVSDBValue(["server_id": "10.0.0.1", "server_mac": "fa:16:3e:ff:ff:ff", "lease_time": "43200"]),
            ])
        let first = await client.rows("Logical_Switch")[holders[0].row]?["ports"]?.uuids.count ?? 0
        let begun = ambient.time.monotonicNanoseconds()
        var created: [UUID128] = []
        var passed = 0.0
        repeat {
            let start = first + created.count
            let results = try await client.transact(operations(start..<start + batch, holders, options, ambient))
            created += results.compactMap(\.uuid)
            passed = Double(ambient.time.monotonicNanoseconds() - begun) / 1e9
        } while passed < seconds
        print("{\"ports_per_second\": \(Double(created.count) / passed)}")
        try await remove(Array(created.dropFirst(keep)), holders, client)
    }

    private func remove(
        _ ports: [UUID128], _ holders: [(table: String, row: UUID128)], _ client: OVSDBClient
    ) async throws {
        for start in stride(from: 0, to: ports.count, by: 1000) {
            let gone = OVSDBValue(uuids: ports[start..<min(ports.count, start + 1000)])
            try await client.transact(
                holders.map { .mutate(table: $0.table, where: [.uuid($0.row)], mutations: [.delete("ports", gone)]) })
        }
    }

    /// The row that says `text` in `column`, or a new one.
    private func row(
        _ table: String, where column: String, _ text: String, _ client: OVSDBClient, inserting new: OVSDBRow
    ) async throws -> UUID128 {
        if let found = await client.rows(table).first(where: { $0.value[column]?.string == text }) { return found.key }
        let results = try await client.transact([.insert(table: table, row: new)])
        guard let uuid = results.first?.uuid else { throw ValidationError("OVN made no \(table)") }
        return uuid
    }

    /// The operations that the service writes for a port: the row, and its references in the switch and in the groups.
    private func operations(
        _ numbers: Range<Int>, _ holders: [(table: String, row: UUID128)], _ options: UUID128, _ ambient: Ambient
    ) -> [OVSDBOperation] {
        var operations: [OVSDBOperation] = []
        for number in numbers {
            let id = ambient.newUUID().description
            let bytes = [UInt8(number >> 16), UInt8(number >> 8 & 255), UInt8(number & 255)]
            let mac = "fa:16:3e:" + bytes.map { Hexadecimal.encode([$0]) }.joined(separator: ":")
            let own = OVSDBValue("\(mac) 10.\(bytes[0]).\(bytes[1]).\(bytes[2])")
            operations.append(
                .insert(
                    table: "Logical_Switch_Port",
                    row: [
                        "name": OVSDBValue(id), "addresses": own, "port_security": own,
                        "dhcpv4_options": .set([.uuid(options)]),
                        "external_ids": OVSDBValue([
                            "bench:subject": "port/\(id)", "bench:project_id": PortBatches.project,
                        ]),
                    ], name: "port\(number)"))
        }
        let added = OVSDBValue.set(SmallSet(numbers.map { .namedUUID("port\($0)") }))
        return operations
            + holders.map { holder in
                .mutate(table: holder.table, where: [.uuid(holder.row)], mutations: [.insert("ports", added)])
            }
    }
}
