import Database
import JSON
import Kernel

/// A page of a list as asked for.
package struct ListRequest: Sendable {
    package var limit: Int?
    package var marker: String?
    /// How many rows are left out at the beginning.
    package var offset = 0
    package var sort: [(name: String, descending: Bool)] = []
    /// The direction of the list's own order, where the client names one and no key.
    package var descending: Bool?
    package var filters: [(name: String, value: String)] = []
    /// Conditions of parameters that are no field's.
    package var conditions: [SQL] = []
    /// Whether values of a repeated filter must all fit; otherwise any of them.
    package var requiresAll = false
    /// Whether the list comes as one page, whatever its size.
    package var isWhole = false
    /// Names of `?fields=`; nil for all.
    package var fields: Set<String>?

    package init() {}
}

extension ListRequest {
    /// The page of a list that is at hand whole, as `Table` pages what is in the database.
    ///
    /// - Parameters:
    ///   - items: in the list's own order.
    ///   - key: the member that markers name.
    ///   - isReversed: whether the page before the marker is meant, as with Network's `page_reverse`.
    /// - Throws: 400 for a marker that is not in the list, or a sort key that its items do not have.
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
            // By place where equal, so that the order of the keys after this one stays.
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

    /// The order of PostgreSQL: numbers by size, false before true, texts by their bytes, null after all else.
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
