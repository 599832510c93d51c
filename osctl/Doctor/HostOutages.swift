import Database
import JSON
import Kernel

/// The hypervisor hosts' reports about their switches.
enum HostOutages {
    /// Describes how often each host's ovs-vswitchd was down while its agent ran, since the host's boot; hosts without an outage are
    /// omitted.
    static func words(_ connection: Connection) throws -> [String] {
        let rows = try connection.query(
            """
            SELECT host, capabilities->'switch' AS switch, capabilities->>'datapath_type' AS datapath FROM hypervisors
            WHERE capabilities->'switch'->>'count' <> '0' ORDER BY host
            """)
        return try rows.map {
            words(host: try $0.string("host"), try $0.json("switch"), datapath: try $0.optionalString("datapath"))
        }
    }

    /// - Parameter outages: the value in the agent's report.
    static func words(host: String, _ outages: JSONValue, datapath: String?) -> String {
        let count = outages["count"]?.intValue ?? 0
        let tenths = (outages["milliseconds"]?.intValue ?? 0) / 100
        let times = count == 1 ? "once" : "\(count) times"
        let present = outages["is_away"] == true ? "; it is away now" : ""
        return "host \(host): ovs-vswitchd was away \(times) since \(outages["since"]?.stringValue ?? "?"), "
            + "for \(tenths / 10).\(tenths % 10) s in all, last at \(outages["last_at"]?.stringValue ?? "?")"
            + (datapath.map { " (datapath \($0))" } ?? "") + present
    }
}
