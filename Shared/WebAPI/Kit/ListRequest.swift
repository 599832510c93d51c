package import Database
package import JSON
package import Kernel

/// A requested page of a list.
package struct ListRequest: Sendable {
    package var limit: Int?
    package var marker: String?
    /// Number of rows to skip at the beginning.
    package var offset = 0
    package var sort: [(name: String, descending: Bool)] = []
    /// The direction of the list's default order, if the client specifies one but no key.
    package var descending: Bool?
    package var filters: [(name: String, value: String)] = []
    /// Conditions of parameters that are not fields.
    package var conditions: [SQL] = []
    /// Whether all values of a repeated filter must match; otherwise any of them.
    package var requiresAll = false
    /// Whether the list is one page, regardless of its size.
    package var isWhole = false
    /// Names in `?fields=`; nil for all.
    package var fields: Set<String>?

    package init() {}
}

extension ListRequest {
    /// The requested page of a list in memory, with the same rules as `Table` for lists in the database.
    ///
    /// - Parameters:
    ///   - items: in the list's default order.
    ///   - key: the member used as marker.
    ///   - isReversed: whether the page before the marker is requested, as with Network's `page_reverse`.
    /// - Throws: 400 for a marker that is not in the list, or an unknown sort key.
    package func page(
        of items: [JSONValue], key: String = "id", isReversed: Bool = false
    ) throws -> (items: [JSONValue], more: Bool) {
        var items = items
        for (name, descending) in sort.reversed() {
            let values = items.compactMap { $0[name] }
            guard values.count == items.count else {
                let known = (items.first?.objectValue?.members ?? []).map(\.name).filter { key in items.allSatisfy { $0[key] != nil } }
                throw ListRequest.unknownSortKey(name, known)
            }
            // Equal items keep their order, so that later sort keys are not lost.
            items = items.indices.sorted { left, right in
                let (first, second) = descending ? (values[right], values[left]) : (values[left], values[right])
                if ListRequest.isBefore(first, second) { return true }
                return ListRequest.isBefore(second, first) ? false : left < right
            }.map { items[$0] }
        }
        if sort.isEmpty, descending == true { items.reverse() }
        if isReversed { items.reverse() }
        if let marker {
            guard let place = items.firstIndex(where: { $0[key]?.stringValue == marker || $0[key]?.description == marker }) else {
                throw ResourceError.badRequest("marker [\(marker.prefix(64))] not found")
            }
            items.removeFirst(place + 1)
        }
        let page = Array(items.prefix(min(limit ?? Limits.pageSizeMax, Limits.pageSizeMax)))
        return (isReversed ? page.reversed() : page, items.count > page.count)
    }

    /// PostgreSQL's order: numbers by value, false before true, texts by their bytes, null last.
    private static func isBefore(_ left: JSONValue, _ right: JSONValue) -> Bool {
        if left.isNull || right.isNull { return !left.isNull }
        if let left = left.intValue, let right = right.intValue { return left < right }
        if let left = left.doubleValue, let right = right.doubleValue { return left < right }
        if let left = left.boolValue, let right = right.boolValue { return !left && right }
        return (left.stringValue ?? left.description).utf8.lexicographicallyPrecedes((right.stringValue ?? right.description).utf8)
    }

    /// 400 naming parameter, value and rule.
    package static func unknownSortKey(_ name: String, _ known: [String]) -> ResourceError {
        let rule = known.isEmpty ? "This list cannot be sorted." : "It must be one of \(known.sorted().joined(separator: ", "))."
        return .badRequest("Invalid input for query parameter sort_key. Value: '\(name.prefix(64))'. \(rule)")
    }
}
