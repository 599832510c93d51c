import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum Routers: Creatable, Settable {
    static let kind = Kind(
        command: ["router"], noun: "router", service: .network, path: "/routers", member: "router", collection: "routers",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Status", "status"),
            OutputColumn("Enabled", "admin_state_up"),
            OutputColumn("External network", "external_gateway_info.network_id"),
            OutputColumn("External addresses", "external_gateway_info.external_fixed_ips") { addresses($0) },
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self, Add.self, Remove.self,
        SetGateway.self, UnsetGateway.self,
    ]

    private static func addresses(_ router: JSONValue) -> String {
        (router["external_gateway_info"]?["external_fixed_ips"]?.arrayValue ?? [])
            .compactMap { $0["ip_address"]?.stringValue }.joined(separator: ", ")
    }

    /// `external_gateway_info` for an external network.
    private static func gateway(_ network: String, address: String?, snat: Bool?, _ api: CloudAPI) async throws -> JSONValue {
        var info: JSONObject = ["network_id": .string(try await api.id(Networks.kind, network))]
        if let address { info["external_fixed_ips"] = [["ip_address": .string(address)]] }
        info.put("enable_snat", snat)
        return .object(info)
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The router's name.") var name: String
        @Option(help: ArgumentHelp("The external network of its gateway.", valueName: "network")) var externalGateway: String?
        @Option(help: "A description.") var description: String?
        @Flag(help: "Create it disabled.") var disable = false

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name), "admin_state_up": .bool(!disable)]
            members.put("description", description)
            if let externalGateway {
                members["external_gateway_info"] = try await Routers.gateway(externalGateway, address: nil, snat: nil, api)
            }
            return members
        }
    }

    struct SetOptions: SetArguments {
        @Option(name: .customLong("name"), help: "New name.") var newName: String?
        @Option(help: "New description.") var description: String?
        @Flag(inversion: .prefixedEnableDisable, help: "Enable or disable it.") var state: Bool?
        @Option(help: ArgumentHelp("The external network of its gateway.", valueName: "network")) var externalGateway: String?
        @Option(
            help: ArgumentHelp(
                "A static route, as destination=CIDR,gateway=ADDRESS; all routes are replaced (repeatable).", valueName: "route"))
        var route: [AssignmentList] = []
        @Flag(help: "No static routes.") var noRoute = false

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = JSONObject()
            changes.put("name", newName)
            changes.put("description", description)
            changes.put("admin_state_up", state)
            if let externalGateway {
                changes["external_gateway_info"] = try await Routers.gateway(externalGateway, address: nil, snat: nil, api)
            }
            if !route.isEmpty || noRoute {
                changes["routes"] = .array(
                    try route.map { route in
                        try route.check("--route", ["destination", "gateway"])
                        return ["destination": JSONValue(route.values["destination"]), "nexthop": JSONValue(route.values["gateway"])]
                    })
            }
            return changes
        }
    }

    struct SetGateway: APICommand {
        static let configuration = CommandConfiguration(commandName: "set-gateway", abstract: "Set the external gateway of a router.")
        @Argument(help: "The router.") var router: String
        @Argument(help: "The external network.") var network: String
        @Option(help: "The router's address there; by default any free one.") var address: String?
        @Flag(inversion: .prefixedNo, help: "Whether guests without a floating IP use the router's address (SNAT).") var snat: Bool?
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let info = try await Routers.gateway(network, address: address, snat: snat, api)
            _ = try await api.update(kind, id: try await api.id(kind, router), method: .put, ["external_gateway_info": info])
        }
    }

    struct UnsetGateway: APICommand {
        static let configuration = CommandConfiguration(commandName: "unset-gateway", abstract: "Remove the external gateway of a router.")
        @Argument(help: "The router.") var router: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            _ = try await api.update(kind, id: try await api.id(kind, router), method: .put, ["external_gateway_info": .object([:])])
        }
    }

    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Add an interface to a router.", subcommands: [Interface<AddSubnet>.self, Interface<AddPort>.self])
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove an interface from a router.", subcommands: [Interface<RemoveSubnet>.self, Interface<RemovePort>.self])
    }

    /// One of the four ways to change a router's interfaces.
    struct Interface<Way: RouterInterfaceWay>: APICommand {
        static var configuration: CommandConfiguration {
            CommandConfiguration(commandName: Way.target.command[0], abstract: Way.abstract)
        }
        @Argument(help: "The router.") var router: String
        @Argument(help: "The subnet or port.") var target: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(kind, router)
            let body: JSONValue = [Way.target.command[0] + "_id": .string(try await api.id(Way.target, target))]
            try await api.client.put(.network, kind.path(id: id) + "/\(Way.path)", body)
        }
    }

    enum AddSubnet: RouterInterfaceWay {
        static let target = Subnets.kind
        static let path = "add_router_interface"
        static let abstract = "Add an interface with a subnet's gateway address to a router."
    }

    enum AddPort: RouterInterfaceWay {
        static let target = Ports.kind
        static let path = "add_router_interface"
        static let abstract = "Add a port to a router."
    }

    enum RemoveSubnet: RouterInterfaceWay {
        static let target = Subnets.kind
        static let path = "remove_router_interface"
        static let abstract = "Remove a router's interface in a subnet."
    }

    enum RemovePort: RouterInterfaceWay {
        static let target = Ports.kind
        static let path = "remove_router_interface"
        static let abstract = "Remove a port from a router."
    }
}

/// Adds or removes a router's interface, identified by subnet or port.
protocol RouterInterfaceWay {
    static var target: Kind { get }
    static var path: String { get }
    static var abstract: String { get }
}
