package import JSON
import Kernel

/// The `network_data.json` of a server's ports: links, networks and name servers as OpenStack defines them.
package enum NetworkData {
    /// The whole document for a server with these ports.
    package static func document(_ ports: [DesiredPort]) -> JSONObject {
        var links: [JSONValue] = []
        var networks: [JSONValue] = []
        for port in ports {
            links.append([
                "id": .string(port.tapName), "vif_id": .string(port.id), "type": "ovs",
                "mtu": JSONValue(port.mtu), "ethernet_mac_address": .string(port.mac.description),
            ])
            for fixed in port.fixedIPs {
                networks.append(network(fixed, port, number: networks.count))
            }
        }
        return ["links": .array(links), "networks": .array(networks), "services": []]
    }

    private static func network(_ fixed: DesiredAddress, _ port: DesiredPort, number: Int) -> JSONValue {
        let isV4 = fixed.address.version == .v4
        var document: JSONObject = [
            "id": .string("network\(number)"), "type": .string(isV4 ? "ipv4_dhcp" : "ipv6_dhcpv6-stateful"),
            "link": .string(port.tapName), "network_id": .string(port.networkID),
        ]
        if !isV4 {
            document["type"] = "ipv6"
            document["ip_address"] = .string("\(fixed.address)/\(fixed.cidr.prefixLength)")
            document["routes"] = .array(
                fixed.gateway.map { [["network": "::", "netmask": "::", "gateway": .string($0.description)]] } ?? [])
        }
        return .object(document)
    }
}
