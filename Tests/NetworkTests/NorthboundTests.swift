import Contracts
import Database
import Inspections
import JSON
import Kernel
import NetworkCore
import OVSDB
import Telemetry
import TestKit
import Testing

@testable import NetworkService

/// The API and the reconciler with real OVN databases.
struct NorthboundPlane {
    let cloud: NetworkHarness
    let northbound: PrivateOVSDB
    let southbound: PrivateOVSDB
    let observer: OVSDBClient
    let chassis: OVSDBClient
    let database: Database

    static func with(_ body: (NorthboundPlane) async throws -> Void) async throws {
        try await TestDatabase.with(connectionsMax: 8) { test in
            let northbound = try PrivateOVSDB(schema: "/usr/share/ovn/ovn-nb.ovsschema")
            let southbound = try PrivateOVSDB(schema: "/usr/share/ovn/ovn-sb.ovsschema")
            let log = Telemetry.logger(service: "test", level: "critical")
            let observer = OVSDBClient(
                OVSDBConfiguration(
                    endpoints: [.unix(path: northbound.socket)], database: "OVN_Northbound",
                    monitors: NorthboundConversion.monitors), ambient: Ambient(), logger: log)
            let chassis = OVSDBClient(
                OVSDBConfiguration(
                    endpoints: [.unix(path: southbound.socket)], database: "OVN_Southbound",
                    monitors: SouthboundFleet.monitors), ambient: Ambient(), logger: log)
            let plane = NorthboundPlane(
                cloud: try NetworkHarness(test.database), northbound: northbound, southbound: southbound,
                observer: observer, chassis: chassis, database: test.database)
            let reconciler = plane.reconciler(audit: .seconds(300))
            let running = Task {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    group.addTask { await observer.run() }
                    group.addTask { await chassis.run() }
                    group.addTask {
                        // OVSDB processes its clients in the order of their requests.
                        try await observer.waitUntilConnected()
                        try await reconciler.run()
                    }
                    try await group.waitForAll()
                }
            }
            defer { running.cancel() }
            do {
                try await chassis.waitUntilConnected()
                try await observer.waitUntilConnected()
                try await plane.addChassis("hv1")
                try await body(plane)
            } catch {
                try northbound.stop()
                try southbound.stop()
                throw error
            }
            try northbound.stop()
            try southbound.stop()
        }
    }

    func reconciler(audit: Duration) -> NorthboundReconciler {
        NorthboundReconciler(
            NorthboundConfiguration(
                northbound: [.unix(path: northbound.socket)], southbound: [.unix(path: southbound.socket)],
                auditInterval: audit), options: NetworkOptions(), database: database, ambient: Ambient(),
            log: Telemetry.logger(service: "test", level: "critical"), metrics: Metrics())
    }

    func addChassis(_ name: String) async throws {
        try await chassis.transact([
            .insert(
                table: "Encap",
                row: ["type": OVSDBValue("geneve"), "ip": OVSDBValue("127.0.0.1"), "chassis_name": OVSDBValue(name)], name: "encap"),
            .insert(
                table: "Chassis",
                row: [
                    "name": OVSDBValue(name), "hostname": OVSDBValue(name), "encaps": .set([.namedUUID("encap")]),
                    "other_config": OVSDBValue(["ovn-bridge-mappings": "physnet1:br-ex"]),
                ]),
        ])
    }

    /// Waits until `condition` is true for the rows of `table`.
    func until(
        _ table: NBTable, _ what: Comment, _ condition: ([OVSDBRow]) -> Bool, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        for _ in 0..<500 {
            if condition(Array(await observer.rows(table.rawValue).values)) { return }
            try await SystemTime().sleep(for: .milliseconds(20))
        }
        let rows = await observer.rows(table.rawValue).values
        Issue.record("\(what): \(Array(rows))", sourceLocation: sourceLocation)
    }

    /// Waits until a repair has been recorded.
    func untilRepaired(_ words: String, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        var entries: [Repairs.Entry] = []
        for _ in 0..<250 {
            entries = try await database.read { try Repairs.entries($0, since: Timestamp(microseconds: 0)) }
            if entries.contains(where: { $0.words.contains(words) }) { return }
            try await SystemTime().sleep(for: .milliseconds(20))
        }
        Issue.record("no repair says '\(words)': \(entries.map(\.words))", sourceLocation: sourceLocation)
    }

    /// The id of a new network with a subnet and one port.
    func networkWithPort() async throws -> String {
        let network = try await cloud.network()
        _ = try await cloud.subnet(network)
        _ = try await cloud.make("ports", "port", ["network_id": .string(network)])
        return network
    }

    func row(_ table: NBTable, named name: String) async -> (UUID128, OVSDBRow)? {
        await observer.rows(table.rawValue).first { $0.value["name"]?.string == name }.map { ($0.key, $0.value) }
    }

    /// The switches and groups with the ports in them, for comparison.
    func picture() async -> [String] {
        let ports = await observer.rows("Logical_Switch_Port")
        var lines = ports.values.map { row in
            "port \(row["name"]?.string ?? "") \(row["addresses"]?.strings.sorted() ?? []) \(row["port_security"]?.strings.sorted() ?? [])"
        }
        for table in ["Logical_Switch", "Port_Group"] {
            for row in await observer.rows(table).values {
                let members = (row["ports"]?.uuids ?? []).map { ports[$0]?["name"]?.string ?? "?" }.sorted()
                lines.append("\(table) \(row["name"]?.string ?? "") \(row["acls"]?.uuids.count ?? 0) \(members)")
            }
        }
        return lines.sorted()
    }

    func untilPicture(_ wanted: [String], sourceLocation: SourceLocation = #_sourceLocation) async throws {
        for _ in 0..<5000 where await picture() != wanted { try await SystemTime().sleep(for: .milliseconds(20)) }
        #expect(await picture() == wanted, sourceLocation: sourceLocation)
    }
}

/// Another client of OVN's northbound database, which damages rows.
private struct OtherClient: Sendable {
    let observer: OVSDBClient

    /// Damages a row of one of `ports`.
    func damage(_ ports: [String], _ random: SeededRandom) async throws {
        let name = ports[random.below(ports.count)]
        let groups = await observer.rows("Port_Group").keys.sorted()
        guard let place = await observer.rows("Logical_Switch").keys.first,
            let (port, row) = await observer.rows("Logical_Switch_Port").first(where: { $0.value["name"]?.string == name }),
            !groups.isEmpty
        else { return }
        let group = groups[random.below(groups.count)]
        let this = OVSDBValue.set([.uuid(port)])
        func copy(_ marks: OVSDBValue) -> [OVSDBOperation] {
            [
                .insert(
                    table: "Logical_Switch_Port",
                    row: ["name": OVSDBValue("copy-\(random.below(1 << 30))"), "external_ids": marks], name: "copy"),
                .mutate(
                    table: "Logical_Switch", where: [.uuid(place)], mutations: [.insert("ports", .set([.namedUUID("copy")]))]),
            ]
        }
        let operations: [OVSDBOperation] =
            switch random.below(6) {
            case 0: [.mutate(table: "Logical_Switch", where: [.uuid(place)], mutations: [.delete("ports", this)])]
            case 1: [.mutate(table: "Port_Group", where: [.uuid(group)], mutations: [.delete("ports", this)])]
            case 2: [.update(table: "Logical_Switch_Port", where: [.uuid(port)], row: ["addresses": OVSDBValue("unknown")])]
            case 3: copy(row["external_ids"] ?? .empty)
            case 4: copy(.map([:]))
            default: [.delete(table: "Port_Group", where: [.uuid(group)])]
            }
        // The row does not exist any more, so it cannot be damaged.
        do { try await observer.transact(operations) } catch OVSDBError.transaction { return }
    }
}

@Suite(.serialized) struct NorthboundTests {
    @Test func aServersNetworkAppearsInOVN() async throws {
        try await NorthboundPlane.with { plane in
            let cloud = plane.cloud
            let external = try await cloud.external()
            let network = try await cloud.network()
            let subnet = try await cloud.subnet(network, "10.0.0.0/24", ["dns_nameservers": ["9.9.9.9"]])
            let router = try await cloud.make(
                "routers", "router", ["external_gateway_info": ["network_id": .string(external)]])
            _ = try await cloud.call("PUT", "/routers/\(router.id)/add_router_interface", ["subnet_id": .string(subnet.id)])
            let port = try await cloud.make("ports", "port", ["network_id": .string(network)])
            _ = try await cloud.make(
                "floatingips", "floatingip", ["floating_network_id": .string(external), "port_id": .string(port.id)])
            try await plane.until(.nat, "snat and floating ip") { rows in
                Set(rows.compactMap { $0["type"]?.string }) == ["snat", "dnat_and_snat"]
            }
            try await plane.until(.gatewayChassis, "gateway chassis") { $0.first?["chassis_name"]?.string == "hv1" }
            let lsp = try #require(await plane.row(.logicalSwitchPort, named: port.id))
            #expect(lsp.1["addresses"]?.string == "\(port.text("mac_address")) 10.0.0.3")
            #expect(lsp.1["port_security"]?.strings == ["\(port.text("mac_address")) 10.0.0.3"])
            let dhcp = try #require(lsp.1["dhcpv4_options"]?.uuid)
            let options = await plane.observer.rows("DHCP_Options")[dhcp]?["options"]
            #expect(options?["router"] == "10.0.0.1")
            #expect(options?["dns_server"] == "{9.9.9.9}")
            #expect(options?["classless_static_route"]?.contains("169.254.169.254/32,10.0.0.2") == true)
            let ports = await plane.observer.rows("Logical_Switch_Port").values
            #expect(ports.contains { $0["type"]?.string == "localport" })
            #expect(ports.contains { $0["type"]?.string == "localnet" && $0["options"]?["network_name"] == "physnet1" })
            #expect(ports.count { $0["type"]?.string == "router" } == 2)
            let groups = await plane.observer.rows("Port_Group").values
            let own = groups.filter { $0["ports"]?.uuids.contains(lsp.0) ?? false }.compactMap { $0["name"]?.string }
            #expect(own.count == 1 && own != [Compiler.dropGroupName])
            let left = try await plane.database.read { try $0.query("SELECT count(*) AS n FROM northbound_changes")[0].int("n") }
            #expect(left <= 40)

            // And is removed again.
            _ = try await cloud.call("DELETE", "/ports/\(port.id)")
            try await plane.until(.logicalSwitchPort, "the port is gone") { !$0.contains { $0["name"]?.string == port.id } }
            try await plane.until(.nat, "its floating ip too") { $0.count == 1 }
        }
    }

    @Test func aPortIsActiveWhenOVNSaysSo() async throws {
        try await NorthboundPlane.with { plane in
            let cloud = plane.cloud
            let network = try await cloud.network()
            _ = try await cloud.subnet(network)
            let port = try await cloud.make("ports", "port", ["network_id": .string(network), "device_id": "server-1"])
            var wakes = plane.database.notifications(.wake).makeAsyncIterator()
            #expect(await wakes.next() == .resync)
            try await plane.until(.logicalSwitchPort, "the port") { $0.contains { $0["name"]?.string == port.id } }
            for (isUp, status) in [(true, "ACTIVE"), (false, "DOWN")] {
                try await plane.observer.transact([
                    .update(
                        table: "Logical_Switch_Port", where: [.equal("name", OVSDBValue(port.id))],
                        row: ["up": OVSDBValue(isUp)])
                ])
                #expect(await wakes.next() == Notification(channel: NotificationChannel.wake.name, payload: "server-1"))
                #expect(try await cloud.call("GET", "/ports/\(port.id)").json["port"]?.text("status") == status)
            }
        }
    }

    @Test func driftAndRestartsAreRepaired() async throws {
        try await NorthboundPlane.with { plane in
            let cloud = plane.cloud
            let network = try await cloud.network()
            _ = try await cloud.subnet(network)
            let port = try await cloud.make("ports", "port", ["network_id": .string(network)])
            try await plane.until(.logicalSwitchPort, "the ports") { $0.count == 2 }
            // Wiped by another client while the reconciler does not run.
            plane.northbound.kill()
            let changed = try await cloud.call("PUT", "/ports/\(port.id)", ["port": ["admin_state_up": false]])
            #expect(changed.status == 200)
            try plane.northbound.start()
            try await plane.observer.waitUntilConnected(timeout: .seconds(20))
            try await plane.observer.transact([
                .delete(table: "Port_Group", where: []), .delete(table: "DHCP_Options", where: []),
            ])
            try await plane.until(.logicalSwitchPort, "what changed meanwhile") {
                $0.contains { $0["name"]?.string == port.id && $0["enabled"]?.boolean == false }
            }
            // A new process compares everything when it acquires the lock.
            plane.northbound.kill()
            try plane.northbound.start()
            try await plane.observer.waitUntilConnected(timeout: .seconds(20))
            try await plane.until(.portGroup, "the groups are back") { $0.count == 2 }
            try await plane.until(.dhcpOptions, "the options are back") { $0.count == 1 }
            try await plane.until(.logicalSwitchPort, "and in use") { rows in
                rows.contains { $0["name"]?.string == port.id && $0["dhcpv4_options"]?.uuid != nil }
            }
        }
    }

    @Test func foreignChangesAreRevertedAtOnce() async throws {
        try await NorthboundPlane.with { plane in
            let cloud = plane.cloud
            let network = try await cloud.network()
            _ = try await cloud.subnet(network)
            let port = try await cloud.make(
                "ports", "port",
                [
                    "network_id": .string(network),
                    "extra_dhcp_opts": [["opt_name": "bootfile-name", "opt_value": "pxelinux.0"]],
                ])
            try await plane.until(.logicalSwitchPort, "the ports") { $0.count == 2 }
            try await plane.until(.dhcpOptions, "options of the subnet and of the port") { rows in
                rows.count == 2 && rows.contains { $0["options"]?["bootfile_name"] == "\"pxelinux.0\"" }
            }
            // The session is old: no audit is due for five minutes.
            try await plane.observer.transact([
                .update(
                    table: "Logical_Switch_Port", where: [.equal("name", OVSDBValue(port.id))],
                    row: ["addresses": OVSDBValue("unknown"), "port_security": .empty])
            ])
            try await plane.until(.logicalSwitchPort, "the addresses are back") { rows in
                rows.contains { $0["name"]?.string == port.id && $0["addresses"]?.string?.hasSuffix("10.0.0.3") == true }
            }
            try await plane.observer.transact([.delete(table: "Logical_Switch", where: [])])
            try await plane.until(.logicalSwitch, "the switch is back") { $0.count == 1 }
            try await plane.until(.logicalSwitchPort, "and its ports") { $0.count == 2 }
            func filled(_ rows: [OVSDBRow]) -> Bool { rows.count == 2 && rows.contains { $0["ports"]?.uuids.count == 1 } }
            try await plane.until(.portGroup, "and the port's place in its group", filled)
            try await plane.observer.transact([.delete(table: "Port_Group", where: [])])
            try await plane.until(.portGroup, "groups that are gone come back with their members", filled)
            for words in ["had another addresses", "logical switch \(network) was missing", "port group"] {
                try await plane.untilRepaired(words)
            }
        }
    }

    @Test func foreignRowsAreRemoved() async throws {
        try await NorthboundPlane.with { plane in
            let cloud = plane.cloud
            let network = try await cloud.network()
            _ = try await cloud.subnet(network)
            let port = try await cloud.make("ports", "port", ["network_id": .string(network)])
            try await plane.until(.logicalSwitchPort, "the ports") { $0.count == 2 }
            guard let (uuid, original) = await plane.row(.logicalSwitchPort, named: port.id),
                let (place, _) = await plane.observer.rows("Logical_Switch").first.map({ ($0.key, $0.value) }),
                let group = await plane.observer.rows("Port_Group").first(where: { !($0.value["ports"]?.uuids.isEmpty ?? true) })?.value
            else {
                Issue.record("rows are missing")
                return
            }
            _ = uuid
            // Copies with and without the control plane's marks.
            for (name, marks) in [("copy-marked", original["external_ids"] ?? .empty), ("copy-bare", .map([:]))] {
                try await plane.observer.transact([
                    .insert(
                        table: "Logical_Switch_Port",
                        row: ["name": OVSDBValue(name), "addresses": original["addresses"] ?? .empty, "external_ids": marks], name: "copy"),
                    .mutate(
                        table: "Logical_Switch", where: [.uuid(place)],
                        mutations: [.insert("ports", .set([.namedUUID("copy")]))]),
                ])
                try await plane.until(.logicalSwitchPort, "\(name) is gone") { rows in
                    rows.count == 2 && !rows.contains { $0["name"]?.string == name }
                }
                try await plane.untilRepaired("logical switch port \(name)")
            }
            try await plane.observer.transact([
                .insert(
                    table: "Port_Group",
                    row: [
                        "name": OVSDBValue("copy"), "ports": group["ports"] ?? .empty,
                        "external_ids": group["external_ids"] ?? .empty,
                    ], name: "copy")
            ])
            try await plane.until(.portGroup, "the copy of the group is gone") { rows in !rows.contains { $0["name"]?.string == "copy" } }
            try await plane.untilRepaired("port group copy was there and should not be")
        }
    }

    @Test func groupsThatGoWhileAPortIsOnItsWayComeBackWithIt() async throws {
        try await NorthboundPlane.with { plane in
            let network = try await plane.networkWithPort()
            func hold(_ count: Int) -> ([OVSDBRow]) -> Bool {
                { rows in rows.count == 2 && rows.contains { $0["ports"]?.uuids.count == count } }
            }
            try await plane.until(.portGroup, "one port is in the group", hold(1))
            let observer = plane.observer
            plane.northbound.pause()
            async let gone = observer.transact([.delete(table: "Port_Group", where: [])])
            _ = try await plane.cloud.make("ports", "port", ["network_id": .string(network)])
            // The control plane has also sent its change, and has not yet seen that the groups are gone.
            try await SystemTime().sleep(for: .milliseconds(500))
            plane.northbound.resume()
            _ = try await gone
            try await plane.until(.portGroup, "both ports are in the group", hold(2))
            try await plane.untilRepaired("port group")
        }
    }

    @Test func aCopyThatTakesTheOriginalsPlaceGetsItsName() async throws {
        try await NorthboundPlane.with { plane in
            _ = try await plane.networkWithPort()
            func isFilled(_ row: OVSDBRow) -> Bool { row["ports"]?.uuids.count == 1 }
            try await plane.until(.portGroup, "the port is in its group") { $0.contains(where: isFilled) }
            let before = await plane.picture()
            let group = try #require(await plane.observer.rows("Port_Group").values.first(where: isFilled))
            let name = group["name"]?.string ?? ""
            try await plane.observer.transact([
                .delete(table: "Port_Group", where: [.equal("name", OVSDBValue(name))]),
                .insert(
                    table: "Port_Group", row: ["name": OVSDBValue("copy"), "external_ids": group["external_ids"] ?? .empty], name: "copy"),
            ])
            try await plane.untilPicture(before)
            try await plane.untilRepaired("port group copy should be called \(name)")
        }
    }

    @Test(arguments: 1...4) func concurrentForeignChangesAreReverted(_ seed: UInt64) async throws {
        try await NorthboundPlane.with { plane in
            let cloud = plane.cloud
            let random = SeededRandom(seed: seed)
            let network = try await cloud.network()
            _ = try await cloud.subnet(network)
            let ports = try await cloud.call(
                "POST", "/ports", ["ports": .array(Array(repeating: ["network_id": .string(network)], count: 2))])
            let ids = ports.json["ports"]?.arrayValue?.map { $0.text("id") } ?? []
            #expect(ids.count == 2)
            try await plane.until(.portGroup, "both are in the group") { rows in rows.contains { $0["ports"]?.uuids.count == 2 } }
            let before = await plane.picture()
            let other = OtherClient(observer: plane.observer)
            // Changes by another client and by the control plane to the same rows, as close together as possible.
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    for number in 0..<80 {
                        let port = ids[number % ids.count]
                        _ = try await cloud.call("PUT", "/ports/\(port)", ["port": ["name": .string("n\(number)")]])
                    }
                }
                group.addTask { for _ in 0..<120 { try await other.damage(ids, random) } }
                try await group.waitForAll()
            }
            try await plane.untilPicture(before)
        }
    }

    @Test func anotherProcessTakesOver() async throws {
        try await NorthboundPlane.with { plane in
            // The first one has the lock; the second waits for it.
            let second = plane.reconciler(audit: .seconds(300))
            let running = Task { try await second.run() }
            defer { running.cancel() }
            let network = try await plane.cloud.network()
            try await plane.until(.logicalSwitch, "the switch") { $0.count == 1 }
            // The server lost its locks: either process may continue, but only one.
            plane.northbound.kill()
            _ = try await plane.cloud.subnet(network)
            try plane.northbound.start()
            try await plane.until(.dhcpOptions, "what changed meanwhile") { $0.count == 1 }
            let third = plane.reconciler(audit: .seconds(300))
            let late = Task { try await third.run() }
            late.cancel()
            _ = try? await late.value
            let port = try await plane.cloud.make("ports", "port", ["network_id": .string(network)])
            try await plane.until(.logicalSwitchPort, "and goes on") { rows in
                rows.count { $0["name"]?.string == port.id } == 1 && rows.count == 2
            }
        }
    }
}
