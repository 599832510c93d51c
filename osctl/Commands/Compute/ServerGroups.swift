import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum ServerGroups: Creatable {
    static let kind = Kind(
        command: ["server-group"], noun: "server group", service: .compute, path: "/os-server-groups",
        member: "server_group", collection: "server_groups", microversion: Servers.microversion, naming: .listed,
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Policy", "policy"),
            OutputColumn("Members", "members") { "\($0["members"]?.arrayValue?.count ?? 0)" },
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Create<Self>.self, Delete<Self>.self]

    struct CreateOptions: CreateArguments {
        @Argument(help: "The group's name.") var name: String
        @Option(help: "affinity, anti-affinity, soft-affinity or soft-anti-affinity.") var policy = "anti-affinity"

        func members(_ api: CloudAPI) async throws -> JSONObject { ["name": .string(name), "policy": .string(policy)] }
    }
}
