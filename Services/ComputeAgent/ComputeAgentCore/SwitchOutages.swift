package import JSON
package import Kernel

/// An ovs-vswitchd process, identified by PID and start time because PIDs are reused.
package struct SwitchProcess: Sendable, Hashable {
    package let pid: Int32
    /// Clock ticks after boot.
    package let startTicks: UInt64

    package init(pid: Int32, startTicks: UInt64) {
        self.pid = pid
        self.startTicks = startTicks
    }

    /// - Parameter stat: the content of `/proc/PID/stat`.
    /// - Returns: nil if the process is not ovs-vswitchd, or has ended.
    package init?(pid: Int32, stat: String) {
        guard let open = stat.firstIndex(of: "("), let close = stat.lastIndex(of: ")"), open < close,
            stat[stat.index(after: open)..<close] == "ovs-vswitchd"
        else { return nil }
        // After the command: state is field 3, start time field 22.
        let fields = stat[stat.index(after: close)...].split(separator: " ")
        guard fields.count > 19, let state = fields.first, state != "Z", state != "X", let ticks = UInt64(fields[19])
        else { return nil }
        self.init(pid: pid, startTicks: ticks)
    }
}

/// Counts outages of the host's ovs-vswitchd since boot, as far as the agent was running.
///
/// A restart while the agent was not running is not counted, because the host may have been stopped on purpose.
package struct SwitchOutages: Sendable, Hashable {
    /// The kernel's boot id, which changes with each boot.
    package let bootID: String
    /// When counting began.
    package let since: Timestamp
    package private(set) var count = 0
    /// Total duration of past outages, without a current one. A process replaced between two checks adds nothing.
    package private(set) var lasted = Duration.zero
    /// When the last one began.
    package private(set) var lastAt: Timestamp?
    private var process: SwitchProcess?
    private var goneSince: Timestamp?

    package init(bootID: String, since: Timestamp) {
        self.bootID = bootID
        self.since = since
    }

    package var isAway: Bool { goneSince != nil }

    /// Records the process that runs now, nil for none.
    ///
    /// - Returns: whether an outage began or ended.
    package mutating func observe(_ current: SwitchProcess?, at now: Timestamp) -> Bool {
        defer { process = current ?? process }
        guard let process else { return false }
        if let goneSince {
            guard current != nil else { return false }
            lasted += max(.zero, now - goneSince)
            self.goneSince = nil
            return true
        }
        guard current != process else { return false }
        count += 1
        lastAt = now
        if current == nil { goneSince = now }
        return true
    }

    // MARK: form

    /// The form on disk and in reports.
    package var document: JSONValue {
        [
            "boot_id": .string(bootID), "since": .string(since.iso8601), "count": JSONValue(count),
            "milliseconds": JSONValue(Int(lasted.microseconds / 1000)), "last_at": JSONValue(lastAt?.iso8601),
            "is_away": .bool(isAway),
        ]
    }

    /// - Throws: `FormError`.
    package init(document: JSONValue) throws(FormError) {
        let fields = try FieldReader(document, path: "outages")
        guard let since = Timestamp(try fields.text("since")) else { throw fields.wrong("since", "must be a timestamp") }
        self.init(bootID: try fields.text("boot_id"), since: since)
        count = try fields.integer("count", in: 0...Int.max)
        lasted = .milliseconds(try fields.integer("milliseconds", in: 0...Int.max))
        if let text = try fields.optionalText("last_at") {
            guard let time = Timestamp(text) else { throw fields.wrong("last_at", "must be a timestamp") }
            lastAt = time
        }
    }
}

/// The report about the host's switch.
package struct SwitchReport: Sendable, Hashable {
    /// The integration bridge's datapath, `system` or `netdev`; nil while that is not known.
    package var datapath: String?
    package var outages: SwitchOutages?
    /// The physical networks that the switch is connected to; nil while that is not known.
    package var physicalNetworks: [String]?

    package init(datapath: String? = nil, outages: SwitchOutages? = nil, physicalNetworks: [String]? = nil) {
        self.datapath = datapath
        self.outages = outages
        self.physicalNetworks = physicalNetworks
    }
}
