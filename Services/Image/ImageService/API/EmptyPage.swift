import Kernel
import WebAPI

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
