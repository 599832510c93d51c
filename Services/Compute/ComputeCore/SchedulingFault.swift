import JSON

/// Why no host was found, for the two readers: counts and reasons for the tenant, hosts for the operator.
package enum SchedulingFault {
    /// - Parameter answer: the scheduler's `rejected` answer.
    package static func texts(_ answer: JSONValue) -> (message: String, details: String?) {
        let filters = (answer["filters"]?.arrayValue ?? []).compactMap(line)
        var message = "No valid host was found."
        if let text = answer["message"]?.stringValue, !text.isEmpty { message = text }
        if !filters.isEmpty { message += " " + filters.joined(separator: "; ") + "." }
        let operators = (answer["operator"]?.arrayValue ?? []).map { entry in
            "\(entry["host"]?.stringValue ?? "?"): \(entry["filter"]?.stringValue ?? "?")"
                + (entry["reason"]?.stringValue.map { " (\($0))" } ?? "")
        }
        return (message, operators.isEmpty ? nil : operators.joined(separator: "\n"))
    }

    /// `ComputeFilter: 3 of 5 hosts (insufficient MEMORY_MB: 3)`; nil for a filter that removed nothing.
    private static func line(_ filter: JSONValue) -> String? {
        guard let name = filter["name"]?.stringValue, let before = filter["hosts_before"]?.intValue,
            let after = filter["hosts_after"]?.intValue, after < before
        else { return nil }
        let reasons = (filter["reasons"]?.objectValue?.members ?? []).map { "\($0.name): \($0.value)" }
        return "\(name) removed \(before - after) of \(before) host\(before == 1 ? "" : "s")"
            + (reasons.isEmpty ? "" : " (\(reasons.joined(separator: ", ")))")
    }
}
