import BlockStorageCore
import ComputeAgentCore
import ComputeAgentService
import ComputeCore
import Contracts
import Database
import Inspections
import JSON
import Kernel
import Messaging
import NetworkCore
import ServiceCatalog

/// Compares the clients' responses, the database, the hosts and the storage with each other.
struct Auditor {
    let world: World
    let history: History

    init(_ world: World, _ history: History) {
        self.world = world
        self.history = history
    }

    func words(_ sql: SQL) throws -> [String] {
        try world.store.look { try $0.query(sql).map { try $0.string("words") } }
    }

    func violate(_ invariant: String, _ texts: [String]) {
        for text in texts { world.violation("\(invariant): \(text)") }
    }

    // MARK: work in progress

    /// Work that has not ended yet.
    func open() throws -> [String] {
        var open = try words(
            """
            SELECT kind || ' of ' || subject_id || ' at ' || step || ' (' || state || ') ' || coalesce(last_error, '') AS words
            FROM workflows WHERE finished_at IS NULL
            UNION ALL SELECT 'intent ' || kind || ' of ' || subject_id FROM intents
            UNION ALL SELECT 'message ' || type || ' for ' || queue FROM outbox
            UNION ALL SELECT 'server ' || id || ' is ' || vm_state || ' and ' || task_state FROM servers
                WHERE NOT deleted AND task_state IS NOT NULL
            UNION ALL SELECT 'job ' || id || ' of server ' || server_id || ' is ' || state FROM server_jobs
            UNION ALL SELECT 'server ' || server_id || ' is ordered away from ' || host FROM server_absences
            UNION ALL SELECT 'server ' || id || ' at ' || observed_generation || ' of ' || generation FROM servers
                WHERE NOT deleted AND published_at IS NOT NULL AND observed_generation < generation
            UNION ALL SELECT 'server ' || server_id || ' is expected on ' || host FROM server_arrivals
            UNION ALL SELECT 'port ' || port_id || ' is bound to ' || host || ' too' FROM port_bindings
            UNION ALL SELECT 'the ' || type || ' ' || uuid || ' of server ' || server_id || ' is ' || status FROM server_migrations
                WHERE status IN ('queued', 'preparing', 'running', 'accepted', 'pre-migrating', 'migrating', 'reverting')
            UNION ALL SELECT 'volume ' || id || ' is ' || status FROM volumes
                WHERE status IN ('creating', 'downloading', 'attaching', 'detaching', 'deleting', 'extending', 'reserved')
            UNION ALL SELECT 'attachment of volume ' || volume_id || ' is ' || state FROM server_volumes WHERE state <> 'attached'
            UNION ALL SELECT 'interface ' || port_id || ' is ' || state FROM server_interfaces WHERE state <> 'attached'
            UNION ALL SELECT 'interface ' || port_id || ' has no port' FROM server_interfaces i
                WHERE NOT EXISTS (SELECT 1 FROM ports p WHERE p.id = i.port_id)
            """)
        for host in world.hosts.keys.sorted() {
            for record in try world.hosts[host]?.records() ?? []
            where record.desired != nil && record.appliedGeneration < record.generation
                && world.hosts[host]?.refused.contains(record.serverID) != true
            {
                open.append("\(host) has not done generation \(record.generation) of \(record.serverID)")
            }
        }
        // A guest that stopped is restarted or reported, and a lost report is replaced.
        let servers = try world.store.look { connection in
            try connection.query(
                "SELECT id, host, power FROM servers WHERE NOT deleted AND host IS NOT NULL AND vm_state <> 'error' ORDER BY id"
            ).map { (id: try $0.string("id"), host: try $0.string("host"), power: try $0.string("power")) }
        }
        for server in servers {
            let power = world.hosts[server.host]?.domains[server.id]?.power
            if power != server.power { open.append("server \(server.id) is \(power ?? "nowhere"), desired \(server.power)") }
        }
        if !world.broker.isQuiet { open.append("messages under way") }
        return open
    }

    // MARK: checks

    func check() throws {
        try promises()
        try placement()
        try quota()
        try addresses()
        try volumes()
        try images()
        try hosts()
        try audit()
        for message in world.broker.poisoned { world.violation("a message was set aside: \(message.body)") }
    }

    /// I1, I2: everything that was accepted exists or has a failure reason; nothing exists that was not requested.
    private func promises() throws {
        let servers = try world.store.look { connection in
            try connection.query("SELECT id, name, vm_state, fault IS NOT NULL AS explained, deleted FROM servers ORDER BY id").map {
                (
                    id: try $0.string("id"), name: try $0.string("name"), state: try $0.string("vm_state"),
                    explained: try $0.bool("explained"), deleted: try $0.bool("deleted")
                )
            }
        }
        let found = Dictionary(uniqueKeysWithValues: servers.map { ($0.id, $0) })
        for resource in history.all("server") {
            guard let server = found[resource.id] else {
                world.violation("I1: server \(resource.id) was accepted and is not there")
                continue
            }
            if server.deleted != resource.deleteAccepted {
                world.violation(
                    "I1: server \(resource.id) is \(server.state); its deletion was\(resource.deleteAccepted ? "" : " not") accepted")
            }
            if server.state == "building" { world.violation("I1: server \(resource.id) is still building") }
            if server.state == "error", !server.explained { world.violation("I1: server \(resource.id) failed without a reason") }
            world.count("server \(server.state)")
        }
        for server in servers where history.resources["server"]?[server.id] == nil {
            world.violation("I2: nobody asked for server \(server.id) (\(server.name))")
        }
        violate(
            "I10", try words("SELECT count(*) || ' servers are called ' || name AS words FROM servers GROUP BY name HAVING count(*) > 1"))
        for (kind, table) in [
            ("volume", "volumes"), ("port", "ports"), ("floatingip", "floating_ips"), ("security_group", "security_groups"),
        ] {
            let ids = Set(try world.store.look { try $0.query("SELECT id FROM \(raw: table)").map { try $0.string("id") } })
            for resource in history.all(kind) where ids.contains(resource.id) == resource.deleteAccepted {
                world.violation(
                    "I1: \(kind) \(resource.id) is \(resource.deleteAccepted ? "there although its deletion was accepted" : "gone")")
            }
            guard kind == "volume" else { continue }
            let own = Set(
                try world.store.look {
                    try $0.query("SELECT volume_id FROM server_volumes WHERE created").map { try $0.string("volume_id") }
                })
            for id in ids.sorted() where history.resources[kind]?[id] == nil && !own.contains(id) { try strayVolume(id) }
        }
    }

    /// Root volumes of deleted servers are kept if so requested.
    private func strayVolume(_ id: String) throws {
        let rows = try world.store.look {
            try $0.query(
                "SELECT 1 AS one FROM audit_records WHERE resource_id = \(id) AND action = 'volume:create' AND service_user_id = 'wolke'")
        }
        if rows.isEmpty { world.violation("I2: nobody asked for volume \(id)") }
    }

    /// I3
    private func placement() throws {
        violate(
            "I3",
            try words(
                """
                SELECT p.name || ' has ' || sum(a.used) || ' ' || i.resource_class || ' allocated' AS words
                FROM allocations a JOIN resource_providers p ON p.id = a.resource_provider_id
                JOIN inventories i ON i.resource_provider_id = a.resource_provider_id AND i.resource_class = a.resource_class
                GROUP BY p.id, p.name, i.resource_class, i.total, i.reserved, i.allocation_ratio
                HAVING sum(a.used) > floor((i.total - i.reserved) * i.allocation_ratio)
                UNION ALL SELECT 'allocations of ' || a.consumer_id || ' belong to no server on ' || p.name
                FROM allocations a JOIN resource_providers p ON p.id = a.resource_provider_id
                WHERE NOT EXISTS (SELECT 1 FROM servers s WHERE s.id = a.consumer_id AND NOT s.deleted AND s.host = p.name)
                AND NOT EXISTS (SELECT 1 FROM server_migrations m JOIN servers s ON s.id = m.server_id WHERE m.uuid = a.consumer_id
                    AND m.source_host = p.name AND m.status = 'finished' AND s.vm_state = 'resized')
                """))
        let servers = try world.store.look { connection in
            try connection.query(
                """
                SELECT s.id, s.host, s.flavor, s.image, s.image_properties, coalesce((SELECT json_object_agg(a.resource_class, a.used) FROM allocations a
                    WHERE a.consumer_id = s.id), '{}') AS held
                FROM servers s WHERE NOT s.deleted AND s.host IS NOT NULL ORDER BY s.id
                """
            ).map { row in
                (
                    id: try row.string("id"), host: try row.string("host"), held: try row.value("held", as: [String: Int].self),
                    needs: try ServerNeeds(
                        try row.value("flavor"), try row.optionalValue("image"), properties: try row.value("image_properties"))
                )
            }
        }
        for server in servers where server.held != server.needs.resources {
            world.violation("I3: server \(server.id) on \(server.host) holds \(server.held) instead of \(server.needs.resources)")
        }
    }

    /// I2: images of servers have data; those of shelved servers exist as long as their servers are shelved; hosts keep no copies.
    private func images() throws {
        violate(
            "I2",
            try words(
                """
                SELECT 'image ' || i.id || ' (' || coalesce(i.name, '') || ') is ' || i.status AS words FROM images i WHERE i.status <> 'active'
                UNION ALL SELECT 'image ' || i.id || ' (' || i.name || ') is of no shelved server' FROM images i
                WHERE i.name LIKE '%-shelved' AND NOT EXISTS (SELECT 1 FROM servers s WHERE s.shelved_image_id = i.id AND NOT s.deleted)
                UNION ALL SELECT 'image ' || i.id || ' (' || i.name || ') is of no server that moves' FROM images i
                WHERE i.name LIKE '% root disk'
                UNION ALL SELECT 'server ' || s.id || ' is ' || s.vm_state || ' and its image ' || s.shelved_image_id || ' is gone'
                FROM servers s WHERE NOT s.deleted AND s.shelved_image_id IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM images i WHERE i.id = s.shelved_image_id)
                """))
        for machine in world.hosts.values {
            for server in try Files.list(machine.directory + "/servers") {
                if try !mayHaveFiles(machine.name, server) { world.violation("I2: \(machine.name) has files of server \(server)") }
                for name in try Files.list("\(machine.directory)/servers/\(server)") where name.hasPrefix("copy-") {
                    world.violation("I2: \(machine.name) has the copy \(name) of server \(server)")
                }
            }
        }
    }

    /// Whether the server is on the host, or can return to it.
    private func mayHaveFiles(_ host: String, _ server: String) throws -> Bool {
        try world.store.look { connection in
            try !connection.query(
                """
                SELECT 1 AS one FROM servers WHERE id = \(server)::uuid AND host = \(host) AND NOT deleted
                UNION ALL SELECT 1 FROM server_migrations
                    WHERE server_id = \(server)::uuid AND source_host = \(host) AND status = 'finished'
                """
            ).isEmpty
        }
    }

    /// I4
    private func quota() throws {
        for ledger in (ComputeQuotas.all + NetworkQuotas.all + BlockStorageQuotas.all).compactMap(Ledger.init) {
            violate("I4", try world.store.look { try ledger.inspection.findings($0) }.map(\.words))
        }
    }

    /// I5
    private func addresses() throws {
        violate(
            "I5",
            try words(
                """
                SELECT 'port ' || p.id || ' belongs to ' || p.device_id || ', which does not have it' AS words FROM ports p
                WHERE p.device_owner LIKE 'compute:%'
                AND NOT EXISTS (SELECT 1 FROM servers s JOIN server_interfaces i ON i.server_id = s.id
                    WHERE s.id::text = p.device_id AND NOT s.deleted AND i.port_id = p.id)
                UNION ALL SELECT 'server ' || i.server_id || ' has port ' || i.port_id || ', which is not its own'
                FROM server_interfaces i JOIN servers s ON s.id = i.server_id
                WHERE NOT EXISTS (SELECT 1 FROM ports p WHERE p.id = i.port_id AND p.device_id = i.server_id::text)
                UNION ALL SELECT 'port ' || p.id || ' is bound to ' || p.host_id || ', and server ' || s.id || ' is on ' || s.host
                FROM ports p JOIN servers s ON s.id::text = p.device_id
                WHERE NOT s.deleted AND s.vm_state <> 'error' AND p.host_id <> s.host
                UNION ALL SELECT 'port ' || p.id || ' has no device and the owner ' || p.device_owner FROM ports p
                WHERE p.device_id = '' AND p.device_owner <> ''
                UNION ALL SELECT 'address ' || f.floating_ip_address || ' has no port of its own' FROM floating_ips f
                WHERE NOT EXISTS (SELECT 1 FROM ports p WHERE p.id = f.floating_port_id)
                UNION ALL SELECT 'port ' || p.id || ' stands for a floating address that is not there' FROM ports p
                WHERE p.device_owner = 'network:floatingip' AND NOT EXISTS (SELECT 1 FROM floating_ips f WHERE f.floating_port_id = p.id)
                """))
    }
}
