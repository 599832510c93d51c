import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Messaging
import Telemetry

/// Host rows, and the messages that register hosts with Placement.
enum Hosts {
    /// SQL condition: the host's agent has reported recently, by the database's clock only.
    ///
    /// - Parameter service: the name of the row of `compute_services`.
    static func isUp(_ service: String, _ compute: Compute) -> SQL { "\(raw: isUpText(service, compute))" }

    /// Whether a host reports, and was not declared down.
    static func isUp(_ host: String, _ connection: Connection, _ compute: Compute) throws -> Bool {
        try !connection.query(
            "SELECT 1 AS one FROM compute_services t WHERE t.host = \(host) AND \(isUp("t", compute))"
        ).isEmpty
    }

    /// Like `isUp`, as text for tables.
    static func isUpText(_ service: String, _ compute: Compute) -> String {
        "(NOT \(service).forced_down AND coalesce(\(service).last_seen_at > \(latestSilence(compute)), false))"
    }

    /// SQL of the time since which a host must have been silent to count as down.
    static func latestSilence(_ compute: Compute) -> String {
        let now = compute.ambient.time.databaseNow().map { "'\($0.postgresql)'::timestamptz" } ?? "statement_timestamp()"
        return "\(now) - interval '\(compute.settings.hostDownAfter.microseconds) microseconds'"
    }

    /// Registers a host after its introduction: writes its rows and sends the message that creates its resource provider.
    static func register(
        _ connection: Connection, _ hello: AgentHello, compute: Compute
    ) throws {
        let now = compute.ambient.now
        let (host, offered) = (hello.host, hello.capabilities)
        try connection.execute(
            """
            INSERT INTO compute_services (id, host, availability_zone, version, last_seen_at, created_at, updated_at)
            VALUES (\(compute.ambient.newUUID()), \(host), \(compute.settings.defaultZone), \(hello.agentVersion),
                \(compute.ambient.databaseNow), \(now), \(now))
            ON CONFLICT (host) DO UPDATE SET version = EXCLUDED.version, last_seen_at = EXCLUDED.last_seen_at,
                updated_at = EXCLUDED.updated_at
            """)
        try connection.execute(
            """
            INSERT INTO hypervisors (
                id, host, hypervisor_type, hypervisor_version, virt_type, vcpus, memory_mb, disk_gb, cpu_info,
                capabilities, host_ip, updated_at)
            VALUES (\(compute.ambient.newUUID()), \(host), \(offered.hypervisorType), \(offered.hypervisorVersion),
                \(offered.virtType), \(offered.cpus), \(offered.memoryMiB), \(offered.diskGiB),
                \(try JSONValue(encoding: offered.processor))::jsonb, \(try JSONValue(encoding: offered))::jsonb,
                \(offered.hostIP), \(now))
            ON CONFLICT (host) DO UPDATE SET hypervisor_type = EXCLUDED.hypervisor_type,
                hypervisor_version = EXCLUDED.hypervisor_version, virt_type = EXCLUDED.virt_type,
                vcpus = EXCLUDED.vcpus, memory_mb = EXCLUDED.memory_mb, disk_gb = EXCLUDED.disk_gb,
                cpu_info = EXCLUDED.cpu_info, capabilities = EXCLUDED.capabilities, host_ip = EXCLUDED.host_ip,
                updated_at = EXCLUDED.updated_at
            """)
        try announce(connection, host: host, ambient: compute.ambient)
    }

    /// Sends the present state of a host to Placement.
    static func announce(_ connection: Connection, host: String, ambient: Ambient) throws {
        let rows = try connection.query(
            """
            SELECT h.id, h.capabilities, c.enabled, c.forced_down FROM hypervisors h
            JOIN compute_services c ON c.host = h.host WHERE h.host = \(host)
            """)
        guard let row = rows.first else { return }
        let offered: HostCapabilities = try row.value("capabilities")
        let (reserved, ratios) = (offered.reserved, offered.allocationRatios)
        let dedicated = min(offered.cpus, offered.dedicatedCPUs ?? 0)
        let shared = offered.cpus - dedicated
        let amounts = [
            ("VCPU", shared, min(shared, reserved.vcpu), ratios.vcpu), ("PCPU", dedicated, 0, 1),
            ("MEMORY_MB", offered.memoryMiB, reserved.memoryMiB, ratios.memoryMiB),
            ("DISK_GB", offered.diskGiB, reserved.diskGiB, ratios.diskGiB),
        ]
        var inventories: [String: HostChanged.Amount] = [:]
        for (name, total, reserved, ratio) in amounts where total > 0 {
            inventories[name] = .init(total: total, reserved: reserved, minUnit: 1, maxUnit: total, stepSize: 1, allocationRatio: ratio)
        }
        let changed = HostChanged(
            host: host, providerID: try row.string("id"), inventories: inventories, traits: offered.traits,
            enabled: try row.bool("enabled"), forcedDown: try row.bool("forced_down"))
        try Outbox.add(connection, changed, to: .placementHosts, ambient: ambient)
    }
}
