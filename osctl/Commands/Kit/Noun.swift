import ArgumentParser
import Client
import JSON

/// A kind of resource on the command line. One file declares it; the verbs are generic.
protocol Noun {
    /// Options that filter a list.
    associatedtype Filters: FilterArguments = NoFilters
    static var kind: Kind { get }
    /// The commands below the noun.
    static var verbs: [any ParsableCommand.Type] { get }
    static var abstract: String { get }
}

extension Noun {
    static var abstract: String { "\(kind.plural.prefix(1).uppercased())\(kind.plural.dropFirst())." }
}

/// Options of `list` that become query parameters.
protocol FilterArguments: ParsableArguments {
    func query(_ api: CloudAPI) async throws -> [(String, String)]
}

struct NoFilters: FilterArguments {
    func query(_ api: CloudAPI) async throws -> [(String, String)] { [] }
}

/// A resource that can be created.
protocol Creatable: Noun {
    associatedtype CreateOptions: CreateArguments
    /// Sends the request; by default a POST of the options' members to the kind's path.
    static func create(_ options: CreateOptions, _ api: CloudAPI) async throws -> JSONValue
    /// If the options only ask for a preview: prints it and returns true.
    static func preview(_ options: CreateOptions, _ api: CloudAPI, _ output: OutputOptions) async throws -> Bool
}

extension Creatable {
    static func preview(_ options: CreateOptions, _ api: CloudAPI, _ output: OutputOptions) async throws -> Bool { false }

    static func create(_ options: CreateOptions, _ api: CloudAPI) async throws -> JSONValue {
        try await api.create(kind, kind.body(try await options.members(api)))
    }
}

protocol CreateArguments: ParsableArguments {
    /// Members of the request's object.
    func members(_ api: CloudAPI) async throws -> JSONObject
}

/// A resource whose fields can be changed.
protocol Settable: Noun {
    associatedtype SetOptions: SetArguments
    static var setMethod: RESTMethod { get }
    /// Sends `changes`; resources that are changed in other ways override it.
    static func set(_ options: SetOptions, id: String, _ api: CloudAPI) async throws
}

extension Settable {
    static var setMethod: RESTMethod { .put }

    static func set(_ options: SetOptions, id: String, _ api: CloudAPI) async throws {
        let changes = try await options.changes(api)
        guard !changes.isEmpty else { throw ValidationError.nothingToSet(kind) }
        _ = try await api.update(kind, id: id, method: setMethod, changes)
    }
}

protocol SetArguments: ParsableArguments {
    /// Changed members of the object; empty if no option was given.
    func changes(_ api: CloudAPI) async throws -> JSONObject
}

extension ValidationError {
    static func nothingToSet(_ kind: Kind) -> CommandFailure {
        CommandFailure("Nothing to set.", hint: "See: \(kind.commandText) set --help")
    }
}

/// The noun: `osctl network`.
struct ResourceCommand<R: Noun>: ParsableCommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: R.kind.command.last ?? "", abstract: R.abstract, subcommands: R.verbs)
    }
}

/// A command that uses the cloud's APIs.
protocol APICommand: AsyncParsableCommand {
    var access: AccessOptions { get }
    func execute(_ api: CloudAPI) async throws
}

extension APICommand {
    func run() async throws {
        let api = try access.open()
        try await APIErrors.translated(api) { try await execute(api) }
    }
}

/// Changes of resources with only a name and a description.
struct NameAndDescription: SetArguments {
    @Option(name: .customLong("name"), help: "New name.") var newName: String?
    @Option(help: "New description.") var description: String?

    func changes(_ api: CloudAPI) -> JSONObject {
        var changes = JSONObject()
        changes.put("name", newName)
        changes.put("description", description)
        return changes
    }
}
