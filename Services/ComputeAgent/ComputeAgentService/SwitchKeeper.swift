package import ComputeAgentCore
import JSON
package import Kernel
import Libvirt
package import Logging
import OVSDB
package import Telemetry

/// Watches the host's ovs-vswitchd: records outages, and maintains the limit of tracked connections of each port.
package actor SwitchKeeper {
    /// The state for which limits were last set. A userspace datapath loses its limits when the process ends.
    private struct Situation: Hashable {
        let process: SwitchProcess
        let datapath: String
        let ports: Set<String>
        let zones: [String: Int]
    }

    private let ports: SwitchPorts
    private let control: SwitchControl
    private let threads: WorkerThreads
    /// Connections of one port; 0 for any number.
    private let limit: Int
    /// The file that stores the outages.
    private let file: String
    private let ambient: Ambient
    private let metrics: Metrics
    private let log: Logger
    private var outages: SwitchOutages?
    private var settled: Situation?
    /// By the monotonic clock, in nanoseconds.
    private var nextComparison: UInt64 = 0
    private var lastProblem: String?

    private static let interval = Duration.milliseconds(250)
    /// Interval at which the datapath's limits are read even without a known change.
    private static let comparisonInterval = Duration.seconds(30)
    private static let retryInterval = Duration.seconds(2)

    /// - Parameter directory: the agent's state directory.
    package init(
        ports: SwitchPorts, control: SwitchControl, threads: WorkerThreads, limit: Int, directory: String, ambient: Ambient,
        metrics: Metrics, log: Logger
    ) {
        self.ports = ports
        self.control = control
        self.threads = threads
        self.limit = limit
        file = directory + "/switch-outages.json"
        self.ambient = ambient
        self.metrics = metrics
        self.log = log
    }

    /// The report for the control plane.
    package var report: SwitchReport {
        get async {
            SwitchReport(
                datapath: await ports.datapath(), outages: outages, physicalNetworks: await ports.physicalNetworks())
        }
    }

    /// Watches until the task is cancelled.
    package func run() async throws {
        while true {
            do {
                try await look()
                tell(nil)
            } catch {
                try Task.checkCancellation()
                tell("\(error)")
            }
            try await ambient.time.sleep(for: SwitchKeeper.interval)
        }
    }

    /// Logs a problem once, until the limits could be set again.
    private func tell(_ problem: String?) {
        if let problem, problem != lastProblem {
            log.warning("the limits of tracked connections are not set", metadata: ["error": "\(problem)"])
        }
        if problem != nil || settled != nil { lastProblem = problem }
    }

    /// Checks once.
    ///
    /// - Throws: `CommandError`, `FileError`.
    package func look() async throws {
        let process = try await control.process()
        try await notice(process)
        guard let process, await ports.client.isConnected, let datapath = await ports.datapath() else { return }
        let zones = await ports.zones()
        try await keepLimits(
            Situation(process: process, datapath: datapath, ports: await ports.logicalPorts(), zones: zones))
    }

    private func notice(_ process: SwitchProcess?) async throws {
        var outages = try await known()
        let changed = outages.observe(process, at: ambient.now)
        self.outages = outages
        guard changed else { return }
        let document = outages.document
        log.warning(
            outages.isAway ? "ovs-vswitchd is away" : "ovs-vswitchd was away and is back",
            metadata: ["outages": "\(document)"])
        metrics.set("wolke_agent_switch_outages", Double(outages.count), help: "Outages of ovs-vswitchd since the host's boot.")
        let file = file
        do { try await threads.run { try Files.replace(file, with: document.encoded) } } catch {
            log.warning("the outage counts could not be saved", metadata: ["error": "\(error)"])
        }
    }

    /// Outages counted so far; reset at each boot.
    private func known() async throws -> SwitchOutages {
        if let outages { return outages }
        let bootID = try await control.bootID()
        let file = file
        if let bytes = try await threads.run({ try Files.read(file) }) {
            do {
                let kept = try SwitchOutages(document: try JSONValue.parse(bytes))
                if kept.bootID == bootID { return kept }
            } catch {
                log.warning("the outage counts could not be read", metadata: ["file": "\(file)", "error": "\(error)"])
            }
        }
        return SwitchOutages(bootID: bootID, since: ambient.now)
    }

    private func keepLimits(_ situation: Situation) async throws {
        let clock = ambient.time.monotonicNanoseconds()
        guard settled != situation || clock >= nextComparison else { return }
        if settled == nil, clock < nextComparison { return }
        settled = nil
        nextComparison = clock + UInt64(SwitchKeeper.retryInterval.microseconds) * 1000
        let current = try await control.limits(situation.process, datapath: situation.datapath)
        let plan = ZoneLimits.plan(ports: situation.ports, zones: situation.zones, current: current, limit: limit)
        if !plan.isEmpty {
            try await control.apply(plan, situation.process, datapath: situation.datapath)
            log.info(
                "limited tracked connections", metadata: ["set": "\(plan.limits.count)", "removed": "\(plan.removed.count)"])
        }
        settled = situation
        nextComparison = clock + UInt64(SwitchKeeper.comparisonInterval.microseconds) * 1000
    }
}
