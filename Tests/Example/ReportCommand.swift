import ArgumentParser
import Client
import JSON
import ServiceCatalog

@testable import osctl

// guide: osctl
enum ReportCommand: Creatable {
    static let kind = Kind(
        command: ["report"], noun: "report", service: .example, path: "/reports", member: "report", collection: "reports",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Status", "status"), OutputColumn("Sections", "sections"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Create<Self>.self, Delete<Self>.self]

    struct CreateOptions: CreateArguments {
        @Argument(help: "The report's name.") var name: String
        @Option(help: "How many sections it has.") var sections = 1

        func members(_ api: CloudAPI) async throws -> JSONObject { ["name": .string(name), "sections": JSONValue(sections)] }
    }
}
// guide: end
