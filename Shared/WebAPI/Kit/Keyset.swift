import Database

/// Conditions for the rows after a marker's row.
///
/// They contain a range of the first sort key, which PostgreSQL reads from an index. Without it, each page of a list would read all
/// previous rows again.
extension Table {
    /// A sort key and the marker's value of it.
    typealias Place = (expression: String, descending: Bool, value: String?)

    /// The condition for rows after a position. NULL sorts as in PostgreSQL: after all values, and before them in descending order.
    func after(_ places: [Place]) -> SQL {
        if places.allSatisfy({ $0.descending == places[0].descending && isNeverNull($0.expression) }) {
            let expressions = places.map(\.expression).joined(separator: ", ")
            let values = SQL.joined(places.map { "\($0.value)" }, separator: ", ")
            return "(\(raw: expressions)) \(raw: places[0].descending ? "<" : ">") (\(values))"
        }
        var alternatives: [SQL] = []
        var ties: [SQL] = []
        for place in places {
            if let beyond = beyond(place) { alternatives.append("(" + SQL.joined(ties + [beyond], separator: " AND ") + ")") }
            ties.append(place.value == nil ? "(\(raw: place.expression)) IS NULL" : "\(raw: place.expression) = \(place.value)")
        }
        let any: SQL = "(" + SQL.joined(alternatives, separator: " OR ") + ")"
        return range(places[0]).map { $0 + " AND " + any } ?? any
    }

    /// A range that contains all rows after a position; nil if NULLs follow, which no range of values contains.
    private func range(_ place: Place) -> SQL? {
        guard let value = place.value, place.descending || isNeverNull(place.expression) else { return nil }
        return "\(raw: place.expression) \(raw: place.descending ? "<=" : ">=") \(value)"
    }

    /// The condition for values that sort after the position's; nil if there are none.
    private func beyond(_ place: Place) -> SQL? {
        switch (place.value, place.descending) {
        case (nil, false): nil
        case (nil, true): "(\(raw: place.expression)) IS NOT NULL"
        case (let value?, true): "\(raw: place.expression) < \(value)"
        case (let value?, false) where isNeverNull(place.expression): "\(raw: place.expression) > \(value)"
        case (let value?, false): "(\(raw: place.expression) > \(value) OR (\(raw: place.expression)) IS NULL)"
        }
    }

    /// Keys and times of creation always have a value; a test asks the schema.
    private func isNeverNull(_ expression: String) -> Bool { expression == key || expression == "t.created_at" }
}
