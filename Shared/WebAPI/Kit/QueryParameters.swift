import JSON
import Kernel

extension RouteAnswer {
    /// The query parameters of a route that answers with a list, for the OpenAPI document.
    var queryParameters: [JSONValue] {
        guard case .list(let kind) = self else { return [] }
        return kind.queryParameters
    }
}

extension ResourceKind {
    /// A copy for lists that take no query parameters.
    package var withoutQuery: ResourceKind {
        var grammar = ListGrammar()
        grammar.isPaged = false
        grammar.hasFields = false
        return ResourceKind(
            name, plural: plural, path: path, table: table.withoutFilters, relation: relation, envelope: envelope,
            visibility: visibility, targets: targets, grammar: grammar, pages: pages, bytesPerRow: bytesPerRow, notFound: notFound)
    }

    /// The parameters of paging and sorting, and the filters.
    fileprivate var queryParameters: [JSONValue] {
        var result: [JSONValue] = []
        if grammar.isPaged {
            result = [
                ResourceKind.parameter("limit", ["type": "integer", "minimum": 0]), ResourceKind.parameter("marker"),
            ]
            let keys = table.fields.filter { $0.sortable }.map(\.name)
            if !keys.isEmpty {
                result.append(ResourceKind.parameter("sort_key", ["type": "string", "enum": JSONValue(keys.distinct)]))
                result.append(ResourceKind.parameter("sort_dir", ["type": "string", "enum": ["asc", "desc"]]))
            }
            if grammar.hasFields { result.append(ResourceKind.parameter("fields")) }
        }
        if grammar.hasSort { result.append(ResourceKind.parameter("sort")) }
        if grammar.hasOffset { result.append(ResourceKind.parameter("offset", ["type": "integer", "minimum": 0])) }
        var seen: Set<String> = []
        for field in table.fields {
            guard let filter = field.filter, seen.insert(field.name).inserted else { continue }
            result.append(ResourceKind.parameter(field, filter))
        }
        return result
    }

    private static func parameter(_ field: Field, _ filter: Field.Filter) -> JSONValue {
        var object = parameter(field.name, filter.comparesFlag ? ["type": "boolean"] : ["type": "string"]).objectValue ?? [:]
        // A filter that needs a privilege in every version has no version from which on everyone can use it.
        if let from = (filter.versions ?? field.versions).from, from.major < Int.max {
            object["x-min-version"] = .string(from.description)
        }
        if let action = filter.privilege ?? field.visibleBy { object["x-policy-action"] = .string(action) }
        return .object(object)
    }

    private static func parameter(_ name: String, _ schema: JSONValue = ["type": "string"]) -> JSONValue {
        ["name": .string(name), "in": "query", "required": false, "schema": schema]
    }
}

extension [String] {
    /// Each name once, in the order of first appearance.
    fileprivate var distinct: [String] {
        var seen: Set<String> = []
        return filter { seen.insert($0).inserted }
    }
}
