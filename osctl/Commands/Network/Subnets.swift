import ArgumentParser
import Client
import JSON
import Kernel
import ServiceCatalog

enum Subnets: Creatable, Settable {
    static let kind = Kind(
        command: ["subnet"], noun: "subnet", service: .network, path: "/subnets", member: "subnet", collection: "subnets",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Network", "network_id"), OutputColumn("Range", "cidr"),
            OutputColumn("Gateway", "gateway_ip"), OutputColumn("DHCP", "enable_dhcp"),
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self,
    ]

    struct Filters: FilterArguments {
        @Option(help: ArgumentHelp("Only of this network.", valueName: "network")) var network: String?

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            guard let network else { return [] }
            return [("network_id", try await api.id(Networks.kind, network))]
        }
    }

    /// `FIRST-LAST`, or `start=FIRST,end=LAST` as in other clients.
    struct AddressRange: ExpressibleByArgument {
        let json: JSONValue

        init?(argument: String) {
            let ends: [String]
            if let list = AssignmentList(argument: argument), let start = list.values["start"], let end = list.values["end"] {
                ends = [start, end]
            } else {
                ends = argument.split(separator: "-").map(String.init)
            }
            guard ends.count == 2, IPAddress(ends[0]) != nil, IPAddress(ends[1]) != nil else { return nil }
            json = ["start": .string(ends[0]), "end": .string(ends[1])]
        }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The subnet's name.") var name: String
        @Option(help: ArgumentHelp("The network.", valueName: "network")) var network: String
        @Option(name: [.long, .customLong("range")], help: ArgumentHelp("Its addresses, such as 10.0.0.0/24.", valueName: "cidr"))
        var subnetRange: String
        @Option(help: ArgumentHelp("The gateway's address, or none; by default the first address.", valueName: "address")) var gateway:
            String?
        @Option(help: ArgumentHelp("A name server (repeatable).", valueName: "address")) var dnsNameserver: [String] = []
        @Option(help: ArgumentHelp("An allocation pool (repeatable).", valueName: "first-last")) var allocationPool: [AddressRange] = []
        @Option(help: ArgumentHelp("A host route, as destination=CIDR,gateway=ADDRESS (repeatable).", valueName: "route"))
        var hostRoute: [AssignmentList] = []
        @Flag(help: "Disable DHCP.") var noDhcp = false
        @Option(help: "4 or 6; by default derived from the range.") var ipVersion: Int?
        @Option(help: "slaac, dhcpv6-stateful or dhcpv6-stateless.") var ipv6AddressMode: String?
        @Option(help: "slaac, dhcpv6-stateful or dhcpv6-stateless.") var ipv6RaMode: String?
        @Option(help: "A description.") var description: String?

        func members(_ api: CloudAPI) async throws -> JSONObject {
            let version = ipVersion ?? (subnetRange.contains(":") ? 6 : 4)
            var members: JSONObject = [
                "name": .string(name), "network_id": .string(try await api.id(Networks.kind, network)),
                "cidr": .string(subnetRange), "ip_version": JSONValue(version), "enable_dhcp": .bool(!noDhcp),
            ]
            if let gateway { members["gateway_ip"] = gateway == "none" ? .null : .string(gateway) }
            if !dnsNameserver.isEmpty { members["dns_nameservers"] = JSONValue(dnsNameserver) }
            if !allocationPool.isEmpty { members["allocation_pools"] = .array(allocationPool.map(\.json)) }
            if !hostRoute.isEmpty {
                members["host_routes"] = .array(
                    try hostRoute.map { route in
                        try route.check("--host-route", ["destination", "gateway"])
                        return ["destination": JSONValue(route.values["destination"]), "nexthop": JSONValue(route.values["gateway"])]
                    })
            }
            members.put("ipv6_address_mode", ipv6AddressMode)
            members.put("ipv6_ra_mode", ipv6RaMode)
            members.put("description", description)
            return members
        }
    }

    struct SetOptions: SetArguments {
        @Option(name: .customLong("name"), help: "New name.") var newName: String?
        @Option(help: "New description.") var description: String?
        @Option(help: ArgumentHelp("New gateway, or none.", valueName: "address")) var gateway: String?
        @Option(help: ArgumentHelp("Name servers that replace the present ones (repeatable).", valueName: "address")) var dnsNameserver:
            [String] = []
        @Flag(help: "No name servers.") var noDnsNameservers = false
        @Flag(inversion: .prefixedNo, help: "Enable or disable DHCP.") var dhcp: Bool?

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = JSONObject()
            changes.put("name", newName)
            changes.put("description", description)
            if let gateway { changes["gateway_ip"] = gateway == "none" ? .null : .string(gateway) }
            if !dnsNameserver.isEmpty || noDnsNameservers { changes["dns_nameservers"] = JSONValue(dnsNameserver) }
            changes.put("enable_dhcp", dhcp)
            return changes
        }
    }
}
