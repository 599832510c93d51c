import ComputeCore
import Contracts
import Database
import Inspections
import Kernel
import ServiceCatalog

/// I17: the guests of each host can move to another one while they run. Otherwise the host cannot be emptied for maintenance without
/// shutting guests down.
enum MoveFindings {
    static let rule = "running guests can leave each host"

    struct Host {
        let name: String
        let capabilities: HostCapabilities
        /// Hosts that share an aggregate with `cpu_model: baseline` with this one, so that their guests have the same processor features.
        var alike: Set<String> = []
    }

    /// The current violations.
    static func look(_ connection: Connection, _ ambient: Ambient = Ambient()) throws -> [Finding] {
        // Mixed releases are reported by I16.
        let rows = try connection.query(
            """
            SELECT h.host, h.capabilities,
                (SELECT coalesce(json_agg(DISTINCT o.host), '[]') FROM aggregate_hosts m
                    JOIN aggregates a ON a.id = m.aggregate_id AND a.metadata->>'cpu_model' = 'baseline'
                    JOIN aggregate_hosts o ON o.aggregate_id = a.id WHERE m.host = h.host) AS alike
            FROM hypervisors h JOIN compute_services c ON c.host = h.host
            WHERE c.last_seen_at > \(ambient.databaseNow) - interval '60 seconds' AND c.enabled AND NOT c.forced_down
                AND h.capabilities->>'release' IS NOT NULL ORDER BY 1
            """)
        return findings(
            try rows.map {
                Host(name: try $0.string("host"), capabilities: try $0.value("capabilities"), alike: Set(try $0.strings("alike")))
            })
    }

    /// - Parameter hosts: the hosts in service. A single host is not a finding.
    static func findings(_ hosts: [Host]) -> [Finding] {
        hosts.compactMap { host in
            let others = hosts.filter { $0.name != host.name }
            func obstacles(_ other: Host) -> [String] {
                MoveObstacles.list(
                    from: host.capabilities, to: other.capabilities, sharesProcessors: host.alike.contains(other.name))
            }
            guard let first = others.first, others.allSatisfy({ !obstacles($0).isEmpty }) else { return nil }
            let words =
                "no running guest can move from host \(host.name) to another one; to \(first.name): "
                + obstacles(first).joined(separator: " ")
            return Finding(invariant: "I17", rule: rule, subject: "host \(host.name)", words: words)
        }
    }
}
