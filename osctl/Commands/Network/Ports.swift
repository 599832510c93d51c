import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum Ports: Creatable, Settable {
    static let kind = Kind(
        command: ["port"], noun: "port", service: .network, path: "/ports", member: "port", collection: "ports",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("MAC", "mac_address"),
            OutputColumn("Addresses", "fixed_ips") { addresses($0) }, OutputColumn("Status", "status"),
            OutputColumn("Owner", "device_owner"),
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self,
    ]

    static func addresses(_ port: JSONValue) -> String {
        (port["fixed_ips"]?.arrayValue ?? []).compactMap { $0["ip_address"]?.stringValue }.joined(separator: ", ")
    }

    struct Filters: FilterArguments {
        @Option(help: ArgumentHelp("Only of this network.", valueName: "network")) var network: String?
        @Option(help: ArgumentHelp("Only of this server.", valueName: "server")) var server: String?
        @Option(help: ArgumentHelp("Only of this router.", valueName: "router")) var router: String?

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            var query: [(String, String)] = []
            if let network { query.append(("network_id", try await api.id(Networks.kind, network))) }
            if let server { query.append(("device_id", try await api.id(Servers.kind, server))) }
            if let router { query.append(("device_id", try await api.id(Routers.kind, router))) }
            return query
        }
    }

    /// The `fixed_ips` of `subnet=NAME,ip-address=ADDRESS` options.
    static func fixedIPs(_ options: [AssignmentList], _ api: CloudAPI) async throws -> JSONValue {
        var list: [JSONValue] = []
        for option in options {
            try option.check("--fixed-ip", ["subnet", "ip-address"])
            var address = JSONObject()
            if let subnet = option.values["subnet"] { address["subnet_id"] = .string(try await api.id(Subnets.kind, subnet)) }
            address.put("ip_address", option.values["ip-address"])
            list.append(.object(address))
        }
        return .array(list)
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The port's name.") var name: String
        @Option(help: ArgumentHelp("The network.", valueName: "network")) var network: String
        @Option(help: ArgumentHelp("An address as subnet=NAME,ip-address=ADDRESS, or one of the two (repeatable).", valueName: "address"))
        var fixedIp: [AssignmentList] = []
        @Option(help: ArgumentHelp("A security group (repeatable); by default the project's default group.", valueName: "group"))
        var securityGroup: [String] = []
        @Flag(help: "No security groups.") var noSecurityGroup = false
        @Flag(help: "Disable port security.") var disablePortSecurity = false
        @Option(help: ArgumentHelp("The hardware address.", valueName: "address")) var macAddress: String?
        @Option(help: "A description.") var description: String?

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name), "network_id": .string(try await api.id(Networks.kind, network))]
            if !fixedIp.isEmpty { members["fixed_ips"] = try await Ports.fixedIPs(fixedIp, api) }
            if !securityGroup.isEmpty || noSecurityGroup {
                members["security_groups"] = JSONValue(try await api.ids(SecurityGroups.kind, securityGroup))
            }
            if disablePortSecurity { members["port_security_enabled"] = false }
            members.put("mac_address", macAddress)
            members.put("description", description)
            return members
        }
    }

    struct SetOptions: SetArguments {
        @Option(name: .customLong("name"), help: "New name.") var newName: String?
        @Option(help: "New description.") var description: String?
        @Flag(inversion: .prefixedEnableDisable, help: "Enable or disable it.") var state: Bool?
        @Option(help: ArgumentHelp("Addresses that replace the present ones (repeatable).", valueName: "address")) var fixedIp:
            [AssignmentList] = []
        @Option(help: ArgumentHelp("Security groups that replace the present ones (repeatable).", valueName: "group")) var securityGroup:
            [String] = []
        @Flag(help: "No security groups.") var noSecurityGroup = false
        @Flag(name: .customLong("port-security"), inversion: .prefixedEnableDisable, help: "Enable or disable port security.")
        var portSecurity: Bool?

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = JSONObject()
            changes.put("name", newName)
            changes.put("description", description)
            changes.put("admin_state_up", state)
            if !fixedIp.isEmpty { changes["fixed_ips"] = try await Ports.fixedIPs(fixedIp, api) }
            if !securityGroup.isEmpty || noSecurityGroup {
                changes["security_groups"] = JSONValue(try await api.ids(SecurityGroups.kind, securityGroup))
            }
            changes.put("port_security_enabled", portSecurity)
            return changes
        }
    }
}
