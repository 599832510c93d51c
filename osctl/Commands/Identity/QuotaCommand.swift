import ArgumentParser
import Client
import JSON

/// `osctl quota`: what a project may use of all services together, and does.
struct QuotaCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quota", abstract: "Limits of a project, and what it uses.", subcommands: [Show.self, Usage.self, Change.self])

    /// A quota of one service, under the name people use.
    struct Item: Sendable {
        let name: String
        let service: CloudService
        /// In the service's API.
        let key: String
    }

    static let items: [Item] =
        [
            ("servers", "instances"), ("cores", "cores"), ("ram", "ram"), ("keypairs", "key_pairs"),
            ("server-groups", "server_groups"), ("server-group-members", "server_group_members"), ("properties", "metadata_items"),
        ].map { Item(name: $0.0, service: .compute, key: $0.1) }
        + [
            ("networks", "network"), ("subnets", "subnet"), ("ports", "port"), ("routers", "router"), ("floating-ips", "floatingip"),
            ("security-groups", "security_group"), ("security-group-rules", "security_group_rule"),
        ].map { Item(name: $0.0, service: .network, key: $0.1) }
        + [
            ("volumes", "volumes"), ("snapshots", "snapshots"), ("gigabytes", "gigabytes"),
        ].map { Item(name: $0.0, service: .blockStorage, key: $0.1) }

    private static let services: [CloudService] = [.compute, .network, .blockStorage]

    /// The project that an argument names, or the token's own.
    static func project(_ name: String?, _ api: API) async throws -> String {
        guard let name else { return try await api.project() }
        let own = try await api.client.token()
        if own.document["project"]?["name"]?.stringValue == name, let id = own.projectID { return id }
        return try await api.id(Projects.kind, name)
    }

    private static func path(_ service: CloudService, _ project: String) -> RESTPath {
        service == .network ? "/quotas/\(project)" : "/os-quota-sets/\(project)"
    }

    private static func member(_ service: CloudService) -> String { service == .network ? "quota" : "quota_set" }

    private static func microversion(_ service: CloudService) -> String? {
        switch service {
        case .compute: Servers.microversion
        case .blockStorage: Volumes.microversion
        default: nil
        }
    }

    /// Rows with `service`, `resource`, `limit`, `used`, `reserved`, in the order of `items`.
    static func rows(_ project: String, _ api: API) async throws -> [JSONValue] {
        var rows: [JSONValue] = []
        for service in services {
            let place: RESTPath =
                switch service {
                case .compute: path(service, project) + "/detail"
                case .network: path(service, project) + "/details"
                default: path(service, project)
                }
            let query = service == .blockStorage ? [("usage", "True")] : []
            let answer = try await api.client.get(service, place, query: query, microversion: microversion(service))
            guard let quotas = answer[member(service)] else { continue }
            for item in items where item.service == service {
                guard let quota = quotas[item.key] else { continue }
                rows.append([
                    "service": .string(service.rawValue), "resource": .string(item.name),
                    "limit": quota["limit"] ?? .null, "used": quota["in_use"] ?? quota["used"] ?? .null,
                    "reserved": quota["reserved"] ?? .null,
                ])
            }
        }
        return rows
    }

    struct Show: APICommand {
        static let configuration = CommandConfiguration(abstract: "The limits of a project.")
        @Argument(help: "The project; your own if not given.") var project: String?
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: API) async throws {
            let rows = try await QuotaCommand.rows(try await QuotaCommand.project(project, api), api)
            let limits = rows.map { ($0["resource"]?.stringValue ?? "", $0["limit"] ?? .null) }
            let fields = limits.map { name, limit in Column(name, name) { _ in limit == -1 ? "unlimited" : CellText.text(limit) } }
            print(try output.object(.object(JSONObject(limits)), fields: fields), terminator: "")
        }
    }

    struct Usage: APICommand {
        static let configuration = CommandConfiguration(abstract: "What a project uses of its limits.")
        @Argument(help: "The project; your own if not given.") var project: String?
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        static let columns = [
            Column("Service", "service"), Column("Resource", "resource"), Column("Used", "used"),
            Column("Reserved", "reserved"),
            Column("Limit", "limit") { $0["limit"] == -1 ? "unlimited" : CellText.text($0["limit"] ?? .null) },
        ]

        func execute(_ api: API) async throws {
            let rows = try await QuotaCommand.rows(try await QuotaCommand.project(project, api), api)
            print(try output.list(rows, columns: Usage.columns), terminator: "")
        }
    }

    struct Change: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "set", abstract: "Change the limits of a project (operators).",
            discussion: "Limits: " + items.map(\.name).joined(separator: ", ")
                + "; -1 is unlimited.\nExample: osctl quota set demo servers=20 cores=40")
        @Argument(help: "The project.") var project: String
        @Argument(help: ArgumentHelp("New limits.", valueName: "limit=number")) var limits: [Assignment]
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: API) async throws {
            var bodies: [CloudService: JSONObject] = [:]
            for limit in limits {
                guard let item = items.first(where: { $0.name == limit.name || $0.key == limit.name }) else {
                    throw CommandFailure("There is no limit \(limit.name).", hint: "Limits: " + items.map(\.name).joined(separator: ", "))
                }
                guard let number = Int(limit.value), number >= -1 else {
                    throw CommandFailure("The limit \(limit.name) must be a number of at least -1, not \(limit.value).")
                }
                bodies[item.service, default: [:]][item.key] = JSONValue(number)
            }
            let id = try await QuotaCommand.project(project, api)
            for service in services {
                guard let body = bodies[service] else { continue }
                try await api.client.put(
                    service, path(service, id), .object([member(service): .object(body)]), microversion: microversion(service))
            }
        }
    }
}
