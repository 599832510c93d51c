import ArgumentParser
import Client
import JSON
import Kernel

/// `--wait`, for verbs with a delayed effect.
struct WaitOptions: ParsableArguments {
    @Flag(help: "Wait until it is complete, and show the progress.") var wait = false
    @Option(help: ArgumentHelp("Wait at most this long.", valueName: "seconds")) var timeout = 600

    func validate() throws {
        guard timeout > 0 else { throw ValidationError("--timeout must be at least 1 second, not \(timeout).") }
    }
}

/// `create`: posts the object, waits if requested, shows the new object.
struct Create<R: Creatable>: APICommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: "create", abstract: "Create \(R.kind.oneOf).")
    }

    @OptionGroup var options: R.CreateOptions
    @OptionGroup var waiting: WaitOptions
    @OptionGroup(title: "Output") var output: OutputOptions
    @OptionGroup(title: "Cloud") var access: AccessOptions

    func execute(_ api: CloudAPI) async throws {
        if try await R.preview(options, api, output) { return }
        var object = try await R.create(options, api)
        if let rule = R.kind.progress, let id = object[R.kind.idField]?.stringValue {
            if waiting.wait {
                object = try await Waiter(api, limit: waiting.timeout).reach(rule.created, R.kind, id: id, rule: rule)
            } else if object[rule.field] == nil {
                // The response to a creation has fewer fields than the object.
                object = try await api.get(R.kind, id: id).overlaid(on: object)
            }
        }
        print(try output.object(object, fields: R.kind.fields), terminator: "")
    }
}

/// `set`: changes fields of one object.
struct SetFields<R: Settable>: APICommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: "set", abstract: "Change \(R.kind.oneOf).")
    }

    @Argument(help: ArgumentHelp("Name or id.", valueName: R.kind.command.last ?? "name")) var name: String
    @OptionGroup var options: R.SetOptions
    @OptionGroup(title: "Cloud") var access: AccessOptions

    func execute(_ api: CloudAPI) async throws {
        try await R.set(options, id: try await api.id(R.kind, name), api)
    }
}

/// `delete`: any number of objects; continues after a failure and fails at the end.
struct Delete<R: Noun>: APICommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: "delete", abstract: "Delete \(R.kind.plural).")
    }

    @Argument(help: ArgumentHelp("Names or ids.", valueName: R.kind.command.last ?? "name")) var names: [String]
    @OptionGroup var waiting: WaitOptions
    @OptionGroup(title: "Cloud") var access: AccessOptions

    func execute(_ api: CloudAPI) async throws {
        var deleted: [(name: String, id: String)] = []
        let failures = await Several.run(names, api) { name in
            let id = try await api.id(R.kind, name)
            try await api.client.delete(R.kind.service, R.kind.path(id: id), microversion: R.kind.microversion)
            deleted.append((name, id))
        }
        for (name, id) in deleted {
            if waiting.wait, let rule = R.kind.progress {
                try await Waiter(api, limit: waiting.timeout).gone(R.kind, id: id, name: name, rule: rule)
            }
            print("Deleted \(R.kind.noun) \(name).")
        }
        if failures > 0 { throw ExitCode(1) }
    }
}

/// Tries all objects and reports failures immediately.
enum Several {
    /// - Returns: the number of failures.
    static func run(_ names: [String], _ api: CloudAPI, _ body: (String) async throws -> Void) async -> Int {
        var failures = 0
        for name in names {
            do {
                try await APIErrors.translated(api) { try await body(name) }
            } catch {
                failures += 1
                Machine.write(to: 2, "Error: \(names.count > 1 ? name + ": " : "")\(error)\n")
            }
        }
        return failures
    }
}

extension JSONValue {
    /// The members of both; this value's own members take precedence.
    func overlaid(on other: JSONValue) -> JSONValue { CloudsFile.merge(other, self) }
}
