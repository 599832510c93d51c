import ComputeCore
import Database
import JSON
import Kernel
import Messaging
import Telemetry

/// Rows of hosts and what Placement must know of them.
enum Hosts {
    /// Whether a host's agent has spoken lately, by the database's clock and nobody else's.
    ///
    /// - Parameter service: the name of the row of `compute_services`.
    static func isUp(_ service: String, _ compute: Compute) -> SQL {
        let silence = compute.settings.hostDownAfter
        return """
            (NOT \(raw: service).forced_down AND coalesce(
                \(raw: service).last_seen_at > \(compute.ambient.databaseNow) - \(silence)::interval, false))
            """
    }

    /// A host that said hello: its rows, and the message that makes it a resource provider.
    static func register(
        _ connection: Connection, host: String, version: String?, capabilities: JSONValue, compute: Compute
    ) throws {
        let now = compute.ambient.now
        try connection.execute(
            """
            INSERT INTO compute_services (id, host, availability_zone, version, last_seen_at, created_at, updated_at)
            VALUES (\(compute.ambient.newUUID()), \(host), \(compute.settings.defaultZone), \(version), \(compute.ambient.databaseNow), \(now), \(now))
            ON CONFLICT (host) DO UPDATE SET version = EXCLUDED.version, last_seen_at = EXCLUDED.last_seen_at,
                updated_at = EXCLUDED.updated_at
            """)
        func number(_ name: String) -> Int { capabilities[name]?.intValue ?? 0 }
        let info = capabilities["cpu_info"]?.objectValue.map { JSONValue.object($0) } ?? [:]
        try connection.execute(
            """
            INSERT INTO hypervisors (
                id, host, hypervisor_type, hypervisor_version, virt_type, vcpus, memory_mb, disk_gb, cpu_info,
                capabilities, host_ip, updated_at)
            VALUES (\(compute.ambient.newUUID()), \(host), \(capabilities["hypervisor_type"]?.stringValue ?? "QEMU"),
                \(number("hypervisor_version")), \(capabilities["virt_type"]?.stringValue ?? "qemu"), \(number("cpu")),
                \(number("memory_mb")), \(number("disk_gb")), \(info)::jsonb, \(capabilities)::jsonb,
                \(capabilities["host_ip"]?.stringValue), \(now))
            ON CONFLICT (host) DO UPDATE SET hypervisor_type = EXCLUDED.hypervisor_type,
                hypervisor_version = EXCLUDED.hypervisor_version, virt_type = EXCLUDED.virt_type,
                vcpus = EXCLUDED.vcpus, memory_mb = EXCLUDED.memory_mb, disk_gb = EXCLUDED.disk_gb,
                cpu_info = EXCLUDED.cpu_info, capabilities = EXCLUDED.capabilities, host_ip = EXCLUDED.host_ip,
                updated_at = EXCLUDED.updated_at
            """)
        try announce(connection, host: host, ambient: compute.ambient)
    }

    /// Tells Placement about a host as it is now.
    static func announce(_ connection: Connection, host: String, ambient: Ambient) throws {
        let rows = try connection.query(
            """
            SELECT h.id, h.capabilities, c.enabled, c.forced_down FROM hypervisors h
            JOIN compute_services c ON c.host = h.host WHERE h.host = \(host)
            """)
        guard let row = rows.first else { return }
        let capabilities = try row.json("capabilities")
        var inventories: JSONObject = [:]
        for (name, member, ratio) in [("VCPU", "cpu", 4.0), ("MEMORY_MB", "memory_mb", 1.0), ("DISK_GB", "disk_gb", 1.0)] {
            let total = capabilities[member]?.intValue ?? 0
            guard total > 0 else { continue }
            inventories[name] = [
                "total": JSONValue(total), "reserved": capabilities["reserved"]?[name] ?? 0, "min_unit": 1,
                "max_unit": JSONValue(total), "step_size": 1,
                "allocation_ratio": capabilities["allocation_ratios"]?[name] ?? .double(ratio),
            ]
        }
        let body: JSONValue = [
            "type": "host", "host": .string(host), "resource_provider_id": .string(try row.string("id")),
            "inventories": .object(inventories), "traits": capabilities["traits"] ?? [],
            "enabled": .bool(try row.bool("enabled")), "forced_down": .bool(try row.bool("forced_down")),
        ]
        try Outbox.add(
            connection, Message(id: ambient.newUUID(), type: "host", body: body, requestID: RequestScope.current),
            to: "placement.hosts", ambient: ambient)
    }
}
