import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum SecurityGroups: Creatable, Settable {
    static let kind = Kind(
        command: ["security-group"], noun: "security group", service: .network, path: "/security-groups",
        member: "security_group", collection: "security_groups",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Description", "description"),
            OutputColumn("Rules", "security_group_rules") { "\($0["security_group_rules"]?.arrayValue?.count ?? 0)" },
        ],
        fields: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Description", "description"),
            OutputColumn("Project", "project_id"), OutputColumn("Stateful", "stateful"), OutputColumn("Created", "created_at"),
            OutputColumn("Rules", "security_group_rules") { group in
                (group["security_group_rules"]?.arrayValue ?? []).map(SecurityGroupRules.sentence).joined(separator: "\n")
            },
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self,
        ResourceCommand<SecurityGroupRules>.self,
    ]

    struct CreateOptions: CreateArguments {
        @Argument(help: "The group's name.") var name: String
        @Option(help: "A description.") var description: String?
        @Flag(help: "Stateless: replies need rules of their own.") var stateless = false

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name)]
            members.put("description", description)
            if stateless { members["stateful"] = false }
            return members
        }
    }

    typealias SetOptions = NameAndDescription
}
