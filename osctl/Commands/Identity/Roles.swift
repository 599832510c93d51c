import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum Roles: Creatable {
    static let kind = Kind(
        command: ["role"], noun: "role", service: .identity, path: "/roles", member: "role", collection: "roles",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Domain", "domain_id"),
            OutputColumn("Description", "description"),
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, Delete<Self>.self, Grant<Add>.self, Grant<Remove>.self,
        ResourceCommand<RoleAssignments>.self,
    ]

    struct CreateOptions: CreateArguments {
        @Argument(help: "The role's name.") var name: String
        @Option(help: "A description.") var description: String?

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name)]
            members.put("description", description)
            return members
        }
    }

    /// Assigns or removes a role.
    struct Grant<Way: GrantWay>: APICommand {
        static var configuration: CommandConfiguration { CommandConfiguration(commandName: Way.verb, abstract: Way.abstract) }

        @Argument(help: "The role.") var role: String
        @Option(help: ArgumentHelp("The user.", valueName: "user")) var user: String?
        @Option(help: ArgumentHelp("The group.", valueName: "group")) var group: String?
        @Option(help: ArgumentHelp("In this project.", valueName: "project")) var project: String?
        @Option(help: ArgumentHelp("In this domain.", valueName: "domain")) var domain: String?
        @Flag(help: "In the whole system.") var system = false
        @Flag(help: "In all projects below the project or domain, and not in itself.") var inherited = false
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func validate() throws {
            guard [project != nil, domain != nil, system].filter({ $0 }).count == 1 else {
                throw ValidationError("Specify one of --project, --domain and --system.")
            }
            guard (user == nil) != (group == nil) else { throw ValidationError("Specify one of --user and --group.") }
            guard !inherited || !system else { throw ValidationError("--inherited needs --project or --domain.") }
        }

        func execute(_ api: CloudAPI) async throws {
            let roleID = try await api.id(Roles.kind, role)
            let place: RESTPath
            if let project {
                place = "/projects/\(try await api.id(Projects.kind, project))"
            } else if let domain {
                place = "/domains/\(try await api.id(Domains.kind, domain))"
            } else {
                place = "/system"
            }
            let actor: RESTPath
            if let group {
                actor = "/groups/\(try await api.id(Groups.kind, group))"
            } else {
                actor = "/users/\(try await api.id(Users.kind, user ?? ""))"
            }
            let path = place + actor + "/roles/\(roleID)"
            _ = try await api.client.request(
                service: .identity, method: Way.method, path: inherited ? "/OS-INHERIT" + path + "/inherited_to_projects" : path)
        }
    }

    enum Add: GrantWay {
        static let verb = "add"
        static let abstract = "Assign a role to a user or group."
        static let method = RESTMethod.put
    }

    enum Remove: GrantWay {
        static let verb = "remove"
        static let abstract = "Remove a role from a user or group."
        static let method = RESTMethod.delete
    }
}

/// Assigns or removes a role.
protocol GrantWay {
    static var verb: String { get }
    static var abstract: String { get }
    static var method: RESTMethod { get }
}

/// Role assignments.
enum RoleAssignments: Noun {
    static let kind = Kind(
        command: ["role", "assignment"], noun: "role assignment", service: .identity, path: "/role_assignments", member: nil,
        collection: "role_assignments", naming: .none, listQuery: [("include_names", "true")],
        columns: [
            OutputColumn("Role", "role.name"),
            OutputColumn("User", "user.name") { ($0["user"] ?? $0["group"])?["name"]?.stringValue ?? "" },
            OutputColumn("Project", "scope.project.name"), OutputColumn("Domain", "scope.domain.name"),
            OutputColumn("System", "scope.system.all"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self]

    struct Filters: FilterArguments {
        @Option(help: ArgumentHelp("Only of this user.", valueName: "user")) var user: String?
        @Option(help: ArgumentHelp("Only in this project.", valueName: "project")) var project: String?
        @Flag(help: "Include implied and inherited roles.") var effective = false

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            var query: [(String, String)] = []
            if let user { query.append(("user.id", try await api.id(Users.kind, user))) }
            if let project { query.append(("scope.project.id", try await api.id(Projects.kind, project))) }
            if effective { query.append(("effective", "true")) }
            return query
        }
    }
}
