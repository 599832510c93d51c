import ArgumentParser
import JSON

/// `list`: one request, or one per page.
struct List<R: Noun>: APICommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: "list", abstract: "List \(R.kind.plural).")
    }

    @OptionGroup var filters: R.Filters
    @Option(name: .customLong("filter"), help: ArgumentHelp("A filter of the API, as key=value (repeatable).", valueName: "key=value"))
    var queries: [Assignment] = []
    @Option(
        parsing: .unconditional, help: ArgumentHelp("Sort by this column; with a leading minus in descending order.", valueName: "column"))
    var sort: String?
    @Option(help: "At most this many.") var limit: Int?
    @OptionGroup(title: "Output") var output: OutputOptions
    @OptionGroup(title: "Cloud") var access: AccessOptions

    func execute(_ api: CloudAPI) async throws {
        var query = try await filters.query(api) + queries.map { ($0.name, $0.value) }
        if let limit, sort == nil { query.append(("limit", String(min(limit, 1000)))) }
        var elements = try await api.list(R.kind, query: query, limit: sort == nil ? limit : nil)
        if let sort {
            let isDown = sort.hasPrefix("-")
            let name = (isDown ? String(sort.dropFirst()) : sort).lowercased()
            let column = R.kind.columns.first { $0.heading.lowercased() == name } ?? OutputColumn(name, name)
            elements.sort { List.isBefore(column, isDown ? $1 : $0, isDown ? $0 : $1) }
            if let limit { elements = Array(elements.prefix(limit)) }
        }
        print(try output.list(elements, columns: R.kind.columns), terminator: "")
    }

    private static func isBefore(_ column: OutputColumn, _ left: JSONValue, _ right: JSONValue) -> Bool {
        if let left = column.raw(left).doubleValue, let right = column.raw(right).doubleValue { return left < right }
        return column.text(left) < column.text(right)
    }
}

/// `show`: one object, by id or name.
struct Show<R: Noun>: APICommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: "show", abstract: "Show \(R.kind.oneOf).")
    }

    @Argument(help: ArgumentHelp("Name or id.", valueName: R.kind.command.last ?? "name")) var name: String
    @OptionGroup(title: "Output") var output: OutputOptions
    @OptionGroup(title: "Cloud") var access: AccessOptions

    func execute(_ api: CloudAPI) async throws {
        print(try output.object(try await api.find(R.kind, name), fields: R.kind.fields), terminator: "")
    }
}
