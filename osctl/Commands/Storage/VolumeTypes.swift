import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum VolumeTypes: Creatable {
    static let kind = Kind(
        command: ["volume", "type"], noun: "volume type", service: .blockStorage, path: "/types", member: "volume_type",
        collection: "volume_types", microversion: Volumes.microversion, naming: .listed,
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Public", "is_public"),
            OutputColumn("Description", "description"),
            OutputColumn("Properties", "extra_specs"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Create<Self>.self, Delete<Self>.self]

    struct CreateOptions: CreateArguments {
        @Argument(help: "The type's name.") var name: String
        @Option(help: "A description.") var description: String?
        @Flag(name: .customLong("private"), help: "Only for projects with access.") var isPrivate = false
        @Option(help: ArgumentHelp("A property (repeatable).", valueName: "key=value")) var property: [Assignment] = []

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name), "os-volume-type-access:is_public": .bool(!isPrivate)]
            members.put("description", description)
            if !property.isEmpty { members["extra_specs"] = property.json }
            return members
        }
    }
}
