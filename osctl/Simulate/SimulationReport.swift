import Inspections
import JSON
import ServiceCatalog

/// The measurements of a simulation.
struct SimulationReport: Sendable {
    var hosts = 0
    var servers = 0
    var accepted = 0
    /// Seconds from the first POST until the last server was in its final state.
    var makespan = 0.0
    /// Durations of POSTs in seconds, sorted.
    var requests: [Double] = []
    /// Seconds from acceptance to ACTIVE by the control plane's clock, sorted.
    var builds: [Double] = []
    /// The number of failures of servers or requests, by reason.
    var failures: [String: Int] = [:]
    var findings: [Finding] = []

    var active: Int { builds.count }
    var isClean: Bool { findings.isEmpty && active + failures.values.reduce(0, +) == servers }

    /// The value below which the share `share` of the sorted values lies.
    static func percentile(_ values: [Double], _ share: Double) -> Double {
        values.isEmpty ? 0 : values[min(values.count - 1, Int(Double(values.count) * share))]
    }

    private func line(_ values: [Double]) -> String {
        let words = [0.5, 0.9, 0.99, 1].map { share in
            "p\(Int(share * 100)) \(SimulationReport.milliseconds(SimulationReport.percentile(values, share)))"
        }
        return words.joined(separator: ", ")
    }

    private static func milliseconds(_ seconds: Double) -> String {
        seconds < 10 ? "\(Int(seconds * 1000)) ms" : "\(Int(seconds)) s"
    }

    var text: String {
        var lines = [
            """
            \(servers) servers on \(hosts) simulated hosts: \(active) ACTIVE in \(Narrator.seconds(makespan)), \
            \(Int(Double(active) / max(makespan, 0.001))) per second
            """,
            "POST /servers      \(line(requests))",
            "accepted to ACTIVE \(line(builds))",
        ]
        lines += failures.sorted { $0.value > $1.value }.map { "failed: \($0.value) × \($0.key)" }
        lines += findings.isEmpty ? ["all rules hold"] : findings.map { "broken: \($0.invariant) \($0.words)" }
        return lines.joined(separator: "\n")
    }

    var document: JSONValue {
        func shares(_ values: [Double]) -> JSONValue {
            [
                "p50": .double(SimulationReport.percentile(values, 0.5)), "p90": .double(SimulationReport.percentile(values, 0.9)),
                "p99": .double(SimulationReport.percentile(values, 0.99)), "max": .double(values.last ?? 0),
            ]
        }
        return [
            "hosts": JSONValue(hosts), "servers": JSONValue(servers), "accepted": JSONValue(accepted), "active": JSONValue(active),
            "makespan_seconds": .double(makespan), "post_seconds": shares(requests), "build_seconds": shares(builds),
            "failures": .object(JSONObject(failures.sorted { $0.key < $1.key }.map { ($0.key, JSONValue($0.value)) })),
            "broken_rules": .array(findings.map { .string($0.words) }),
        ]
    }
}
