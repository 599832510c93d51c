import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// `osctl quota defaults …`: the limits of projects without limits of their own, of the services whose API has them.
struct QuotaDefaultsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "defaults", abstract: "Limits of projects without limits of their own (operators).",
        subcommands: [Show.self, Change.self])

    private static let services = QuotaCommand.services.filter(\.quotas.hasDefaultClass)
    private static let items = QuotaCommand.items.filter { item in services.contains { $0.service == item.service } }
    private static let path: RESTPath = "/os-quota-class-sets/default"
    private static let member = "quota_class_set"

    struct Show: APICommand {
        static let configuration = CommandConfiguration(abstract: "Show the default limits.")
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            var rows: [JSONValue] = []
            for (service, interface) in services {
                let answer = try await api.client.get(service, path, microversion: interface.microversion)[member]
                for item in items where item.service == service {
                    guard let limit = answer?[item.key] else { continue }
                    rows.append(["resource": .string(item.name), "limit": limit])
                }
            }
            print(try QuotaCommand.text(rows, output), terminator: "")
        }
    }

    struct Change: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "set", abstract: "Change the default limits.",
            discussion: "Limits: " + items.map(\.name).joined(separator: ", ")
                + "; -1 is unlimited.\nExample: osctl quota defaults set servers=20 cores=40")
        @Argument(help: ArgumentHelp("New limits.", valueName: "limit=number")) var limits: [Assignment]
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let bodies = try QuotaCommand.bodies(limits, of: items)
            for (service, interface) in services {
                guard let body = bodies[service] else { continue }
                try await api.client.put(service, path, .object([member: .object(body)]), microversion: interface.microversion)
            }
        }
    }
}
