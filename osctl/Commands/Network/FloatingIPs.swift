import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum FloatingIPs: Creatable, Settable {
    static let kind = Kind(
        command: ["floating-ip"], noun: "floating IP", service: .network, path: "/floatingips", member: "floatingip",
        collection: "floatingips", nameField: "floating_ip_address",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Address", "floating_ip_address"), OutputColumn("Fixed address", "fixed_ip_address"),
            OutputColumn("Port", "port_id"), OutputColumn("Status", "status"), OutputColumn("Network", "floating_network_id"),
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self,
    ]

    struct CreateOptions: CreateArguments {
        @Argument(help: "The external network.") var network: String
        @Option(help: ArgumentHelp("Associate it with this port.", valueName: "port")) var port: String?
        @Option(name: .customLong("address"), help: "The requested address.") var address: String?
        @Option(help: "A description.") var description: String?

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["floating_network_id": .string(try await api.id(Networks.kind, network))]
            if let port { members["port_id"] = .string(try await api.id(Ports.kind, port)) }
            members.put("floating_ip_address", address)
            members.put("description", description)
            return members
        }
    }

    struct SetOptions: SetArguments {
        @Option(help: ArgumentHelp("Associate it with this port.", valueName: "port")) var port: String?
        @Flag(help: "Disconnect it.") var noPort = false
        @Option(help: "The port's fixed IP to associate.") var fixedIpAddress: String?
        @Option(help: "New description.") var description: String?

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = JSONObject()
            if let port { changes["port_id"] = .string(try await api.id(Ports.kind, port)) }
            if noPort { changes["port_id"] = .null }
            changes.put("fixed_ip_address", fixedIpAddress)
            changes.put("description", description)
            return changes
        }
    }
}
