import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// `osctl quota`: the limits and usage of a project in all services.
struct QuotaCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quota", abstract: "Limits and usage of a project.",
        subcommands: [Show.self, Usage.self, Change.self, QuotaDefaultsCommand.self])

    /// A quota of one service, under the name that users know.
    struct Item: Sendable {
        let name: String
        let service: CloudService
        /// The name in the service's API.
        let key: String
    }

    static let items: [Item] = services.flatMap { service, quotas in
        quotas.resources.map { Item(name: $0.name, service: service, key: $0.key) }
    }

    static let services: [(service: CloudService, quotas: QuotaInterface)] = CloudService.all.compactMap { service in
        service.quotas.map { (service, $0) }
    }

    /// The project in an argument, or the token's own.
    static func project(_ name: String?, _ api: CloudAPI) async throws -> String {
        guard let name else { return try await api.project() }
        let own = try await api.client.token()
        if own.document["project"]?["name"]?.stringValue == name, let id = own.projectID { return id }
        return try await api.id(Projects.kind, name)
    }

    private static func path(_ quotas: QuotaInterface, _ project: String) -> RESTPath { RESTPath(encoded: quotas.path) + "/\(project)" }

    /// Rows with `service`, `resource`, `limit`, `used`, `reserved`, in the order of `items`.
    static func rows(_ project: String, _ api: CloudAPI) async throws -> [JSONValue] {
        var rows: [JSONValue] = []
        for (service, interface) in services {
            let answer = try await api.client.get(
                service, path(interface, project) + RESTPath(encoded: interface.usagePath), query: interface.usageQuery,
                microversion: interface.microversion)
            guard let quotas = answer[interface.member] else { continue }
            for item in items where item.service == service {
                guard let quota = quotas[item.key] else { continue }
                rows.append([
                    "service": .string(service.name), "resource": .string(item.name),
                    "limit": quota["limit"] ?? .null, "used": quota["in_use"] ?? quota["used"] ?? .null,
                    "reserved": quota["reserved"] ?? .null,
                ])
            }
        }
        return rows
    }

    /// The members of requests that set `limits`, by service.
    ///
    /// - Throws: `CommandFailure` for a limit that is not in `items`, or that is not a number.
    static func bodies(_ limits: [Assignment], of items: [Item]) throws -> [CloudService: JSONObject] {
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
        return bodies
    }

    /// A table of limits.
    static func text(_ rows: [JSONValue], _ output: OutputOptions) throws -> String {
        let limits = rows.map { ($0["resource"]?.stringValue ?? "", $0["limit"] ?? .null) }
        let fields = limits.map { name, limit in OutputColumn(name, name) { _ in limit == -1 ? "unlimited" : CellText.text(limit) } }
        return try output.object(.object(JSONObject(limits)), fields: fields)
    }

    struct Show: APICommand {
        static let configuration = CommandConfiguration(abstract: "Show the limits of a project.")
        @Argument(help: "The project; by default your own.") var project: String?
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let rows = try await QuotaCommand.rows(try await QuotaCommand.project(project, api), api)
            print(try QuotaCommand.text(rows, output), terminator: "")
        }
    }

    struct Usage: APICommand {
        static let configuration = CommandConfiguration(abstract: "Show the usage and the limits of a project.")
        @Argument(help: "The project; by default your own.") var project: String?
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        static let columns = [
            OutputColumn("Service", "service"), OutputColumn("Resource", "resource"), OutputColumn("Used", "used"),
            OutputColumn("Reserved", "reserved"),
            OutputColumn("Limit", "limit") { $0["limit"] == -1 ? "unlimited" : CellText.text($0["limit"] ?? .null) },
        ]

        func execute(_ api: CloudAPI) async throws {
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

        func execute(_ api: CloudAPI) async throws {
            let bodies = try QuotaCommand.bodies(limits, of: items)
            let id = try await QuotaCommand.project(project, api)
            for (service, quotas) in services {
                guard let body = bodies[service] else { continue }
                try await api.client.put(
                    service, path(quotas, id), .object([quotas.member: .object(body)]), microversion: quotas.microversion)
            }
        }
    }
}
