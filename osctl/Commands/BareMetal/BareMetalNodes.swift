import ArgumentParser
import BareMetalCore
import Client
import JSON
import ServiceCatalog

/// `osctl baremetal`: physical machines.
struct BareMetalCommand: ParsableCommand {
    static let microversion = "1.96"

    static let configuration = CommandConfiguration(
        commandName: "baremetal", abstract: "Physical machines: nodes, their ports, allocations.",
        subcommands: [
            ResourceCommand<BareMetalNodes>.self, ResourceCommand<BareMetalPorts>.self, ResourceCommand<BareMetalPortGroups>.self,
            ResourceCommand<BareMetalAllocations>.self, ResourceCommand<BareMetalChassis>.self, ResourceCommand<BareMetalDrivers>.self,
        ])
}

/// Physical machines.
enum BareMetalNodes: Creatable, Settable {
    static let kind = Kind(
        command: ["baremetal", "node"], noun: "node", service: .bareMetal, path: "/nodes", listPath: "/nodes/detail", member: nil,
        collection: "nodes", microversion: BareMetalCommand.microversion, naming: .byPath, idField: "uuid",
        columns: [
            OutputColumn("ID", "uuid"), OutputColumn("Name", "name"), OutputColumn("Instance", "instance_uuid"),
            OutputColumn("Power", "power_state"), OutputColumn("State", "provision_state"), OutputColumn("Maintenance", "maintenance"),
        ],
        progress: rule(failed: failed))

    static let verbs: [any ParsableCommand.Type] =
        [List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Unset.self, Delete<Self>.self] + provisioning + [
            Power.self, Maintenance.self, BootDevices.self, BootModes.self, SecureBoot.self, VirtualMedia.self, Traits.self, History.self,
            Validate.self, Why.self,
        ]

    /// States that follow failed work.
    static let failed = Set(ProvisionState.allCases.filter(\.isFailed).map(\.rawValue))

    static func rule(failed: Set<String>) -> ProgressRule {
        ProgressRule(
            field: "provision_state", created: [ProvisionState.enroll.rawValue], failed: failed,
            reason: { $0["last_error"]?.stringValue }, explainedBy: "why")
    }

    struct Filters: FilterArguments {
        @Option(help: "Only in this provision state, such as available.") var state: String?
        @Option(help: "Only with this driver.") var driver: String?
        @Option(help: ArgumentHelp("Only of this resource class.", valueName: "class")) var resourceClass: String?
        @Option(help: ArgumentHelp("Only of this owner (a project's id).", valueName: "project")) var owner: String?
        @Flag(inversion: .prefixedNo, help: "Only nodes that are, or are not, in maintenance.") var maintenance: Bool?
        @Flag(inversion: .prefixedNo, help: "Only nodes with, or without, an instance.") var associated: Bool?

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            var query: [(String, String)] = []
            for (name, value) in [
                ("provision_state", state), ("driver", driver), ("resource_class", resourceClass), ("owner", owner),
                ("maintenance", maintenance.map(String.init)), ("associated", associated.map(String.init)),
            ] {
                if let value { query.append((name, value)) }
            }
            return query
        }
    }

    /// Options for creating and for changing a node.
    struct Members: ParsableArguments {
        @Option(
            help: ArgumentHelp("A setting of the driver, such as redfish_address=https://10.0.0.7 (repeatable).", valueName: "key=value"))
        var driverInfo: [Assignment] = []
        @Option(help: ArgumentHelp("A property, such as cpus=8 (repeatable).", valueName: "key=value")) var property: [Assignment] = []
        @Option(help: ArgumentHelp("A custom value in extra (repeatable).", valueName: "key=value")) var extra: [Assignment] = []
        @Option(help: ArgumentHelp("A value for the instance (repeatable).", valueName: "key=value")) var instanceInfo: [Assignment] = []
        @Option(help: ArgumentHelp("An interface implementation, such as inspect=no-inspect (repeatable).", valueName: "interface=name"))
        var interface: [Assignment] = []
        @Option(help: "Resource class that allocations request.") var resourceClass: String?
        @Option(help: ArgumentHelp("The project that owns the node.", valueName: "project")) var owner: String?
        @Option(help: ArgumentHelp("The project that leases the node.", valueName: "project")) var lessee: String?
        @Option(help: "A description.") var description: String?
        @Option(help: "The id of the node's chassis.") var chassis: String?
        @Option(help: "The node's shard.") var shard: String?
        @Flag(inversion: .prefixedNo, help: "Clean the node before it becomes available.") var automatedClean: Bool?

        var documents: [(name: String, values: [Assignment])] {
            [("driver_info", driverInfo), ("properties", property), ("extra", extra), ("instance_info", instanceInfo)]
        }

        func fields(_ api: CloudAPI) async throws -> JSONObject {
            var members = JSONObject()
            for choice in interface { members["\(choice.name)_interface"] = .string(choice.value) }
            members.put("resource_class", resourceClass)
            if let owner { members["owner"] = .string(try await api.id(Projects.kind, owner)) }
            if let lessee { members["lessee"] = .string(try await api.id(Projects.kind, lessee)) }
            members.put("description", description)
            members.put("chassis_uuid", chassis)
            members.put("shard", shard)
            members.put("automated_clean", automatedClean)
            return members
        }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The node's name.") var name: String
        @Option(help: "The hardware type: redfish, ipmi or another one of `osctl baremetal driver list`.") var driver: String
        @OptionGroup var members: Members

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var body = try await members.fields(api)
            body["name"] = .string(name)
            body["driver"] = .string(driver)
            for (name, values) in members.documents where !values.isEmpty { body[name] = JSONPatchText.object(values) }
            return body
        }
    }

    struct SetOptions: SetArguments {
        @Option(name: .customLong("name"), help: "New name.") var newName: String?
        @Option(help: "New driver.") var driver: String?
        @Flag(help: "Reset the interfaces to the defaults of the new driver.") var resetInterfaces = false
        @Flag(inversion: .prefixedNo, help: "Prevent the node from being undeployed, rebuilt or deleted.") var protected: Bool?
        @Flag(inversion: .prefixedNo, help: "Mark the node as retired.") var retired: Bool?
        @OptionGroup var members: Members

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = try await members.fields(api)
            changes.put("name", newName)
            changes.put("driver", driver)
            changes.put("protected", protected)
            changes.put("retired", retired)
            return changes
        }
    }

    static func set(_ options: SetOptions, id: String, _ api: CloudAPI) async throws {
        var patch = JSONPatchText.replacing(try await options.changes(api))
        for (name, values) in options.members.documents { patch += JSONPatchText.adding(values, to: name) }
        try await JSONPatchText.send(patch, kind, id, api, query: options.resetInterfaces ? [("reset_interfaces", "true")] : [])
    }

    struct Unset: APICommand {
        static let configuration = CommandConfiguration(commandName: "unset", abstract: "Remove values of a node.")

        @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
        @Option(help: ArgumentHelp("A setting of the driver (repeatable).", valueName: "key")) var driverInfo: [String] = []
        @Option(help: ArgumentHelp("A property (repeatable).", valueName: "key")) var property: [String] = []
        @Option(help: ArgumentHelp("A custom value in extra (repeatable).", valueName: "key")) var extra: [String] = []
        @Option(help: ArgumentHelp("A value for the instance (repeatable).", valueName: "key")) var instanceInfo: [String] = []
        @Flag(help: "The node's name.") var name = false
        @Flag(help: "The node's resource class.") var resourceClass = false
        @Flag(help: "The node's owner.") var owner = false
        @Flag(help: "The node's lessee.") var lessee = false
        @Flag(help: "The node's description.") var description = false
        @Flag(help: "The node's chassis.") var chassis = false
        @Flag(help: "The node's instance.") var instance = false
        @Flag(help: "The node's automated_clean setting.") var automatedClean = false
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let members = [
                ("name", name), ("resource_class", resourceClass), ("owner", owner), ("lessee", lessee), ("description", description),
                ("chassis_uuid", chassis), ("instance_uuid", instance), ("automated_clean", automatedClean),
            ]
            var paths = members.filter(\.1).map { "/" + $0.0 }
            for (name, keys) in [
                ("driver_info", driverInfo), ("properties", property), ("extra", extra), ("instance_info", instanceInfo),
            ] {
                paths += keys.map { "/\(name)/" + JSONPatchText.escaped($0) }
            }
            let patch: [JSONValue] = paths.map { ["op": "remove", "path": .string($0)] }
            try await JSONPatchText.send(patch, kind, node, api)
        }
    }
}
