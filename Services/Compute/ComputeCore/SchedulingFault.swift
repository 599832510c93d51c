package import Contracts

/// Why no host was found, for the two readers: counts and reasons for the tenant, hosts for the operator.
package enum SchedulingFault {
    /// - Parameter answer: the scheduler's answer for a server that it rejects.
    package static func texts(_ answer: SchedulingAnswer) -> (message: String, details: String?) {
        let filters = (answer.filters ?? []).compactMap(line)
        var message = "No valid host was found."
        if let text = answer.message, !text.isEmpty { message = text }
        if !filters.isEmpty { message += " " + filters.joined(separator: "; ") + "." }
        let refusals = (answer.refusals ?? []).map { "\($0.host): \($0.filter) (\($0.reason))" }
        return (message, refusals.isEmpty ? nil : refusals.joined(separator: "\n"))
    }

    /// `ComputeFilter removed 3 of 5 hosts (insufficient MEMORY_MB: 3)`; nil for a filter that removed nothing.
    private static func line(_ filter: SchedulingAnswer.Filter) -> String? {
        guard filter.hostsAfter < filter.hostsBefore else { return nil }
        let reasons = filter.reasons.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
        return
            """
            \(filter.name) removed \(filter.hostsBefore - filter.hostsAfter) of \(filter.hostsBefore) \
            host\(filter.hostsBefore == 1 ? "" : "s")
            """
                + (reasons.isEmpty ? "" : " (\(reasons.joined(separator: ", ")))")
    }
}
