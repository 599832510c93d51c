import Kernel
import Synchronization

/// The counters, gauges and histograms of a process, in Prometheus' text format (version 0.0.4).
package final class Metrics: Sendable {
    private enum Kind: String {
        case counter, gauge, histogram
    }

    private struct Family {
        var kind: Kind
        var help: String
        var values: [String: Double] = [:]
        var histograms: [String: [UInt64]] = [:]
        var sums: [String: Double] = [:]
    }

    /// Upper bounds of the latency buckets, in seconds.
    package static let buckets: [Double] = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300,
    ]

    /// Maximum number of series per name; further label sets are counted under `overflow`.
    private static let seriesMax = 2000

    private let families = Mutex<[String: Family]>([:])

    package init() {}

    /// Adds to a counter.
    package func increment(_ name: String, _ labels: [(String, String)] = [], by amount: Double = 1, help: String = "") {
        update(name, .counter, help, labels) { family, key in family.values[key, default: 0] += amount }
    }

    /// Sets a gauge.
    package func set(_ name: String, _ value: Double, _ labels: [(String, String)] = [], help: String = "") {
        update(name, .gauge, help, labels) { family, key in family.values[key] = value }
    }

    /// Records a duration in seconds.
    package func observe(_ name: String, _ value: Double, _ labels: [(String, String)] = [], help: String = "") {
        update(name, .histogram, help, labels) { family, key in
            let bucket = Metrics.buckets.firstIndex { value <= $0 } ?? Metrics.buckets.count
            // In place: a copy of the counts would cost more than everything else here.
            family.histograms[key, default: Array(repeating: 0, count: Metrics.buckets.count + 1)][bucket] += 1
            family.sums[key, default: 0] += value
        }
    }

    private func update(
        _ name: String, _ kind: Kind, _ help: String, _ labels: [(String, String)],
        _ body: (inout Family, String) -> Void
    ) {
        let key = labels.map { "\($0.0)=\"\(Metrics.escape($0.1))\"" }.joined(separator: ",")
        families.withLock { families in
            Metrics.update(&families[name, default: Family(kind: kind, help: help)], key, body)
        }
    }

    private static func update(_ family: inout Family, _ key: String, _ body: (inout Family, String) -> Void) {
        let isFull = family.values.count + family.histograms.count >= Metrics.seriesMax
        let isKnown = !isFull || family.values[key] != nil || family.histograms[key] != nil
        body(&family, isKnown ? key : "overflow=\"true\"")
    }

    private static func escape(_ text: String) -> String {
        // Label values are read for each request, and nearly none needs this.
        guard text.utf8.contains(where: { $0 == UInt8(ascii: "\\") || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\n") }) else {
            return text
        }
        var result = ""
        for character in text {
            switch character {
            case "\\": result += "\\\\"
            case "\"": result += "\\\""
            case "\n": result += "\\n"
            default: result.append(character)
            }
        }
        return result
    }

    /// The exposition text.
    package func render() -> String {
        let families = families.withLock { $0 }
        var text = ""
        for (name, family) in families.sorted(by: { $0.key < $1.key }) {
            if !family.help.isEmpty { text += "# HELP \(name) \(family.help)\n" }
            text += "# TYPE \(name) \(family.kind.rawValue)\n"
            for (key, value) in family.values.sorted(by: { $0.key < $1.key }) {
                text += name + (key.isEmpty ? "" : "{\(key)}") + " \(value)\n"
            }
            for (key, counts) in family.histograms.sorted(by: { $0.key < $1.key }) {
                text += Metrics.render(name, key, counts, sum: family.sums[key] ?? 0)
            }
        }
        return text
    }

    private static func render(_ name: String, _ key: String, _ counts: [UInt64], sum: Double) -> String {
        let prefix = key.isEmpty ? "" : key + ","
        var text = ""
        var total: UInt64 = 0
        for (index, count) in counts.enumerated() {
            total += count
            let bound = index < buckets.count ? "\(buckets[index])" : "+Inf"
            text += "\(name)_bucket{\(prefix)le=\"\(bound)\"} \(total)\n"
        }
        let labels = key.isEmpty ? "" : "{\(key)}"
        return text + "\(name)_sum\(labels) \(sum)\n\(name)_count\(labels) \(total)\n"
    }
}
