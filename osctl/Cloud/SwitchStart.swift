import JSON
import Kernel

/// What `ovs-vswitchd` is told around its start, so that it carries no packet before it is set up.
///
/// OVN commits connections with an all-zero source translation where the datapath has the capability `ct_zero_snat`. The
/// userspace datapath of Open vSwitch before 3.1.3 keeps two entries for such a connection; when the first one has expired
/// and its addresses and ports are used again, it aborts (`lib/conntrack.c: assertion conn->conn_type ==
/// CT_CONN_TYPE_DEFAULT failed`; corrected by its commit "conntrack: Remove nat_conn introducing key directionality").
/// A guest gets there with some hundred connections. The translation only keeps apart connections that share a zone with
/// translated ones, which no zone of this plane's ports does, so the capability is taken back on the userspace datapath.
struct SwitchStart: Sendable {
    /// Socket of the switch's database.
    let socket: String
    let bridge: String
    /// Directory of the daemons' control sockets.
    let runtime: String
    let datapath: Datapath

    /// How long the controller may take to write its flows before packets are let through regardless.
    static let flowsWithin = Duration.seconds(10)
    private static let capability = "ct_zero_snat"

    private var database: [String] { ["ovs-vsctl", "--db=unix:\(socket)", "--no-wait", "--timeout=5"] }
    private var key: String { "datapaths:\(datapath.rawValue)" }

    /// Before the start: no packets until `finish`. On the userspace datapath the row of its capabilities is made here, so
    /// that the controller finds one without the capability.
    func prepare() async throws {
        try await Tool.require(database + ["set", "Open_vSwitch", ".", "other_config:flow-restore-wait=true"])
        guard datapath == .userspace else { return }
        if let row = try await row() {
            try await Tool.require(database + ["remove", "Datapath", row, "capabilities", SwitchStart.capability])
        } else {
            let create = ["--id=@datapath", "create", "Datapath", "external_ids:wolke=true"]
            try await Tool.require(database + create + ["--", "set", "Open_vSwitch", ".", "\(key)=@datapath"])
        }
    }

    /// When the bridges are there: takes the capability back, waits for the controller's flows where one runs, and lets
    /// packets through.
    func finish(controllerRuns: Bool, _ time: any TimeSource) async throws {
        let end = time.monotonicNanoseconds() + UInt64(SwitchStart.flowsWithin.microseconds) * 1000
        if datapath == .userspace {
            // It comes with the bridges, though not in the same moment.
            while try await capability() == nil {
                guard time.monotonicNanoseconds() < end else { throw CloudError("does not say what its datapath can") }
                try await time.sleep(for: .milliseconds(50))
            }
            try await withdraw()
        }
        if controllerRuns {
            while try await !hasFlows(), time.monotonicNanoseconds() < end { try await time.sleep(for: .milliseconds(100)) }
        }
        try await Tool.require(database + ["remove", "Open_vSwitch", ".", "other_config", "flow-restore-wait"])
    }

    /// - Throws: `CloudError` when a guest could end the switch.
    func check() async throws {
        guard datapath == .userspace, try await capability() != "false" else { return }
        throw CloudError(
            "the userspace datapath has \(SwitchStart.capability): any guest can make it abort; restart ovs-vswitchd")
    }

    private func withdraw() async throws {
        guard let row = try await row() else { return }
        try await Tool.require(database + ["set", "Datapath", row, "capabilities:\(SwitchStart.capability)=false"])
    }

    private func row() async throws -> String? {
        let text = try await Tool.require(database + ["--if-exists", "get", "Open_vSwitch", ".", key])
        let id = text.filter { !$0.isWhitespace }
        return id.isEmpty ? nil : id
    }

    /// "true", "false" or nil when the switch has not said.
    private func capability() async throws -> String? {
        guard let row = try await row() else { return nil }
        let text = try await Tool.require(
            database + ["--if-exists", "get", "Datapath", row, "capabilities:\(SwitchStart.capability)"])
        let value = text.filter { $0.isLetter }
        return value.isEmpty ? nil : value
    }

    /// Whether the controller has written its flows, and none with the translation.
    private func hasFlows() async throws -> Bool {
        let flows = try await Tool.run(["ovs-ofctl", "dump-flows", "unix:\(runtime)/\(bridge).mgmt", "--no-stats"]).output
        let lines = flows.split(separator: "\n").filter { $0.contains("actions=") }
        return lines.count > 1 && !lines.contains { $0.contains("nat(src)") }
    }
}
