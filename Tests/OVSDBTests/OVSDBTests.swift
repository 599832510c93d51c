import JSON
import Kernel
import Logging
import NIOCore
import NIOEmbedded
import TestKit
import Testing

@testable import OVSDB

private let northbound = "/usr/share/ovn/ovn-nb.ovsschema"

private func quiet() -> Logger {
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    return logger
}

/// Runs `body` with a client of a private northbound database.
private func withClient(
    _ monitors: [OVSDBMonitor], lock: String? = nil,
    _ body: (OVSDBClient, PrivateOVSDB) async throws -> Void
) async throws {
    let server = try PrivateOVSDB(schema: northbound)
    var configuration = OVSDBConfiguration(
        endpoints: [.unix(path: server.socket)], database: "OVN_Northbound", monitors: monitors, lock: lock)
    configuration.reconnectDelayMax = .milliseconds(200)
    let client = OVSDBClient(configuration, ambient: Ambient(), logger: quiet())
    let task = Task { await client.run() }
    do {
        try await client.waitUntilConnected()
        try await body(client, server)
    } catch {
        task.cancel()
        await task.value
        try server.stop()
        throw error
    }
    task.cancel()
    await task.value
    try server.stop()
}

@Suite struct OVSDBClientTests {
    @Test func insertSelectUpdateMutateDelete() async throws {
        try await withClient([OVSDBMonitor("Logical_Switch"), OVSDBMonitor("Logical_Switch_Port")]) { client, _ in
            let results = try await client.transact([
                .insert(
                    table: "Logical_Switch",
                    row: ["name": OVSDBValue("s1"), "ports": .set([.namedUUID("p1")])], name: "s"),
                .insert(
                    table: "Logical_Switch_Port",
                    row: ["name": OVSDBValue("p1"), "addresses": OVSDBValue(strings: ["fa:16:3e:00:00:01 10.0.0.2"])],
                    name: "p1"),
            ])
            let switchID = try #require(results[0].uuid)
            let portID = try #require(results[1].uuid)
            // The copy is up to date when transact returns.
            #expect(await client.rows("Logical_Switch")[switchID]?["ports"]?.uuids == [portID])

            try await client.transact([
                .insert(
                    table: "Logical_Switch_Port", row: ["name": OVSDBValue("p2"), "up": OVSDBValue(false)], name: "p2"),
                .mutate(
                    table: "Logical_Switch", where: [.uuid(switchID)],
                    mutations: [
                        .insert("ports", .set([.namedUUID("p2")])),
                        .insert("external_ids", OVSDBValue(["a": "1", "b": "2"])),
                    ]),
            ])
            #expect(await client.rows("Logical_Switch")[switchID]?["ports"]?.atoms.count == 2)
            #expect(await client.rows("Logical_Switch")[switchID]?["external_ids"]?.entries == ["a": "1", "b": "2"])

            let updated = try await client.transact([
                .update(table: "Logical_Switch", where: [.equal("name", OVSDBValue("s1"))], row: ["name": OVSDBValue("s2")]),
                .mutate(
                    table: "Logical_Switch", where: [.uuid(switchID)],
                    mutations: [
                        .delete("external_ids", OVSDBValue(strings: ["a"])),
                        .delete("ports", OVSDBValue(uuids: [portID])),
                    ]),
                .select(table: "Logical_Switch", columns: ["name"]),
            ])
            #expect(updated[0].count == 1)
            #expect(updated[2].rows == [["name": OVSDBValue("s2")]])
            let row = try #require(await client.rows("Logical_Switch")[switchID])
            #expect(row["name"]?.string == "s2")
            #expect(row["external_ids"]?.entries == ["b": "2"])
            // An unreferenced port is deleted automatically.
            #expect(await client.rows("Logical_Switch_Port")[portID] == nil)

            try await client.transact([.delete(table: "Logical_Switch", where: [])])
            #expect(await client.rows("Logical_Switch").isEmpty)
            #expect(await client.rows("Logical_Switch_Port").isEmpty)
        }
    }

    @Test func failedTransactionIsRolledBackWithAReason() async throws {
        try await withClient([OVSDBMonitor("Logical_Switch")]) { client, _ in
            let error = await #expect(throws: OVSDBError.self) {
                try await client.transact([
                    .insert(table: "Logical_Switch", row: ["name": OVSDBValue("x")]),
                    .insert(table: "Logical_Switch", row: ["no_such_column": OVSDBValue("x")]),
                ])
            }
            guard case .transaction(let operation, _, let details) = error else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(operation == 1)
            #expect(details.contains("no_such_column"))
            #expect(await client.rows("Logical_Switch").isEmpty)
            // A condition that is not met.
            let refused = await #expect(throws: OVSDBError.self) {
                try await client.transact([
                    .wait(
                        table: "Logical_Switch", where: [.equal("name", OVSDBValue("x"))], columns: ["name"],
                        rows: [["name": OVSDBValue("x")]]),
                    .insert(table: "Logical_Switch", row: ["name": OVSDBValue("y")]),
                ])
            }
            #expect(refused?.isPassing == true)
        }
    }

    @Test func changesComeAsDifferences() async throws {
        try await withClient([OVSDBMonitor("Port_Group", columns: ["name", "external_ids", "ports"])]) { client, server in
            #expect(await client.takeChanges().reset)
            let uuid = try #require(
                try await client.transact([
                    .insert(table: "Port_Group", row: ["name": OVSDBValue("g"), "external_ids": OVSDBValue(["k": "v"])])
                ])[0].uuid)
            let inserted = await client.takeChanges()
            #expect(!inserted.reset)
            #expect(inserted.changes.map(\.uuid) == [uuid])
            try await client.transact([
                .mutate(
                    table: "Port_Group", where: [.uuid(uuid)],
                    mutations: [
                        .delete("external_ids", OVSDBValue(strings: ["k"])), .insert("external_ids", OVSDBValue(["l": "w"])),
                    ])
            ])
            let modified = await client.takeChanges()
            #expect(
                modified.changes.map(\.kind) == [
                    .modified(["external_ids": .entries(set: [.string("l"): .string("w")], removed: [.string("k")])])
                ])
            try await client.transact([.delete(table: "Port_Group", where: [.uuid(uuid)])])
            #expect(await client.takeChanges().changes.map(\.kind) == [.deleted])
        }
    }

    @Test func withoutACopyDifferencesComeAsTheyAre() async throws {
        let monitors = [OVSDBMonitor("Port_Group", columns: ["name", "external_ids", "ports"])]
        try await withClient([]) { writer, server in
            let uuid = try #require(
                try await writer.transact([
                    .insert(table: "Port_Group", row: ["name": OVSDBValue("g"), "external_ids": OVSDBValue(["k": "v"])])
                ])[0].uuid)
            var configuration = OVSDBConfiguration(
                endpoints: [.unix(path: server.socket)], database: "OVN_Northbound", monitors: monitors)
            configuration.keepsCopy = false
            let client = OVSDBClient(configuration, ambient: Ambient(), logger: quiet())
            let running = Task { await client.run() }
            defer { running.cancel() }
            try await client.waitUntilConnected()
            let first = await client.takeChanges()
            #expect(first.reset)
            #expect(first.changes.map(\.uuid) == [uuid])
            #expect(await client.rows("Port_Group").isEmpty)
            try await client.transact([
                .update(table: "Port_Group", where: [.uuid(uuid)], row: ["name": OVSDBValue("h")]),
                .mutate(
                    table: "Port_Group", where: [.uuid(uuid)],
                    mutations: [
                        .delete("external_ids", OVSDBValue(strings: ["k"])), .insert("external_ids", OVSDBValue(["l": "w"])),
                    ]),
            ])
            let second = await client.takeChanges()
            #expect(!second.reset)
            // A deleted entry is reported with its old value.
            #expect(
                second.changes.map(\.kind) == [
                    .differing(["name": OVSDBValue("h"), "external_ids": OVSDBValue(["k": "v", "l": "w"])])
                ])
        }
    }

    /// A request at the moment at which the session fails does not hang.
    @Test(.timeLimit(.minutes(10))) func aClientThatIsCancelledWhileItConnectsEnds() async throws {
        try await withClient([]) { _, server in
            var configuration = OVSDBConfiguration(
                endpoints: [.unix(path: server.socket)], database: "OVN_Northbound", monitors: [OVSDBMonitor("Logical_Switch")],
                lock: "many")
            configuration.reconnectDelayMax = .milliseconds(200)
            for number in 0..<400 {
                let client = OVSDBClient(configuration, ambient: Ambient(), logger: quiet())
                let running = Task { await client.run() }
                try await SystemTime().sleep(for: .microseconds(number * 25))
                running.cancel()
                await running.value
            }
        }
    }

    @Test func reconnectsAndMonitorsAnew() async throws {
        try await withClient([OVSDBMonitor("Logical_Switch")]) { client, server in
            try await client.transact([.insert(table: "Logical_Switch", row: ["name": OVSDBValue("kept")])])
            _ = await client.takeChanges()
            server.kill()
            while await client.isConnected { try await SystemTime().sleep(for: .milliseconds(10)) }
            await #expect(throws: OVSDBError.notConnected) { try await client.transact([]) }
            // The last state stays readable.
            #expect(await client.rows("Logical_Switch").count == 1)
            try server.start()
            try await client.waitUntilConnected()
            let changes = await client.takeChanges()
            #expect(changes.reset)
            #expect(changes.changes.count == 1)
            try await client.transact([.insert(table: "Logical_Switch", row: ["name": OVSDBValue("new")])])
            #expect(await client.rows("Logical_Switch").count == 2)
        }
    }

    @Test func onlyTheLockHolderWrites() async throws {
        try await withClient([], lock: "wolke") { first, server in
            #expect(await first.holdsLock)
            let second = OVSDBClient(
                OVSDBConfiguration(
                    endpoints: [.unix(path: server.socket)], database: "OVN_Northbound", lock: "wolke"),
                ambient: Ambient(), logger: quiet())
            let task = Task { await second.run() }
            try await second.waitUntilConnected()
            #expect(await !second.holdsLock)
            let insert = OVSDBOperation.insert(table: "Logical_Switch", row: ["name": OVSDBValue("s")])
            try await first.transact([.assertLock("wolke"), insert])
            let error = await #expect(throws: OVSDBError.self) {
                try await second.transact([.assertLock("wolke"), insert])
            }
            #expect(error?.isPassing == true)
            task.cancel()
            await task.value
        }
    }

    @Test func manyRequestsAtOnce() async throws {
        try await withClient([OVSDBMonitor("Logical_Switch")]) { client, _ in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in 0..<200 {
                    group.addTask {
                        try await client.transact([
                            .insert(table: "Logical_Switch", row: ["name": OVSDBValue("s\(index)")])
                        ])
                    }
                }
                try await group.waitForAll()
            }
            #expect(await client.rows("Logical_Switch").count == 200)
        }
    }
}

@Suite struct OVSDBWireTests {
    @Test func framesSplitAnywhere() throws {
        let text = "{\"a\":\"}{\\\"\"}[1,{\"b\":[]}] {}"
        for size in 1...text.utf8.count {
            let channel = EmbeddedChannel(handler: ByteToMessageHandler(JSONFrameDecoder()))
            let bytes = Array(text.utf8)
            for start in stride(from: 0, to: bytes.count, by: size) {
                try channel.writeInbound(ByteBuffer(bytes: bytes[start..<min(start + size, bytes.count)]))
            }
            var frames: [String] = []
            while let frame = try channel.readInbound(as: ByteBuffer.self) { frames.append(String(buffer: frame)) }
            #expect(frames == ["{\"a\":\"}{\\\"\"}", "[1,{\"b\":[]}]", " {}"])
        }
    }

    @Test func valuesSurviveTheWire() throws {
        let uuid = UUID128(high: 1, low: 2)
        let values: [OVSDBValue] = [
            OVSDBValue("x"), OVSDBValue(7), OVSDBValue(true), OVSDBValue(uuid), .empty, OVSDBValue(strings: ["a", "b"]),
            OVSDBValue(["k": "v"]), OVSDBValue([:] as SmallMap<String, String>), .set([.namedUUID("n")]), .set([.real(1.5)]),
        ]
        for value in values {
            var writer = JSONWriter()
            value.write(to: &writer)
            #expect(try OVSDBValue(json: try JSONValue.parse(writer.bytes)) == value)
        }
        #expect(throws: OVSDBError.self) { try OVSDBValue(json: .null) }
        #expect(throws: OVSDBError.self) { try OVSDBValue(json: ["uuid", "nonsense"]) }
    }

    @Test func endpoints() throws {
        #expect(try OVSDBEndpoint("unix:/run/x.sock") == .unix(path: "/run/x.sock"))
        #expect(try OVSDBEndpoint("tcp:[::1]:6641") == .tcp(host: "::1", port: 6641))
        #expect(try OVSDBEndpoint.list("tcp:a:1, tcp:b:2").count == 2)
        #expect(try OVSDBEndpoint("ssl:[::1]:6641") == .tls(host: "::1", port: 6641))
        #expect(try OVSDBEndpoint("ssl:[::1]:6641").description == "ssl:[::1]:6641")
        for bad in ["", "unix:", "tcp:a", "tcp:a:0", "tls:a:1", "tcp::1"] {
            #expect(throws: OVSDBError.self) { try OVSDBEndpoint(bad) }
        }
    }
}
