import JSON
import Kernel

/// Configures `ovs-vswitchd` around its start, so that it forwards no packet before it is set up.
///
/// OVN commits connections with an all-zero source translation if the datapath has the capability `ct_zero_snat`. The userspace
/// datapath of Open vSwitch before 3.1.3 keeps two entries for such a connection. When the first one has expired and its
/// addresses and ports are used again, it aborts (`lib/conntrack.c: assertion conn->conn_type == CT_CONN_TYPE_DEFAULT failed`;
/// fixed by its commit "conntrack: Remove nat_conn introducing key directionality"). A guest can cause this with some hundred
/// connections. The translation only separates connections that share a zone with translated ones, which no zone of ports does in
/// this cloud, so the capability is removed from the userspace datapath.
struct SwitchStart: Sendable {
    /// Socket of the switch's database.
    let socket: String
    let bridge: String
    /// Directory of the daemons' control sockets.
    let runtime: String
    let datapath: Datapath

    /// How long the controller may take to write its flows before packets are forwarded anyway.
    static let flowsWithin = Duration.seconds(10)
    private static let capability = "ct_zero_snat"

    private var database: [String] { ["ovs-vsctl", "--db=unix:\(socket)", "--no-wait", "--timeout=5"] }
    private var key: String { "datapaths:\(datapath.rawValue)" }

    /// Called before the start: no packets are forwarded until `finish`. On the userspace datapath, the row with its capabilities
    /// is created here, so that the controller finds it without the capability.
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

    /// Called when the bridges exist: removes the capability, waits for the controller's flows if a controller runs, and enables
    /// forwarding.
    func finish(controllerRuns: Bool, _ time: any TimeSource) async throws {
        let end = time.monotonicNanoseconds() + UInt64(SwitchStart.flowsWithin.microseconds) * 1000
        if datapath == .userspace {
            // The row is created shortly after the bridges.
            while try await capability() == nil {
                guard time.monotonicNanoseconds() < end else { throw CloudError("does not report the capabilities of its datapath") }
                try await time.sleep(for: .milliseconds(50))
            }
            try await withdraw()
        }
        if controllerRuns {
            while try await !hasFlows(), time.monotonicNanoseconds() < end { try await time.sleep(for: .milliseconds(100)) }
        }
        try await Tool.require(database + ["remove", "Open_vSwitch", ".", "other_config", "flow-restore-wait"])
    }

    /// - Throws: `CloudError` if a guest could crash the switch.
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

    /// "true", "false", or nil if the switch has not reported it.
    private func capability() async throws -> String? {
        guard let row = try await row() else { return nil }
        let text = try await Tool.require(
            database + ["--if-exists", "get", "Datapath", row, "capabilities:\(SwitchStart.capability)"])
        let value = text.filter { $0.isLetter }
        return value.isEmpty ? nil : value
    }

    /// Whether the controller has written its flows, without the translation.
    private func hasFlows() async throws -> Bool {
        let flows = try await Tool.run(["ovs-ofctl", "dump-flows", "unix:\(runtime)/\(bridge).mgmt", "--no-stats"]).output
        let lines = flows.split(separator: "\n").filter { $0.contains("actions=") }
        return lines.count > 1 && !lines.contains { $0.contains("nat(src)") }
    }
}
