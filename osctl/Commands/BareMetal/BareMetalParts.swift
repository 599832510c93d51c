import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// Network interfaces of nodes.
enum BareMetalPorts: Creatable, Settable {
    static let kind = Kind(
        command: ["baremetal", "port"], noun: "port", service: .bareMetal, path: "/ports", listPath: "/ports/detail", member: nil,
        collection: "ports", microversion: BareMetalCommand.microversion, naming: .byPath, idField: "uuid",
        columns: [
            OutputColumn("ID", "uuid"), OutputColumn("Name", "name"), OutputColumn("Address", "address"), OutputColumn("Node", "node_uuid"),
            OutputColumn("Port group", "portgroup_uuid"), OutputColumn("PXE", "pxe_enabled"),
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self,
    ]

    struct Filters: FilterArguments {
        @Option(help: "Only of this node.") var node: String?
        @Option(help: "Only with this MAC address.") var address: String?

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            [node.map { ("node", $0) }, address.map { ("address", $0) }].compactMap { $0 }
        }
    }

    struct Members: ParsableArguments {
        @Option(help: ArgumentHelp("A member of the connection to the switch: port_id, switch_id … (repeatable).", valueName: "key=value"))
        var localLinkConnection: [Assignment] = []
        @Option(help: ArgumentHelp("A custom value in extra (repeatable).", valueName: "key=value")) var extra: [Assignment] = []
        @Option(help: "The id of the port's port group.") var portGroup: String?
        @Option(help: "The physical network.") var physicalNetwork: String?
        @Flag(inversion: .prefixedNo, help: "Boot the node from this port.") var pxeEnabled: Bool?

        var documents: [(name: String, values: [Assignment])] {
            [("local_link_connection", localLinkConnection), ("extra", extra)]
        }

        var fields: JSONObject {
            var members = JSONObject()
            members.put("portgroup_uuid", portGroup)
            members.put("physical_network", physicalNetwork)
            members.put("pxe_enabled", pxeEnabled)
            return members
        }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The MAC address.") var address: String
        @Option(help: "The port's node.") var node: String
        @Option(help: "A name.") var name: String?
        @OptionGroup var members: Members

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var body = members.fields
            body["address"] = .string(address)
            body["node_uuid"] = try await api.find(BareMetalNodes.kind, node)["uuid"]
            body.put("name", name)
            for (name, values) in members.documents where !values.isEmpty { body[name] = values.json }
            return body
        }
    }

    struct SetOptions: SetArguments {
        @Option(name: .customLong("name"), help: "New name.") var newName: String?
        @Option(help: "New MAC address.") var address: String?
        @OptionGroup var members: Members

        func changes(_ api: CloudAPI) -> JSONObject {
            var changes = members.fields
            changes.put("name", newName)
            changes.put("address", address)
            return changes
        }
    }

    static func set(_ options: SetOptions, id: String, _ api: CloudAPI) async throws {
        var patch = JSONPatchText.replacing(options.changes(api))
        // The connection is replaced as one value, because its members must be given together.
        let link = options.members.localLinkConnection
        if !link.isEmpty { patch.append(["op": "add", "path": "/local_link_connection", "value": link.json]) }
        patch += JSONPatchText.adding(options.members.extra, to: "extra")
        try await JSONPatchText.send(patch, kind, id, api)
    }
}

/// Bonded network interfaces.
enum BareMetalPortGroups: Creatable {
    static let kind = Kind(
        command: ["baremetal", "port-group"], noun: "port group", service: .bareMetal, path: "/portgroups", listPath: "/portgroups/detail",
        member: nil, collection: "portgroups", microversion: BareMetalCommand.microversion, naming: .byPath, idField: "uuid",
        columns: [
            OutputColumn("ID", "uuid"), OutputColumn("Name", "name"), OutputColumn("Address", "address"), OutputColumn("Node", "node_uuid"),
            OutputColumn("Mode", "mode"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Create<Self>.self, Delete<Self>.self]

    struct Filters: FilterArguments {
        @Option(help: "Only of this node.") var node: String?

        func query(_ api: CloudAPI) async throws -> [(String, String)] { node.map { [("node", $0)] } ?? [] }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The port group's name.") var name: String
        @Option(help: "The port group's node.") var node: String
        @Option(help: "The MAC address of the bond.") var address: String?
        @Option(help: "The bonding mode, such as 802.3ad.") var mode: String?
        @Option(help: ArgumentHelp("A property of the bond, such as miimon=100 (repeatable).", valueName: "key=value"))
        var property: [Assignment] = []

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var body: JSONObject = ["name": .string(name)]
            body["node_uuid"] = try await api.find(BareMetalNodes.kind, node)["uuid"]
            body.put("address", address)
            body.put("mode", mode)
            if !property.isEmpty { body["properties"] = JSONPatchText.object(property) }
            return body
        }
    }
}

/// Claims on nodes.
enum BareMetalAllocations: Creatable {
    static let kind = Kind(
        command: ["baremetal", "allocation"], noun: "allocation", service: .bareMetal, path: "/allocations", member: nil,
        collection: "allocations", microversion: BareMetalCommand.microversion, naming: .byPath, idField: "uuid",
        columns: [
            OutputColumn("ID", "uuid"), OutputColumn("Name", "name"), OutputColumn("Class", "resource_class"),
            OutputColumn("State", "state"), OutputColumn("Node", "node_uuid"), OutputColumn("Reason", "last_error"),
        ],
        progress: ProgressRule(
            field: "state", created: ["active"], failed: ["error"], reason: { $0["last_error"]?.stringValue }))
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Create<Self>.self, Delete<Self>.self]

    struct Filters: FilterArguments {
        @Option(help: "Only of this node.") var node: String?
        @Option(help: "Only in this state: active or error.") var state: String?

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            [node.map { ("node", $0) }, state.map { ("state", $0) }].compactMap { $0 }
        }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The allocation's name.") var name: String
        @Option(help: "The resource class that the node must have.") var resourceClass: String?
        @Option(help: ArgumentHelp("A trait that the node must have (repeatable).", valueName: "trait")) var trait: [String] = []
        @Option(help: ArgumentHelp("A node that may be chosen (repeatable).", valueName: "node")) var candidateNode: [String] = []
        @Option(help: "An active node to create the allocation for.") var node: String?
        @Option(help: ArgumentHelp("The project that owns the allocation.", valueName: "project")) var owner: String?
        @Option(help: ArgumentHelp("A custom value in extra (repeatable).", valueName: "key=value")) var extra: [Assignment] = []

        func validate() throws {
            guard resourceClass != nil || node != nil else { throw ValidationError("An allocation needs --resource-class or --node.") }
        }

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var body: JSONObject = ["name": .string(name)]
            body.put("resource_class", resourceClass)
            if !trait.isEmpty { body["traits"] = JSONValue(trait) }
            if !candidateNode.isEmpty { body["candidate_nodes"] = JSONValue(candidateNode) }
            body.put("node", node)
            if let owner { body["owner"] = .string(try await api.id(Projects.kind, owner)) }
            if !extra.isEmpty { body["extra"] = JSONPatchText.object(extra) }
            return body
        }
    }
}

/// Enclosures of nodes.
enum BareMetalChassis: Creatable {
    static let kind = Kind(
        command: ["baremetal", "chassis"], noun: "chassis", service: .bareMetal, path: "/chassis", listPath: "/chassis/detail", member: nil,
        collection: "chassis", microversion: BareMetalCommand.microversion, naming: .none, nameField: "description", idField: "uuid",
        columns: [OutputColumn("ID", "uuid"), OutputColumn("Description", "description")])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Create<Self>.self, Delete<Self>.self]
    static let abstract = "Enclosures of nodes."

    struct CreateOptions: CreateArguments {
        @Option(help: "A description.") var description: String?
        @Option(help: ArgumentHelp("A custom value in extra (repeatable).", valueName: "key=value")) var extra: [Assignment] = []

        func members(_ api: CloudAPI) -> JSONObject {
            var body = JSONObject()
            body.put("description", description)
            if !extra.isEmpty { body["extra"] = JSONPatchText.object(extra) }
            return body
        }
    }
}

/// The hardware types that the operator has enabled.
enum BareMetalDrivers: Noun {
    static let kind = Kind(
        command: ["baremetal", "driver"], noun: "driver", service: .bareMetal, path: "/drivers", member: nil, collection: "drivers",
        microversion: BareMetalCommand.microversion, naming: .byPath, idField: "name",
        columns: [OutputColumn("Name", "name"), OutputColumn("Hosts", "hosts")])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Properties.self]

    struct Properties: APICommand {
        static let configuration = CommandConfiguration(commandName: "properties", abstract: "List the settings of a driver's nodes.")
        @Argument(help: ArgumentHelp("The driver's name.", valueName: "driver")) var driver: String
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let answer = try await api.client.get(.bareMetal, kind.path(id: driver) + "/properties", microversion: kind.microversion)
            let rows: [JSONValue] = (answer.objectValue?.members ?? []).map { ["property": .string($0.name), "meaning": $0.value] }
            let columns = [OutputColumn("Property", "property"), OutputColumn("Meaning", "meaning")]
            print(try output.list(rows, columns: columns), terminator: "")
        }
    }
}
