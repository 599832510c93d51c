import ComputeAgentService
import Database
import Kernel

extension Auditor {
    /// I6: the records of Block Storage and Compute, the guests and the storage agree.
    func volumes() throws {
        violate(
            "I6",
            try words(
                """
                SELECT 'volume ' || v.id || ' is ' || v.status || ' with ' || count(a.id) || ' attachments' AS words
                FROM volumes v LEFT JOIN volume_attachments a ON a.volume_id = v.id
                GROUP BY v.id, v.status HAVING (v.status = 'in-use') <> (count(a.id) > 0) OR count(a.id) > 1
                UNION ALL SELECT 'volume ' || a.volume_id || ' is attached (' || a.status || ') to ' || coalesce(a.server_id::text, 'nothing') || ', which does not have it'
                FROM volume_attachments a WHERE a.status <> 'attached' OR NOT EXISTS (
                    SELECT 1 FROM server_volumes s WHERE s.server_id = a.server_id AND s.attachment_id = a.id)
                UNION ALL SELECT 'server ' || s.server_id || ' has volume ' || s.volume_id || ' without its attachment'
                FROM server_volumes s WHERE NOT EXISTS (SELECT 1 FROM volume_attachments a WHERE a.id = s.attachment_id)
                """))
        let kept = try world.store.look {
            try $0.query("SELECT id, status FROM volumes ORDER BY id").map { (id: try $0.string("id"), status: try $0.string("status")) }
        }
        let named = Set(kept.map { "volume-\($0.id)" })
        for disk in world.storage.disks.keys.sorted() where !named.contains(disk) { world.violation("I6: disk \(disk) belongs to nothing") }
        for volume in kept where volume.status != "error" && world.storage.disks["volume-\(volume.id)"] == nil {
            world.violation("I6: volume \(volume.id) is \(volume.status) and has no disk")
        }
    }

    /// I7, I12: each server runs on its host, in its desired state, and on no other host.
    func hosts() throws {
        struct Server {
            let id: String
            let host: String?
            let state: String
            let power: String
            let ports: [String]
            let volumes: [String]
        }
        let servers = try world.store.look { connection in
            try connection.query(
                """
                SELECT s.id, s.host, s.vm_state, s.power,
                    (SELECT coalesce(json_agg(i.port_id ORDER BY i.port_id), '[]') FROM server_interfaces i WHERE i.server_id = s.id) AS ports,
                    (SELECT coalesce(json_agg(v.volume_id ORDER BY v.volume_id), '[]') FROM server_volumes v WHERE v.server_id = s.id AND s.rescue IS NULL) AS volumes
                FROM servers s WHERE NOT s.deleted ORDER BY s.id
                """
            ).map {
                Server(
                    id: try $0.string("id"), host: try $0.optionalString("host"), state: try $0.string("vm_state"),
                    power: try $0.string("power"), ports: try $0.strings("ports"), volumes: try $0.strings("volumes"))
            }
        }
        let known = Dictionary(uniqueKeysWithValues: servers.map { ($0.id, $0) })
        for (name, host) in world.hosts.sorted(by: { $0.key < $1.key }) {
            for (id, domain) in host.domains.sorted(by: { $0.key < $1.key }) {
                guard let server = known[id], server.host == name else {
                    world.violation("I2: \(name) has server \(id), which belongs \(known[id]?.host ?? "nowhere")")
                    continue
                }
                // libvirt identifies ports by their taps.
                let taps = Set(server.ports.map { "tap" + $0.prefix(11) })
                for devices in [domain.definition, domain.live].compactMap({ $0 }) {
                    if devices.taps != taps {
                        world.violation("I12: server \(id) has the taps \(devices.taps.sorted()), not \(taps.sorted())")
                    }
                    if devices.volumes != Set(server.volumes) {
                        world.violation("I6: server \(id) has the volumes \(devices.volumes.sorted()), not \(server.volumes)")
                    }
                }
                let unbound = server.ports.filter { domain.live != nil && world.network.bound[$0] != [name] }
                if !unbound.isEmpty { world.violation("I12: server \(id) runs and its ports \(unbound) are not plugged in on \(name)") }
            }
        }
        for server in servers where server.state != "error" {
            let domain = server.host.flatMap { world.hosts[$0]?.domains[server.id] }
            // A server that must be absent is in its desired state if no host has it.
            if domain?.power ?? (server.power == "absent" ? "absent" : nil) != server.power {
                world.violation("I12: server \(server.id) is \(domain?.power ?? "nowhere"), desired \(server.power), \(server.state)")
            }
            // Servers stay in these states when their guests stop.
            let powers = ["active": "running", "stopped": "shutoff", "shelved": "shutoff", "shelved_offloaded": "absent"]
            let shown = ["resized", "rescued"].contains(server.state) ? server.power : powers[server.state]
            if shown != server.power { world.violation("I12: server \(server.id) is shown as \(server.state), desired \(server.power)") }
        }
    }

    /// I13: every accepted change has an audit record.
    func audit() throws {
        let rows = try world.store.look { connection in
            try connection.query("SELECT action, resource_id, count(*) AS n FROM audit_records WHERE resource_id IS NOT NULL GROUP BY 1, 2")
                .map {
                    ("\(try $0.string("action")) \(try $0.string("resource_id"))", try $0.int("n"))
                }
        }
        let found = Dictionary(uniqueKeysWithValues: rows)
        var wanted: [String: Int] = [:]
        for (action, resource) in history.audited { wanted["\(action) \(resource)", default: 0] += 1 }
        for (what, count) in wanted.sorted(by: { $0.key < $1.key }) where (found[what] ?? 0) < count {
            world.violation("I13: \(what) was accepted \(count) times and is \(found[what] ?? 0) times in the audit")
        }
        for (what, count) in found.sorted(by: { $0.key < $1.key }) where what.contains(":create") && !what.contains("attach") && count > 1 {
            world.violation("I10: \(what) is \(count) times in the audit")
        }
    }

    /// Deleted resources of tenants have left nothing behind.
    func checkEmpty() throws {
        violate(
            "leak",
            try words(
                """
                SELECT 'allocation of ' || consumer_id AS words FROM allocations
                UNION ALL SELECT 'consumer ' || id FROM consumers
                UNION ALL SELECT 'server ' || id FROM servers WHERE NOT deleted
                UNION ALL SELECT 'port ' || id || ' of ' || device_owner FROM ports WHERE device_owner NOT LIKE 'network:%'
                UNION ALL SELECT 'floating address ' || id FROM floating_ips
                UNION ALL SELECT 'volume ' || id || ' ' || status FROM volumes
                UNION ALL SELECT 'attachment ' || id FROM volume_attachments
                UNION ALL SELECT 'interface ' || port_id FROM server_interfaces
                UNION ALL SELECT 'volume of a server ' || volume_id FROM server_volumes
                UNION ALL SELECT 'quota ' || resource || ' of ' || project_id || ' ' || used FROM quota_usages
                    WHERE used > 0 AND (resource LIKE 'compute:%' OR resource LIKE 'block_storage:%' OR resource = 'network:floatingip')
                """))
        for disk in world.storage.disks.keys.sorted() { world.violation("leak: disk \(disk)") }
        for (name, host) in world.hosts.sorted(by: { $0.key < $1.key }) {
            for id in host.domains.keys.sorted() { world.violation("leak: server \(id) on \(name)") }
            for device in host.links.keys.sorted() { world.violation("leak: tap \(device) on \(name)") }
            for server in try Files.list(host.directory + "/servers") { world.violation("leak: files of server \(server) on \(name)") }
        }
        for port in world.network.bound.keys.sorted() { world.violation("leak: port \(port) is plugged in") }
    }
}
