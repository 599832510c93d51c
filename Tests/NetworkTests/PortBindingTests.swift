import Database
import JSON
import Kernel
import Testing

@testable import NetworkCore
@testable import NetworkService

/// Ports of servers that move between hosts.
@Suite struct PortBindingTests {
    private static func port(_ host: String, _ others: [Port.Binding]) throws -> Port {
        let id = try #require(UUID128("11111111-1111-4111-8111-111111111111"))
        var port = Port(id: id, networkID: id, projectID: "p1", mac: MACAddress(value: 0xfa16_3e00_0001))
        (port.host, port.otherBindings) = (host, others)
        return port
    }

    @Test func bothChassisAreAskedForWhileTheServerMoves() throws {
        #expect(try PortBindingTests.port("h1", []).chassisOptions == nil)
        #expect(
            try PortBindingTests.port("h1", [.init(host: "h2", isExpected: true)]).chassisOptions == [
                "requested-chassis": "h1,h2", "activation-strategy": "rarp",
            ])
        // The earlier host still has the interface, and must not take the port back.
        #expect(
            try PortBindingTests.port("h2", [.init(host: "h1", isExpected: false)]).chassisOptions == ["requested-chassis": "h2"])
        #expect(try PortBindingTests.port("", [.init(host: "h2", isExpected: true)]).chassisOptions == nil)
    }

    @Test func aBindingIsMadeActivatedAndDeleted() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.make("networks", "network", as: "admin", ["name": "net"])
            let port = try await cloud.make(
                "ports", "port", as: "admin", ["network_id": .string(network.id), "binding:host_id": "h1"])
            let path = "/ports/\(port.id)/bindings"
            func states() async throws -> [String] {
                let list = try await cloud.call("GET", path, as: "admin").json["bindings"]?.arrayValue ?? []
                return list.map { "\($0["host"]?.stringValue ?? "") \($0["status"]?.stringValue ?? "")" }
            }
            #expect(try await states() == ["h1 ACTIVE"])
            let creation = try await cloud.call("POST", path, as: "admin", ["binding": ["host": "h2"]])
            #expect(creation.status == 201 && creation.json["binding"]?["status"] == "INACTIVE", "\(creation.json)")
            #expect(try await states() == ["h1 ACTIVE", "h2 INACTIVE"])
            for host in ["h1", "h2"] {
                #expect(try await cloud.call("POST", path, as: "admin", ["binding": ["host": .string(host)]]).status == 409)
            }
            #expect(try await cloud.call("POST", path, as: "admin", ["binding": ["host": ""]]).status == 400)
            #expect(try await cloud.call("DELETE", "\(path)/h1", as: "admin").status == 409)
            #expect(try await cloud.call("PUT", "\(path)/h3/activate", as: "admin").status == 404)
            let changes = try await cloud.database.read { try $0.query("SELECT count(*) AS count FROM northbound_changes")[0].int("count") }
            #expect(try await cloud.call("PUT", "\(path)/h2/activate", as: "admin").json["binding"]?["status"] == "ACTIVE")
            let later = try await cloud.database.read { try $0.query("SELECT count(*) AS count FROM northbound_changes")[0].int("count") }
            #expect(later > changes, "OVN must be told")
            #expect(try await states() == ["h2 ACTIVE", "h1 INACTIVE"])
            #expect(try await cloud.call("GET", "/ports/\(port.id)", as: "admin").json["port"]?["binding:host_id"] == "h2")
            #expect(try await cloud.call("PUT", "\(path)/h2/activate", as: "admin").status == 409)
            #expect(try await cloud.call("DELETE", "\(path)/h1", as: "admin").status == 204)
            #expect(try await cloud.call("DELETE", "\(path)/h1", as: "admin").status == 404)
            #expect(try await states() == ["h2 ACTIVE"])
            // A port that is detached from its server during a move.
            #expect(try await cloud.call("POST", path, as: "admin", ["binding": ["host": "h3"]]).status == 201)
            let left = try await cloud.call("PUT", "/ports/\(port.id)", as: "admin", ["port": ["binding:host_id": ""]])
            #expect(left.status == 200, "\(left.json)")
            #expect(try await states() == [])
        }
    }

    @Test func tenantsHaveNoBindings() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.make("networks", "network", ["name": "net"])
            let port = try await cloud.make("ports", "port", ["network_id": .string(network.id)])
            let path = "/ports/\(port.id)/bindings"
            #expect(try await cloud.call("GET", path).status == 403)
            #expect(try await cloud.call("POST", path, ["binding": ["host": "h2"]]).status == 403)
            // An unbound port can only be bound with binding:host_id.
            #expect(try await cloud.call("POST", path, as: "admin", ["binding": ["host": "h2"]]).status == 409)
        }
    }
}
