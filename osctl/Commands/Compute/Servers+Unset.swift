import ArgumentParser
import Client
import JSON
import ServiceCatalog

extension Servers {
    struct Unset: APICommand {
        static let configuration = CommandConfiguration(abstract: "Remove properties, tags or the description of a server.")
        @Argument(help: "The server.") var server: String
        @Option(help: ArgumentHelp("A property (repeatable).", valueName: "key")) var property: [String] = []
        @Option(help: ArgumentHelp("A tag (repeatable).", valueName: "tag")) var tag: [String] = []
        @Flag(help: "The description.") var description = false
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            guard !property.isEmpty || !tag.isEmpty || description else {
                throw CommandFailure("Nothing to unset.", hint: "See: osctl server unset --help")
            }
            let path = kind.path(id: try await api.id(kind, server))
            for key in property { try await api.client.delete(.compute, path + "/metadata/\(key)", microversion: kind.microversion) }
            for tag in tag { try await api.client.delete(.compute, path + "/tags/\(tag)", microversion: kind.microversion) }
            if description {
                _ = try await api.client.put(
                    .compute, path, ["server": ["description": .null]], microversion: kind.microversion)
            }
        }
    }
}
