import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum Snapshots: Creatable, Settable {
    static let kind = Kind(
        command: ["volume", "snapshot"], noun: "volume snapshot", service: .blockStorage, path: "/snapshots",
        listPath: "/snapshots/detail", member: "snapshot", collection: "snapshots", microversion: Volumes.microversion,
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Status", "status"), OutputColumn("Size GB", "size"),
            OutputColumn("Volume", "volume_id"), OutputColumn("Created", "created_at"),
        ],
        progress: ProgressRule(field: "status", created: ["available"], failed: ["error", "error_deleting"]))
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self,
    ]

    struct Filters: FilterArguments {
        @Option(help: ArgumentHelp("Only of this volume.", valueName: "volume")) var volume: String?

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            guard let volume else { return [] }
            return [("volume_id", try await api.id(Volumes.kind, volume))]
        }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The snapshot's name.") var name: String
        @Option(help: ArgumentHelp("The volume.", valueName: "volume")) var volume: String
        @Option(help: "A description.") var description: String?
        @Flag(help: "Even if the volume is in use.") var force = false

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name), "volume_id": .string(try await api.id(Volumes.kind, volume))]
            members.put("description", description)
            if force { members["force"] = true }
            return members
        }
    }

    typealias SetOptions = NameAndDescription
}
