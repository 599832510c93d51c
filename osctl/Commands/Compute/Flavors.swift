import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum Flavors: Creatable, Settable {
    static let kind = Kind(
        command: ["flavor"], noun: "flavor", service: .compute, path: "/flavors", listPath: "/flavors/detail",
        member: "flavor", collection: "flavors", microversion: Servers.microversion, naming: .listed,
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("vCPUs", "vcpus"), OutputColumn("RAM MiB", "ram"),
            OutputColumn("Disk GB", "disk"), OutputColumn("Ephemeral GB", "OS-FLV-EXT-DATA:ephemeral"),
            OutputColumn("Public", "os-flavor-access:is_public"),
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self,
    ]

    struct Filters: FilterArguments {
        @Option(help: "Only with at least this memory, in MiB.") var minRam: Int?
        @Option(help: "Only with at least this disk, in GB.") var minDisk: Int?
        @Flag(help: "Include private ones (operators).") var all = false

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            var query: [(String, String)] = []
            if let minRam { query.append(("minRam", "\(minRam)")) }
            if let minDisk { query.append(("minDisk", "\(minDisk)")) }
            if all { query.append(("is_public", "None")) }
            return query
        }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The flavor's name.") var name: String
        @Option(help: "Virtual processors.") var vcpus = 1
        @Option(help: ArgumentHelp("Memory, in MiB.", valueName: "mib")) var ram: Int
        @Option(help: ArgumentHelp("Disk, in GB.", valueName: "gb")) var disk = 0
        @Option(help: ArgumentHelp("A second disk, in GB.", valueName: "gb")) var ephemeral = 0
        @Option(help: ArgumentHelp("Swap, in MiB.", valueName: "mib")) var swap = 0
        @Option(help: "The flavor's id.") var id: String?
        @Flag(name: .customLong("private"), help: "Only for projects with access.") var isPrivate = false
        @Option(help: "A description.") var description: String?
        @Option(help: ArgumentHelp("A property (repeatable).", valueName: "key=value")) var property: [Assignment] = []

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = [
                "name": .string(name), "vcpus": JSONValue(vcpus), "ram": JSONValue(ram), "disk": JSONValue(disk),
                "OS-FLV-EXT-DATA:ephemeral": JSONValue(ephemeral), "swap": JSONValue(swap),
                "os-flavor-access:is_public": .bool(!isPrivate),
            ]
            members.put("id", id)
            members.put("description", description)
            return members
        }
    }

    static func create(_ options: CreateOptions, _ api: CloudAPI) async throws -> JSONValue {
        let flavor = try await api.create(kind, kind.body(try await options.members(api)))
        guard !options.property.isEmpty else { return flavor }
        let answer = try await putProperties(options.property, id: try kind.id(flavor), api)
        return JSONValue.object(["extra_specs": answer["extra_specs"] ?? [:]]).overlaid(on: flavor)
    }

    private static func putProperties(_ properties: [Assignment], id: String, _ api: CloudAPI) async throws -> JSONValue {
        try await api.client.post(
            .compute, kind.path(id: id) + "/os-extra_specs", ["extra_specs": properties.json], microversion: kind.microversion)
    }

    struct SetOptions: SetArguments {
        @Option(help: "New description.") var description: String?
        @Option(help: ArgumentHelp("Set a property (repeatable).", valueName: "key=value")) var property: [Assignment] = []

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = JSONObject()
            changes.put("description", description)
            return changes
        }
    }

    static func set(_ options: SetOptions, id: String, _ api: CloudAPI) async throws {
        let changes = try await options.changes(api)
        guard !changes.isEmpty || !options.property.isEmpty else { throw ValidationError.nothingToSet(kind) }
        if !changes.isEmpty { _ = try await api.update(kind, id: id, method: .put, changes) }
        if !options.property.isEmpty { _ = try await putProperties(options.property, id: id, api) }
    }
}
