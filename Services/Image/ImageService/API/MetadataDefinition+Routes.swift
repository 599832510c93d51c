import Authorization
import ImageAccess
import JSON
import Kernel
import WebAPI

/// The catalog of metadata definitions, which is always empty. Its schemas and lists exist because clients (Horizon's forms for
/// images and flavors) request them. Definitions cannot be created.
extension ImageHandlers {
    var metadataDefinitionResource: Resource {
        let namespaces = "/v2/metadefs/namespaces"
        let one = namespaces + "/{namespace}"
        let parts = ["objects", "properties", "tags", "resource_types"]
        return Resource(
            "metadata definition",
            routes: MetadataDefinitionSchemas.all.map { schema("metadefs/\($0.name)", $0.schema) } + [
                Route(
                    .get, namespaces, action: "get_metadef_namespaces", rule: ImageRules.rule("get_metadef_namespaces"),
                    "List namespaces: there are none"
                ) { context in
                    try context.authorize(target: .none)
                    try EmptyPage.check(
                        context, sortKeys: ["created_at", "namespace", "updated_at"],
                        filters: ["resource_types", "properties_target", "visibility"])
                    return .json(200, ["namespaces": [], "schema": "/v2/schemas/metadefs/namespaces", "first": .string(namespaces)])
                },
                Route(
                    .get, "/v2/metadefs/resource_types", action: "list_metadef_resource_types",
                    rule: ImageRules.rule("list_metadef_resource_types"), "List resource types: there are none"
                ) { context in
                    try context.authorize(target: .none)
                    try EmptyPage.check(context)
                    return .json(200, ["resource_types": []])
                },
                missing(one, action: "get_metadef_namespace"),
            ] + parts.map { missing("\(one)/\($0)", action: "get_metadef_\($0)") })
    }

    private func missing(_ path: String, action: String) -> Route {
        Route(.get, path, action: action, rule: ImageRules.rule(action), "Show a namespace's part: there is none") { context in
            try context.authorize(target: .none)
            throw ResourceError.notFound("Metadata definition namespace not found: \(context.parameter("namespace").prefix(80))")
        }
    }
}

/// Parameters of empty lists: malformed ones are refused as in other lists.
enum EmptyPage {
    /// - Parameter filters: names of the list's filters, which have no effect.
    /// - Throws: 400 naming parameter, value and rule; 404 for any marker.
    static func check(_ context: RequestContext, sortKeys: Set<String> = [], filters: Set<String> = []) throws {
        for (name, value) in context.query.pagingItems {
            switch name {
            case "limit":
                guard let limit = Int(value), limit >= 0 else { throw invalid(name, value, "a whole number from 0 on") }
            case "sort_dir" where !sortKeys.isEmpty:
                guard ["asc", "desc"].contains(value) else { throw invalid(name, value, "asc or desc") }
            case "sort_key" where !sortKeys.isEmpty:
                guard sortKeys.contains(value) else { throw invalid(name, value, "one of " + sortKeys.sorted().joined(separator: ", ")) }
            case "marker": throw ResourceError.notFound("There is nothing with the marker '\(value.prefix(64))'.")
            default:
                guard filters.contains(name) else {
                    throw ResourceError.badRequest("Invalid query parameter '\(name.prefix(64))': the list has no parameter of this name.")
                }
            }
        }
    }

    private static func invalid(_ name: String, _ value: String, _ rule: String) -> ResourceError {
        .badRequest("Invalid value for '\(name)': '\(value.prefix(64))'. It must be \(rule).")
    }
}
