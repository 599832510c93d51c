import Contracts
import Database
import JSON
import Kernel
import Testing

@testable import NetworkService

/// The exchange between Network and the hosts about ports.
@Suite struct HostPortTests {
    private static let server = "55555555-5555-4555-8555-555555555555"

    /// A port of a server on the host.
    private func boundPort(_ cloud: NetworkHarness, _ network: String, host: String = "hv1") async throws -> String {
        try await cloud.make(
            "ports", "port", as: "admin",
            [
                "network_id": .string(network), "project_id": "p1", "device_id": .string(HostPortTests.server),
                "device_owner": "compute:nova", "binding:host_id": .string(host), "security_groups": [],
            ]
        ).id
    }

    /// The servers reported to Compute since the last call.
    private func told(_ cloud: NetworkHarness) async throws -> [JSONValue] {
        try await cloud.database.write { connection in
            try connection.query("DELETE FROM outbox WHERE queue = \(MessageQueue.computeAgents.name) RETURNING body").flatMap {
                let body = try $0.json("body")
                #expect(body["type"] == "ports_changed")
                return body["servers"]?.arrayValue ?? []
            }
        }
    }

    @Test("S15: the host is notified of changes of port security and of addresses")
    func s15HostsHearOfChangedPorts() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            _ = try await cloud.subnet(network)
            let port = try await boundPort(cloud, network)
            let server = JSONValue.string(HostPortTests.server)
            #expect(try await told(cloud) == [])
            func put(_ change: JSONObject) async throws {
                let answer = try await cloud.call("PUT", "/ports/\(port)", as: "admin", ["port": .object(change)])
                #expect(answer.status == 200, "\(answer.json)")
            }
            func changes() async throws -> [Int] {
                try await cloud.database.read { connection in
                    try connection.query("SELECT number FROM published_port_changes WHERE port_id = \(port)").map { try $0.int("number") }
                }
            }
            try await put(["port_security_enabled": false])
            #expect(try await told(cloud) == [server])
            #expect(try await changes() == [1])
            // The change does not affect the host.
            try await put(["port_security_enabled": false, "name": "other", "binding:profile": [:]])
            #expect(try await told(cloud) == [])
            #expect(try await changes() == [1])
            try await put(["fixed_ips": [["ip_address": "10.0.0.77"]]])
            #expect(try await told(cloud) == [server])
            // Compute finds the change by its number if the message is lost.
            #expect(try await changes() == [2])
            // The metadata port's address has changed.
            let second = try await cloud.subnet(network, "10.0.1.0/24")
            #expect(try await told(cloud) == [server])
            #expect(try await cloud.call("DELETE", "/subnets/\(second.id)").status == 204)
            #expect(try await told(cloud) == [server])
            // A port without a host concerns no host.
            try await put(["binding:host_id": ""])
            try await put(["port_security_enabled": true])
            #expect(try await told(cloud) == [])
        }
    }

    @Test("S15: the host is notified of changes of a subnet that its guests see in their metadata")
    func s15HostsHearOfChangedSubnets() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            let subnet = try await cloud.subnet(network).id
            let other = try await cloud.network()
            let elsewhere = try await cloud.subnet(other, "10.9.0.0/24").id
            _ = try await boundPort(cloud, network)
            _ = try await told(cloud)
            func put(_ id: String, _ change: JSONObject) async throws -> [JSONValue] {
                let answer = try await cloud.call("PUT", "/subnets/\(id)", ["subnet": .object(change)])
                #expect(answer.status == 200, "\(answer.json)")
                return try await told(cloud)
            }
            let server = JSONValue.string(HostPortTests.server)
            #expect(try await put(subnet, ["dns_nameservers": ["192.0.2.53"]]) == [server])
            #expect(try await put(subnet, ["gateway_ip": nil]) == [server])
            #expect(try await put(subnet, ["gateway_ip": "10.0.0.1"]) == [server])
            #expect(try await put(subnet, ["enable_dhcp": false]).contains(server))
            // Nothing that the guests see has changed, or only in another subnet.
            #expect(try await put(subnet, ["name": "other", "dns_nameservers": ["192.0.2.53"], "enable_dhcp": false]) == [])
            #expect(try await put(elsewhere, ["dns_nameservers": ["192.0.2.53"]]) == [])
        }
    }

    /// Otherwise the guest would lose its network: it keeps its address, and port security and DHCP go by the port's.
    @Test("S15: the hardware address of a port on a host stays, as in Neutron") func s15HardwareAddressesOfBoundPorts() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            let port = try await boundPort(cloud, network)
            let old = try await cloud.call("GET", "/ports/\(port)", as: "admin").json["port"]?["mac_address"] ?? .null
            func put(_ change: JSONObject) async throws -> (Int, JSONValue) {
                let answer = try await cloud.call("PUT", "/ports/\(port)", as: "admin", ["port": .object(change)])
                return (answer.status, answer.json)
            }
            let new: JSONValue = "fa:16:3e:99:99:99"
            let (status, body) = try await put(["mac_address": new])
            #expect(status == 409 && body["NeutronError"]?["type"] == "PortBound", "\(body)")
            #expect(try await put(["mac_address": old, "name": "same"]).0 == 200)
            #expect(try await put(["binding:host_id": ""]).0 == 200)
            #expect(try await put(["mac_address": new]).1["port"]?["mac_address"] == new)
        }
    }

    @Test("S15: the host is notified of a changed MTU of a network") func s15HostsHearOfChangedMTUs() async throws {
        try await NetworkHarness.with { cloud in
            let (network, other) = (try await cloud.network(), try await cloud.network())
            _ = try await boundPort(cloud, network)
            _ = try await told(cloud)
            func put(_ id: String, _ change: JSONObject) async throws -> [JSONValue] {
                let answer = try await cloud.call("PUT", "/networks/\(id)", ["network": .object(change)])
                #expect(answer.status == 200, "\(answer.json)")
                return try await told(cloud)
            }
            #expect(try await put(network, ["mtu": 1300]) == [.string(HostPortTests.server)])
            #expect(try await put(network, ["mtu": 1300, "name": "same"]) == [])
            #expect(try await put(other, ["mtu": 1300]) == [])
        }
    }

    @Test func theDatapathIsTheHosts() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network()
            try await cloud.database.write { connection in
                for (host, datapath) in [("hv1", "system"), ("hv2", "netdev")] {
                    try connection.execute(
                        """
                        INSERT INTO compute_services (id, host, enabled, availability_zone, created_at, updated_at)
                        VALUES (gen_random_uuid(), \(host), true, 'nova', now(), now())
                        """)
                    let capabilities: JSONValue = ["datapath_type": .string(datapath)]
                    try connection.execute(
                        """
                        INSERT INTO hypervisors (id, host, hypervisor_type, hypervisor_version, virt_type, vcpus, memory_mb, disk_gb,
                            capabilities, updated_at)
                        VALUES (gen_random_uuid(), \(host), 'QEMU', 1, 'kvm', 1, 1, 1, \(capabilities)::jsonb, now())
                        """)
                }
            }
            // No agent has reported the third one.
            let known: [(String, JSONValue?)] = [("hv1", "system"), ("hv2", "netdev"), ("hv3", Optional.none)]
            for (host, datapath) in known {
                let port = try await boundPort(cloud, network, host: host)
                let details = try await cloud.call("GET", "/ports/\(port)", as: "admin").json["port"]?["binding:vif_details"]
                #expect(details?["datapath_type"] == datapath && details?["connectivity"] == "l2", "\(details ?? .null)")
                #expect(details?["bound_drivers"] == ["0": "ovn"])
                let listed = try await cloud.call("GET", "/ports?id=\(port)", as: "admin").json["ports"]?[0]
                #expect(listed?["binding:vif_details"] == details)
            }
        }
    }
}
