import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// Namespaces of metadata definitions.
enum Metadefs: Creatable {
    static let kind = Kind(
        command: ["image", "metadef"], noun: "metadata namespace", service: .image, path: "/metadefs/namespaces", member: nil,
        collection: "namespaces", naming: .byPath, nameField: "namespace", idField: "namespace",
        columns: [
            OutputColumn("Namespace", "namespace"), OutputColumn("Name", "display_name"), OutputColumn("Visibility", "visibility"),
            OutputColumn("Protected", "protected"),
            OutputColumn("For", "resource_type_associations") { namespace in
                (namespace["resource_type_associations"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }.joined(separator: ", ")
            },
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Create<Self>.self, Delete<Self>.self]

    enum Visibility: String, ExpressibleByArgument, CaseIterable { case `public`, `private` }

    struct Filters: FilterArguments {
        @Option(help: "public or private.") var visibility: Visibility?
        @Option(help: ArgumentHelp("Only those for a type of resources.", valueName: "OS::Nova::Flavor")) var resourceType: String?

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            var query: [(String, String)] = []
            if let visibility { query.append(("visibility", visibility.rawValue)) }
            if let resourceType { query.append(("resource_types", resourceType)) }
            return query
        }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The namespace: Company::Topic.") var namespace: String
        @Option(help: "The name that users see.") var displayName: String?
        @Option(help: "Its purpose.") var description: String?
        @Option(help: "public or private.") var visibility: Visibility?
        @Flag(help: "Protect it from deletion.") var protected = false
        @Option(
            help: ArgumentHelp("A JSON file with properties, objects, tags and resource_type_associations.", valueName: "file"),
            completion: .file())
        var definitions: String?

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members = JSONObject()
            if let definitions { members = try Metadefs.read(definitions) }
            members["namespace"] = .string(namespace)
            members.put("display_name", displayName)
            members.put("description", description)
            members.put("visibility", visibility?.rawValue)
            if protected { members["protected"] = true }
            return members
        }
    }

    /// - Throws: `CommandFailure` for a file that is not a JSON object.
    private static func read(_ path: String) throws -> JSONObject {
        guard let bytes = Machine.read(path) else { throw CommandFailure("The file \(path) cannot be read.") }
        do {
            if let object = try JSONValue.parse(bytes).objectValue { return object }
        } catch {
            throw CommandFailure("\(path) is not JSON: \(error)")
        }
        throw CommandFailure("\(path) is not a JSON object.")
    }
}
