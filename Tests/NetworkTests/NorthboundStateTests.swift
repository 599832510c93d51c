import Database
import Inspections
import JSON
import Kernel
import NetworkCore
import OVSDB
import Testing

@testable import NetworkService

/// The parts of a port's row that come from other ports and from its network.
@Suite(.serialized) struct NorthboundStateTests {
    @Test func aSharedAddressFollowsTheAddressPairs() async throws {
        try await NorthboundPlane.with { plane in
            let cloud = plane.cloud
            let network = try await cloud.network()
            _ = try await cloud.subnet(network)
            let shared = try await cloud.make("ports", "port", ["network_id": .string(network)])
            let address = try #require(shared["fixed_ips"]?.arrayValue?.first?["ip_address"]?.stringValue)
            func until(_ type: String, _ parents: [String], sourceLocation: SourceLocation = #_sourceLocation) async throws {
                try await plane.until(
                    .logicalSwitchPort, "\(type) with \(parents)",
                    { rows in
                        rows.contains {
                            $0["name"]?.string == shared.id && ($0["type"]?.string ?? "") == type
                                && ($0["options"]?["virtual-parents"] ?? "") == parents.sorted().joined(separator: ",")
                        }
                    }, sourceLocation: sourceLocation)
            }
            try await until("", [])
            let pairs: JSONValue = [["ip_address": .string(address)]]
            let first = try await cloud.make("ports", "port", ["network_id": .string(network), "allowed_address_pairs": pairs])
            try await until("virtual", [first.id])
            let second = try await cloud.make("ports", "port", ["network_id": .string(network)])
            _ = try await cloud.call("PUT", "/ports/\(second.id)", ["port": ["allowed_address_pairs": pairs]])
            try await until("virtual", [first.id, second.id])
            _ = try await cloud.call("DELETE", "/ports/\(first.id)")
            try await until("virtual", [second.id])
            _ = try await cloud.call("PUT", "/ports/\(second.id)", ["port": ["allowed_address_pairs": []]])
            try await until("", [])
            // A full comparison finds nothing to repair after the changes were followed.
            let repairs = try await plane.database.read { try Repairs.entries($0, since: Timestamp(microseconds: 0)) }
            #expect(repairs.isEmpty)
        }
    }

    @Test func disabledPortsAreDown() async throws {
        try await NorthboundPlane.with { plane in
            let cloud = plane.cloud
            let network = try await cloud.network()
            _ = try await cloud.subnet(network)
            let port = try await cloud.make("ports", "port", ["network_id": .string(network), "device_id": "server-1"])
            try await plane.until(.logicalSwitchPort, "the port") { $0.contains { $0["name"]?.string == port.id } }
            try await plane.observer.transact([
                .update(
                    table: "Logical_Switch_Port", where: [.equal("name", OVSDBValue(port.id))], row: ["up": OVSDBValue(true)])
            ])
            func untilStatus(_ status: String, sourceLocation: SourceLocation = #_sourceLocation) async throws {
                var shown: String?
                for _ in 0..<2500 where shown != status {
                    shown = try await cloud.call("GET", "/ports/\(port.id)").json["port"]?.text("status")
                    try await SystemTime().sleep(for: .milliseconds(20))
                }
                #expect(shown == status, sourceLocation: sourceLocation)
            }
            func enabled(_ isEnabled: Bool) async throws {
                try await plane.until(.logicalSwitchPort, "enabled: \(isEnabled)") { rows in
                    rows.filter { $0["name"]?.string == port.id }.allSatisfy { ($0["enabled"]?.boolean ?? true) == isEnabled }
                }
            }
            try await untilStatus("ACTIVE")
            for (kind, id, member) in [("ports", port.id, "port"), ("networks", network, "network")] {
                _ = try await cloud.call("PUT", "/\(kind)/\(id)", .object([member: ["admin_state_up": false]]))
                try await enabled(false)
                try await untilStatus("DOWN")
                _ = try await cloud.call("PUT", "/\(kind)/\(id)", .object([member: ["admin_state_up": true]]))
                try await enabled(true)
                try await untilStatus("ACTIVE")
            }
        }
    }
}
