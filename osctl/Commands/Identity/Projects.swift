import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum Projects: Creatable, Settable {
    static let setMethod = RESTMethod.patch
    static let kind = Kind(
        command: ["project"], noun: "project", service: .identity, path: "/projects", member: "project",
        collection: "projects",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Domain", "domain_id"), OutputColumn("Enabled", "enabled"),
            OutputColumn("Description", "description"),
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self,
    ]

    struct Filters: FilterArguments {
        @Option(help: ArgumentHelp("Only of this domain.", valueName: "domain")) var domain: String?
        @Option(help: ArgumentHelp("Only those in which this user has a role.", valueName: "user")) var user: String?
        @Flag(inversion: .prefixedNo, help: "Only those of the cloud's operators, or only the others.") var cloud: Bool?

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            var query: [(String, String)] = []
            if let domain { query.append(("domain_id", try await api.id(Domains.kind, domain))) }
            if let user { query.append(("user_id", try await api.id(Users.kind, user))) }
            if let cloud { query.append(("cloud_project", String(cloud))) }
            return query
        }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The project's name.") var name: String
        @Option(help: ArgumentHelp("The domain; `default` by default.", valueName: "domain")) var domain: String?
        @Option(help: "A description.") var description: String?
        @Flag(help: "Create it disabled.") var disable = false
        @Flag(help: "Create it as a project of the cloud's operators, which managers of the domain cannot change.") var cloud = false

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name), "enabled": .bool(!disable)]
            members["domain_id"] = .string(try await domain.asyncMap { try await api.id(Domains.kind, $0) } ?? "default")
            members.put("description", description)
            if cloud { members["cloud_project"] = true }
            return members
        }
    }

    struct SetOptions: SetArguments {
        @OptionGroup var texts: NameAndDescription
        @Flag(inversion: .prefixedEnableDisable, help: "Enable or disable it.") var state: Bool?
        @Flag(
            inversion: .prefixedNo,
            help: "Make it a project of the cloud's operators, which managers of the domain cannot change, or a project like others.")
        var cloud: Bool?

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = texts.changes(api)
            changes.put("enabled", state)
            changes.put("cloud_project", cloud)
            return changes
        }
    }
}

extension Optional where Wrapped: Sendable {
    func asyncMap<Value>(_ transform: (Wrapped) async throws -> Value) async rethrows -> Value? {
        guard let self else { return nil }
        return try await transform(self)
    }
}
