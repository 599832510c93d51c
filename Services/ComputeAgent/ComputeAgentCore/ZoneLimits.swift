/// The limits of tracked connections for the host's logical ports.
///
/// ovn-controller gives each port a zone of the datapath's connection tracking. Without a limit on it, the connections of one
/// guest can fill the table of the whole host, and no guest gets a new one.
package enum ZoneLimits {
    /// The limits to set and to remove.
    package struct Plan: Sendable, Hashable {
        /// Limits to set, by zone.
        package var limits: [Int: Int]
        /// Zones that lose theirs.
        package var removed: Set<Int>

        package var isEmpty: Bool { limits.isEmpty && removed.isEmpty }
    }

    private static let zonePrefix = "ct-zone-"
    /// Zones in one command.
    private static let batchMax = 200

    /// The zones that ovn-controller has assigned, by name of port or router.
    ///
    /// - Parameter externalIDs: of the integration bridge, where ovn-controller keeps them as `ct-zone-NAME`.
    package static func zones(_ externalIDs: some Sequence<(String, String)>) -> [String: Int] {
        var zones: [String: Int] = [:]
        for (key, value) in externalIDs where key.hasPrefix(zonePrefix) {
            guard let zone = Int(value), (0...65_535).contains(zone) else { continue }
            zones[String(key.dropFirst(zonePrefix.count))] = zone
        }
        return zones
    }

    /// The changes from the datapath's current limits to the desired ones.
    ///
    /// Zones that ovn-controller did not assign are left alone. A zone that was reassigned from a port to something else,
    /// such as a router, loses its limit.
    ///
    /// - Parameters:
    ///   - ports: logical ports that have a device on this host.
    ///   - zones: as assigned by ovn-controller, by name.
    ///   - current: the datapath's limits by zone.
    ///   - limit: connections of one port; 0 for any number.
    package static func plan(ports: Set<String>, zones: [String: Int], current: [Int: Int], limit: Int) -> Plan {
        var wanted: [Int: Int] = [:]
        // Open vSwitch 3.1 in userspace takes a limit of 0 for "none at all".
        if limit > 0 {
            for port in ports { if let zone = zones[port] { wanted[zone] = limit } }
        }
        let removed = Set(zones.values).filter { current[$0] != nil && wanted[$0] == nil }
        return Plan(limits: wanted.filter { current[$0.key] != $0.value }, removed: removed)
    }

    /// The arguments of `dpctl/ct-set-limits` and `dpctl/ct-del-limits`, a command each.
    package static func commands(_ plan: Plan, datapath: String) -> [[String]] {
        var commands: [[String]] = []
        let removed = plan.removed.sorted()
        for start in stride(from: 0, to: removed.count, by: batchMax) {
            let zones = removed[start..<min(start + batchMax, removed.count)].map(String.init).joined(separator: ",")
            commands.append(["dpctl/ct-del-limits", datapath, "zone=\(zones)"])
        }
        let limits = plan.limits.sorted { $0.key < $1.key }
        for start in stride(from: 0, to: limits.count, by: batchMax) {
            let some = limits[start..<min(start + batchMax, limits.count)].map { "zone=\($0.key),limit=\($0.value)" }
            commands.append(["dpctl/ct-set-limits", datapath] + some)
        }
        return commands
    }

    /// Limits by zone, from the output of `dpctl/ct-get-limits`: lines `zone=N,limit=L,count=C` after one with the default.
    package static func parse(_ output: String) -> [Int: Int] {
        var limits: [Int: Int] = [:]
        for line in output.split(separator: "\n") {
            var fields: [Substring: Int] = [:]
            for field in line.split(separator: ",") {
                let pair = field.split(separator: "=", maxSplits: 1)
                if pair.count == 2, let value = Int(pair[1]) { fields[pair[0]] = value }
            }
            if let zone = fields["zone"], let limit = fields["limit"] { limits[zone] = limit }
        }
        return limits
    }
}
