import Database
import JSON
import WebAPI

extension ResourceKind {
    /// The known attributes of requests. Other members of a body are stored unchanged.
    var knownMembers: Set<String> { Set(table.fields.filter { $0.presence != .never && $0.name != "extra" }.map(\.name)) }

    /// The row for a body: settable fields, and unknown members in `extra`.
    ///
    /// - Parameter known: known members that are not fields.
    func new(_ id: String, _ body: JSONObject, beside known: Set<String> = []) -> Changes {
        var row = Changes(settings(body))
        row.set("id", id)
        row.set(json: "extra", .object(body.extra(beside: knownMembers.union(known))))
        return row
    }

    /// The changes in a body: settable fields; unknown members are merged into `extra`.
    ///
    /// - Parameter known: known members that are not fields.
    func changes(_ body: JSONObject, beside known: Set<String> = []) -> Changes {
        var changes = Changes(settings(body))
        let extra = body.extra(beside: knownMembers.union(known))
        if !extra.isEmpty { changes.set("extra = extra || \(extra)::jsonb") }
        return changes
    }
}

extension JSONObject {
    /// The members that are not in `known`, which are stored unchanged, as in Keystone.
    fileprivate func extra(beside known: Set<String>) -> JSONObject {
        JSONObject(members.filter { !known.contains($0.name) }.map { ($0.name, $0.value) })
    }
}

extension Changes {
    /// The options of a new resource, without null values.
    mutating func newOptions(_ body: JSONObject) {
        let given = (body["options"]?.objectValue ?? [:]).members.filter { !$0.value.isNull }
        set(json: "options", .object(JSONObject(given.map { ($0.name, $0.value) })))
    }

    /// Merges options; null removes one.
    mutating func options(_ body: JSONObject) {
        guard let options = body["options"]?.objectValue, !options.isEmpty else { return }
        set("options = jsonb_strip_nulls(options || \(options)::jsonb)")
    }
}
