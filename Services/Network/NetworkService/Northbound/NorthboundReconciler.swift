import Contracts
package import Database
package import Kernel
package import Logging
import NetworkCore
package import OVSDB
package import Settings
import Synchronization
package import Telemetry

/// How the reconciler connects to OVN, and the interval of its audits.
package struct NorthboundConfiguration: Sendable {
    package var northbound: [OVSDBEndpoint]
    package var southbound: [OVSDBEndpoint]
    /// For endpoints with TLS.
    package var credentials: OVSDBCredentials?
    package var auditInterval: Duration
    /// Fallback for a lost notification.
    package var scanInterval: Duration = .seconds(2)
    /// Interval between increments of `nb_cfg`, which all ovn-controllers acknowledge.
    package var heartbeatInterval: Duration = .seconds(30)

    package init(northbound: [OVSDBEndpoint], southbound: [OVSDBEndpoint], auditInterval: Duration = .seconds(300)) {
        self.northbound = northbound
        self.southbound = southbound
        self.auditInterval = auditInterval
    }

    /// - Throws: `SettingsError`, `OVSDBError` for addresses, keys and certificates that are invalid or do not match each other.
    package init(_ settings: Settings) throws {
        self.init(
            northbound: try OVSDBEndpoint.list(settings.string("network.ovn_nb")),
            southbound: try OVSDBEndpoint.list(settings.string("network.ovn_sb")),
            auditInterval: settings.duration("network.audit_interval"))
        let files = ["ovn_private_key", "ovn_certificate", "ovn_ca_certificate"].map { settings.string("network." + $0) }
        let needsThem = (northbound + southbound).contains(where: \.isTLS)
        guard needsThem else {
            guard files.allSatisfy(\.isEmpty) else {
                throw SettingsError([
                    "network.ovn_private_key, ovn_certificate and ovn_ca_certificate need an ssl: address in ovn_nb or ovn_sb"
                ])
            }
            return
        }
        guard !files.contains("") else {
            throw SettingsError(["ssl: addresses need network.ovn_private_key, ovn_certificate and ovn_ca_certificate"])
        }
        credentials = try OVSDBCredentials(privateKey: files[0], certificate: files[1], authorities: files[2])
    }
}

/// Keeps OVN's northbound database in line with PostgreSQL, and writes the up/down state of ports back to PostgreSQL.
///
/// Any number of processes may run one. The lock of the northbound database selects the writer, and each transaction
/// asserts the lock, so that a process that has lost it can no longer write.
package struct NorthboundReconciler: Sendable {
    let database: Database
    let ambient: Ambient
    let configuration: NorthboundConfiguration
    let compiler: Compiler
    let log: Logger
    let metrics: Metrics
    let northbound: OVSDBClient
    let southbound: OVSDBClient
    let audits = NorthboundAudits()
    private let wakes: AsyncStream<Void>
    private let signal: AsyncStream<Void>.Continuation

    static let lock = "wolke_network"

    package init(
        _ configuration: NorthboundConfiguration, options: NetworkOptions, database: Database, ambient: Ambient,
        log: Logger, metrics: Metrics
    ) {
        self.configuration = configuration
        self.database = database
        self.ambient = ambient
        self.log = log
        self.metrics = metrics
        compiler = Compiler(
            dnsServers: options.dnsServers, dhcpLeaseSeconds: options.dhcpLeaseSeconds,
            distributedFloatingIPs: options.distributedFloatingIPs)
        let (wakes, signal) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        self.wakes = wakes
        self.signal = signal
        var northbound = OVSDBConfiguration(
            endpoints: configuration.northbound, database: "OVN_Northbound", monitors: NorthboundConversion.monitors,
            lock: NorthboundReconciler.lock)
        northbound.credentials = configuration.credentials
        // The worker keeps the only copy of the rows.
        northbound.keepsCopy = false
        self.northbound = OVSDBClient(northbound, ambient: ambient, logger: log) { signal.yield() }
        var southbound = OVSDBConfiguration(
            endpoints: configuration.southbound, database: "OVN_Southbound", monitors: SouthboundFleet.monitors)
        southbound.credentials = configuration.credentials
        self.southbound = OVSDBClient(southbound, ambient: ambient, logger: log) { signal.yield() }
    }

    /// The hypervisors, from OVN's southbound database.
    package var fleet: SouthboundFleet { SouthboundFleet(client: southbound) }

    /// - Throws: 503 naming the unreachable OVN database and the reason.
    package func requireConnected() async throws {
        for (name, client) in [("northbound", northbound), ("southbound", southbound)] {
            guard await client.isConnected else {
                throw ResourceError.unavailable("no session with OVN's \(name) database: \(await client.problem ?? "not yet")")
            }
        }
    }

    /// Runs until the task is cancelled.
    package func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await northbound.run() }
            group.addTask { await southbound.run() }
            group.addTask { for await _ in database.notifications(.northbound) { signal.yield() } }
            group.addTask {
                while true {
                    try await ambient.time.sleep(for: configuration.scanInterval)
                    signal.yield()
                }
            }
            group.addTask {
                let worker = NorthboundWorker(self)
                for await _ in wakes { await worker.step() }
            }
            defer { group.cancelAll() }
            try await group.waitForAll()
        }
    }

    func wake() { signal.yield() }

    /// Runs an audit now and waits until it has ended.
    ///
    /// - Returns: false if another process holds OVN's lock.
    package func audit() async throws -> Bool {
        let number = audits.ask()
        for _ in 0..<300 {
            wake()
            try await ambient.time.sleep(for: .milliseconds(200))
            if audits.done >= number { return true }
            if !audits.isMine { return false }
        }
        throw ResourceError.unavailable("OVN's databases do not answer")
    }
}

/// Passes requests for an audit to the worker and its results back.
final class NorthboundAudits: Sendable {
    private struct State {
        var asked = 0
        var done = 0
        var isMine = false
    }

    private let state = Mutex(State())

    func ask() -> Int {
        state.withLock {
            $0.asked += 1
            return $0.asked
        }
    }

    var asked: Int { state.withLock { $0.asked } }
    var done: Int {
        get { state.withLock { $0.done } }
        set { state.withLock { $0.done = newValue } }
    }
    var isMine: Bool {
        get { state.withLock { $0.isMine } }
        set { state.withLock { $0.isMine = newValue } }
    }
}

/// The hypervisors according to the southbound database.
package struct SouthboundFleet: FleetView {
    let client: OVSDBClient

    static let monitors = [
        OVSDBMonitor("Chassis", columns: ["name", "hostname", "external_ids", "other_config"]),
        OVSDBMonitor("Chassis_Private", columns: ["name", "nb_cfg_timestamp"]),
    ]

    package func members() async -> [FleetMember] {
        var heard: [String: Timestamp] = [:]
        for row in await client.rows("Chassis_Private").values {
            guard let name = row["name"]?.string, let time = row["nb_cfg_timestamp"]?.integer, time > 0 else { continue }
            heard[name] = Timestamp(microseconds: time * 1000)
        }
        let members = await client.rows("Chassis").map { id, row -> FleetMember in
            let name = row["name"]?.string ?? ""
            // OVN moved these values from one column to the other.
            func option(_ key: String) -> String { row["other_config"]?[key] ?? row["external_ids"]?[key] ?? "" }
            let mappings = option("ovn-bridge-mappings").split(separator: ",").map { $0.prefix { $0 != ":" } }
            let marks = option("ovn-cms-options").split(separator: ",")
            return FleetMember(
                id: id, chassis: name, host: row["hostname"]?.string ?? name,
                isGateway: marks.contains("enable-chassis-as-gw"), physicalNetworks: mappings.map(String.init).sorted(),
                heardAt: heard[name])
        }
        return members.sorted { ($0.host, $0.id) < ($1.host, $1.id) }
    }

    /// Chassis that can host the external ports of routers.
    func gateways() async -> [GatewayCandidate] {
        await members().map {
            GatewayCandidate(chassis: $0.chassis, physicalNetworks: Set($0.physicalNetworks), isMarked: $0.isGateway)
        }.sorted { $0.chassis < $1.chassis }
    }
}
