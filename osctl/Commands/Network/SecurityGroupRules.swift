import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum SecurityGroupRules: Creatable {
    static let kind = Kind(
        command: ["security-group", "rule"], noun: "security group rule", service: .network,
        path: "/security-group-rules", member: "security_group_rule", collection: "security_group_rules", naming: .none,
        nameField: "id",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Direction", "direction"), OutputColumn("Type", "ethertype"),
            OutputColumn("Protocol", "protocol") { $0["protocol"]?.stringValue ?? "any" },
            OutputColumn("Ports", "port_range_min") { ports($0) },
            OutputColumn("Remote", "remote_ip_prefix") { remote($0) }, OutputColumn("Group", "security_group_id"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Create<Self>.self, Delete<Self>.self]
    static let abstract = "Rules of security groups."

    static func ports(_ rule: JSONValue) -> String {
        guard let first = rule["port_range_min"]?.intValue else { return "any" }
        let last = rule["port_range_max"]?.intValue ?? first
        return first == last ? "\(first)" : "\(first):\(last)"
    }

    static func remote(_ rule: JSONValue) -> String {
        rule["remote_ip_prefix"]?.stringValue ?? rule["remote_group_id"]?.stringValue.map { "group " + $0 } ?? "any"
    }

    /// A rule in one line.
    static func sentence(_ rule: JSONValue) -> String {
        let way = rule["direction"]?.stringValue ?? ""
        let ports = ports(rule)
        return "\(way) \(rule["ethertype"]?.stringValue ?? "") \(rule["protocol"]?.stringValue ?? "any")"
            + (ports == "any" ? "" : " \(ports)") + (way == "egress" ? " to " : " from ") + remote(rule)
    }

    struct Filters: FilterArguments {
        @Argument(help: "Only of this group.") var group: String?
        @Option(help: "ingress or egress.") var direction: String?

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            var query: [(String, String)] = []
            if let group { query.append(("security_group_id", try await api.id(SecurityGroups.kind, group))) }
            if let direction { query.append(("direction", direction)) }
            return query
        }
    }

    /// `22`, or `8000:8100`.
    struct PortRange: ExpressibleByArgument {
        let first: Int
        let last: Int

        init?(argument: String) {
            let parts = argument.split(separator: ":", omittingEmptySubsequences: false).map { Int($0) }
            guard (1...2).contains(parts.count), let first = parts[0], let last = parts[parts.count - 1], first <= last else { return nil }
            self.first = first
            self.last = last
        }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The group.") var group: String
        @Option(name: [.long], help: ArgumentHelp("tcp, udp, icmp, a number, or any.", valueName: "protocol")) var `protocol` = "tcp"
        @Option(help: ArgumentHelp("A port, or a range such as 8000:8100.", valueName: "port")) var dstPort: PortRange?
        @Option(help: ArgumentHelp("The ICMP type.", valueName: "number")) var icmpType: Int?
        @Option(help: ArgumentHelp("The ICMP code.", valueName: "number")) var icmpCode: Int?
        @Option(help: ArgumentHelp("The remote addresses.", valueName: "cidr")) var remoteIp: String?
        @Option(help: ArgumentHelp("The remote security group.", valueName: "group")) var remoteGroup: String?
        @Flag(help: "For outgoing traffic; the default is incoming.") var egress = false
        @Option(help: "IPv4 or IPv6; by default derived from --remote-ip.") var ethertype: String?
        @Option(help: "A description.") var description: String?

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = [
                "security_group_id": .string(try await api.id(SecurityGroups.kind, group)),
                "direction": egress ? "egress" : "ingress",
                "ethertype": .string(ethertype ?? (remoteIp?.contains(":") == true ? "IPv6" : "IPv4")),
            ]
            if self.protocol != "any" { members["protocol"] = .string(self.protocol) }
            members.put("port_range_min", dstPort?.first ?? icmpType)
            members.put("port_range_max", dstPort?.last ?? icmpCode)
            members.put("remote_ip_prefix", remoteIp)
            if let remoteGroup { members["remote_group_id"] = .string(try await api.id(SecurityGroups.kind, remoteGroup)) }
            members.put("description", description)
            return members
        }
    }
}
