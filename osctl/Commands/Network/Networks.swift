import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum Networks: Creatable, Settable {
    static let kind = Kind(
        command: ["network"], noun: "network", service: .network, path: "/networks", member: "network",
        collection: "networks",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Status", "status"), OutputColumn("Subnets", "subnets"),
            OutputColumn("External", "router:external"), OutputColumn("Shared", "shared"),
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self,
    ]

    struct Filters: FilterArguments {
        @Flag(help: "Only external networks, which routers can use as gateway.") var external = false
        @Flag(help: "Only networks shared by all projects.") var share = false
        @Option(help: "By name.") var name: String?

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            var query: [(String, String)] = []
            if external { query.append(("router:external", "true")) }
            if share { query.append(("shared", "true")) }
            if let name { query.append(("name", name)) }
            return query
        }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The network's name.") var name: String
        @Option(help: "A description.") var description: String?
        @Option(help: "Largest packet, in bytes.") var mtu: Int?
        @Flag(help: "Let all projects use it.") var share = false
        @Flag(help: "Routers can use it as gateway.") var external = false
        @Flag(help: "Create it disabled.") var disable = false
        @Flag(help: "Disable port security of its ports by default.") var noPortSecurity = false
        @Option(help: ArgumentHelp("flat, vlan or geneve.", valueName: "type")) var providerNetworkType: String?
        @Option(help: ArgumentHelp("The physical network.", valueName: "name")) var providerPhysicalNetwork: String?
        @Option(help: ArgumentHelp("VLAN or tunnel id.", valueName: "id")) var providerSegment: Int?
        @Option(help: ArgumentHelp("Owning project.", valueName: "project")) var project: String?

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name), "admin_state_up": .bool(!disable)]
            members.put("description", description)
            members.put("mtu", mtu)
            if share { members["shared"] = true }
            if external { members["router:external"] = true }
            if noPortSecurity { members["port_security_enabled"] = false }
            members.put("provider:network_type", providerNetworkType)
            members.put("provider:physical_network", providerPhysicalNetwork)
            members.put("provider:segmentation_id", providerSegment)
            if let project { members["project_id"] = .string(try await api.id(Projects.kind, project)) }
            return members
        }
    }

    struct SetOptions: SetArguments {
        @Option(name: .customLong("name"), help: "New name.") var newName: String?
        @Option(help: "New description.") var description: String?
        @Option(help: "Largest packet, in bytes.") var mtu: Int?
        @Flag(inversion: .prefixedEnableDisable, help: "Enable or disable it.") var state: Bool?
        @Flag(inversion: .prefixedNo, help: "Shared by all projects.") var share: Bool?
        @Flag(inversion: .prefixedNo, help: "Routers can use it as gateway.") var external: Bool?

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = JSONObject()
            changes.put("name", newName)
            changes.put("description", description)
            changes.put("mtu", mtu)
            changes.put("admin_state_up", state)
            changes.put("shared", share)
            changes.put("router:external", external)
            return changes
        }
    }
}
