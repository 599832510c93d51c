package import Database
package import Kernel
import ServiceCatalog

/// The syntax of list queries in a service's API.
package struct ListGrammar: Sendable {
    /// How unknown parameters are treated.
    package enum Unknown: Sendable {
        case ignored
        case refused
        /// Refused if there is an error for it, otherwise ignored.
        case decided(@Sendable (RequestContext, _ name: String) -> ResourceError?)
        /// A filter by a name that clients choose, such as a property.
        case filter(@Sendable (_ name: String, _ value: String) throws -> SQL)
    }

    /// The meaning of `sort_key` without a direction, and of missing directions.
    package enum Directions: Sendable {
        /// One direction for each key; ascending by default.
        case ascending
        /// Descending by default; the last direction applies to all following keys.
        case descending
    }

    /// Names that the service interprets itself.
    package var ignoring: Set<String> = []
    package var unknown = Unknown.ignored
    /// The error for a repeated parameter that may not be repeated.
    package var repetition: @Sendable (_ name: String) -> ResourceError = {
        .badRequest("Invalid query parameter '\($0.prefix(64))': it is given more than once.")
    }
    package var directions = Directions.ascending
    /// Whether `fields` selects the members to show.
    package var hasFields = true
    /// Whether `sort=key:asc,key:desc` is supported.
    package var hasSort = false
    /// Whether `offset` skips rows.
    package var hasOffset = false
    /// The default page size; nil for `limitMax`.
    package var limit: Int?
    package var limitMax = Limits.pageSizeMax
    /// Whether `limit=0` requests an empty page; otherwise it requests `limitMax`.
    package var allowsEmptyPage = false
    /// Whether all values of a repeated filter must match; otherwise any of them.
    package var requiresAll = false
    /// Whether lists have pages. If not, `limit`, `marker` and sorting are parameters like others.
    package var isPaged = true

    package init() {}

    package init(_ change: (inout ListGrammar) -> Void) { change(&self) }
}

extension ListRequest {
    /// Parses paging, sorting, `fields` and filters from the query.
    ///
    /// - Parameter filter: the filter of a name in the request's version; nil if the list has none.
    /// - Throws: 400 naming parameter, value and rule.
    init(_ context: RequestContext, _ grammar: ListGrammar, filter: (String) -> Field.Filter?) throws {
        self.init()
        limit = grammar.limit
        requiresAll = grammar.requiresAll
        isWhole = !grammar.isPaged
        fields = grammar.hasFields ? context.query.fields : nil
        var directions: [Bool] = []
        var keys: [String] = []
        var seen: Set<String> = []
        let items = grammar.isPaged ? context.query.pagingItems : context.query.items
        for (name, value) in items {
            switch name {
            case "limit" where grammar.isPaged: limit = try ListRequest.limit(value, grammar)
            case "marker" where grammar.isPaged: marker = value.isEmpty ? nil : value
            case "sort_key" where grammar.isPaged: keys.append(value)
            case "sort_dir" where grammar.isPaged: directions.append(try ListRequest.isDescending(value, name))
            case "sort" where grammar.hasSort: sort = try ListRequest.sorting(value)
            case "fields" where grammar.isPaged && grammar.hasFields: break
            case "offset" where grammar.hasOffset: offset = try context.offset(value)
            default:
                if let filter = filter(name) {
                    guard seen.insert(name).inserted || filter.repeatable.contains(context.version) else { throw grammar.repetition(name) }
                    filters.append((name, value))
                } else if !grammar.ignoring.contains(name) {
                    try read(name, value, context, grammar.unknown)
                }
            }
        }
        try order(keys, directions, grammar)
    }

    private mutating func read(_ name: String, _ value: String, _ context: RequestContext, _ unknown: ListGrammar.Unknown) throws {
        switch unknown {
        case .ignored: break
        case .refused: throw ResourceError.badRequest("Invalid query parameter '\(name.prefix(64))'.")
        case .decided(let decide): if let error = decide(context, name) { throw error }
        case .filter(let condition): conditions.append(try condition(name, value))
        }
    }

    private mutating func order(_ keys: [String], _ directions: [Bool], _ grammar: ListGrammar) throws {
        guard sort.isEmpty || (keys.isEmpty && directions.isEmpty) else {
            throw ResourceError.badRequest("The parameter 'sort' cannot be combined with 'sort_key' and 'sort_dir'.")
        }
        if keys.isEmpty { descending = directions.first ?? descending }
        for (index, key) in keys.enumerated() {
            switch grammar.directions {
            case .ascending: sort.append((key, index < directions.count ? directions[index] : false))
            case .descending: sort.append((key, directions.isEmpty || directions[min(index, directions.count - 1)]))
            }
        }
        if case .ascending = grammar.directions, directions.count > max(keys.count, 1) {
            throw ResourceError.badRequest(
                "Invalid query parameter 'sort_dir': there are \(directions.count) directions for \(keys.count) sort keys.")
        }
    }

    private static func sorting(_ text: String) throws -> [(name: String, descending: Bool)] {
        try text.split(separator: ",", omittingEmptySubsequences: false).map { item in
            let parts = item.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count <= 2, !parts[0].isEmpty else {
                throw ResourceError.badRequest(
                    """
                    Invalid input for query parameter sort. Value: '\(text.prefix(64))'. It must be a list of sort \
                    keys, each with :asc or :desc.
                    """
                )
            }
            return (String(parts[0]), try parts.count < 2 || isDescending(String(parts[1]), "sort"))
        }
    }

    private static func limit(_ text: String, _ grammar: ListGrammar) throws -> Int {
        guard let limit = Int(text), limit >= 0 else {
            throw ResourceError.badRequest(
                "Invalid input for query parameter limit. Value: '\(text.prefix(64))'. It must be a whole number from 0 on.")
        }
        return limit == 0 && !grammar.allowsEmptyPage ? grammar.limitMax : min(limit, grammar.limitMax)
    }

    private static func isDescending(_ text: String, _ name: String) throws -> Bool {
        guard ["asc", "desc"].contains(text) else {
            throw ResourceError.badRequest(
                "Invalid input for query parameter \(name). Value: '\(text.prefix(64))'. It must be asc or desc.")
        }
        return text == "desc"
    }
}

extension RequestContext {
    /// Parses paging, sorting, `fields` and filters from the query of a list without a `ResourceKind`.
    ///
    /// - Parameters:
    ///   - filters: names of the list's filters.
    ///   - ignoring: names that the caller interprets itself.
    ///   - hasOffset: whether `offset` skips rows.
    ///   - strict: whether unknown parameters are refused. By default Compute refuses them from 2.75 on, as Nova does.
    /// - Throws: 400 naming parameter, value and rule.
    package func listRequest(
        filters: Set<String>, ignoring: Set<String> = [], hasOffset: Bool = false, strict: Bool? = nil
    ) throws -> ListRequest {
        let grammar = ListGrammar {
            $0.ignoring = ignoring
            $0.hasOffset = hasOffset
            $0.unknown = strict ?? (service.faults == .compute && version(atLeast: 2, 75)) ? .refused : .ignored
            // Zero means an empty page in Compute and Block Storage, and no limit elsewhere.
            $0.allowsEmptyPage = service.faults.pageOfZeroIsEmpty
            $0.limitMax = Int(Int32.max)
        }
        return try ListRequest(self, grammar) { filters.contains($0) ? .equals : nil }
    }

    /// - Throws: 400 for a value that is not a whole number of at least 0.
    package func offset(_ text: String) throws -> Int {
        guard let offset = Int(text), (0...Int(Int32.max)).contains(offset) else {
            throw ResourceError.badRequest(
                "Invalid input for query parameter offset. Value: '\(text.prefix(64))'. It must be a whole number from 0 on.")
        }
        return offset
    }

    /// This request's URL.
    package var selfLink: String {
        let text = query.encoded
        return "\(publicURL)\(path)" + (text.isEmpty ? "" : "?" + text)
    }

    /// This request's URL with another marker.
    package func nextLink(marker: String) -> String { "\(publicURL)\(pathAndQuery(marker: marker))" }

    /// The path and query of this request with another marker, or with none.
    ///
    /// - Parameter path: replaces the path of the request.
    package func pathAndQuery(
        marker: String?, replacing replaced: [(name: String, value: String?)] = [], path: String? = nil
    ) -> String {
        let path = path ?? self.path
        let others = replaced + [("marker", marker)]
        var items = query.items.filter { item in !others.contains { $0.name == item.name } }
        if let marker { items.append((name: "marker", value: marker)) }
        for case (let name, let value?) in replaced { items.append((name: name, value: value)) }
        let text = items.map { "\(PercentEncoding.encode($0.name))=\(PercentEncoding.encode($0.value))" }.joined(separator: "&")
        return path + (text.isEmpty ? "" : "?" + text)
    }
}
