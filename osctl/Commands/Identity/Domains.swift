import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum Domains: Creatable, Settable {
    static let setMethod = RESTMethod.patch
    static let kind = Kind(
        command: ["domain"], noun: "domain", service: .identity, path: "/domains", member: "domain", collection: "domains",
        naming: .listed,
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Enabled", "enabled"),
            OutputColumn("Description", "description"),
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self,
    ]

    struct CreateOptions: CreateArguments {
        @Argument(help: "The domain's name.") var name: String
        @Option(help: "A description.") var description: String?

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name), "enabled": true]
            members.put("description", description)
            return members
        }
    }

    struct SetOptions: SetArguments {
        @OptionGroup var texts: NameAndDescription
        @Flag(inversion: .prefixedEnableDisable, help: "Enable or disable it.") var state: Bool?

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = texts.changes(api)
            changes.put("enabled", state)
            return changes
        }
    }
}
