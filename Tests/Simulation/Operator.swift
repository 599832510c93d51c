import JSON
import Kernel

/// An operator who handles hosts that lose power (their servers start elsewhere, and the host returns later) and moves running servers.
final class Operator: @unchecked Sendable {
    private let world: World
    private let history: History
    private let client: Tenant

    /// - Parameter number: the client's number, so that no two clients use the same idempotency keys.
    init(_ world: World, _ history: History, number: Int) {
        self.world = world
        self.history = history
        client = Tenant(world: world, token: "admin", number: number)
    }

    /// - Parameter outages: the number of hosts that fail, one after the other.
    func run(outages: Int) async throws {
        for _ in 0..<outages {
            try await world.executor.sleep(world.between(.seconds(5), .seconds(40)))
            try await outage(Plane.hosts[world.random.below(Plane.hosts.count)])
        }
    }

    /// Moves running servers to other hosts, for maintenance.
    func move(times: Int) async throws {
        for _ in 0..<times {
            try await world.executor.sleep(world.between(.seconds(1), .seconds(12)))
            let list = try await client.call("compute", "GET", "/v2.1/servers?all_tenants=1&status=ACTIVE")
            let servers = (list.json["servers"]?.arrayValue ?? []).compactMap { $0["id"]?.stringValue }
            guard !servers.isEmpty else { continue }
            let id = servers[world.random.below(servers.count)]
            let body: JSONValue = ["os-migrateLive": ["host": .null, "block_migration": "auto"]]
            let answer = try await client.call("compute", "POST", "/v2.1/servers/\(id)/action", body)
            guard answer.isAccepted else {
                world.count("refused \(answer.status)")
                if ![400, 404, 409].contains(answer.status) {
                    world.violation("a live migration is answered with \(answer.status): \(answer.json)")
                }
                continue
            }
            history.accept("os_compute_api:os-migrate-server:migrate_live", id)
        }
    }

    private func outage(_ host: String) async throws {
        world.trace("\(host) loses its power")
        world.count("power failure")
        world.hold("agent-\(host)")
        world.hosts[host]?.powerOff()
        let service = try await client.call("compute", "GET", "/v2.1/os-services?host=\(host)").json["services"]?.arrayValue?.first
        if let id = service?["id"]?.stringValue {
            try await set(id, forcedDown: true)
            try await evacuate(host)
            try await world.executor.sleep(world.between(.seconds(1), .seconds(120)))
            try returns(host)
            try await set(id, forcedDown: false)
        } else {
            try returns(host)
        }
    }

    private func returns(_ host: String) throws {
        world.trace("\(host) returns")
        world.hosts[host]?.powerOn()
        try world.release("agent-\(host)")
    }

    private func set(_ service: String, forcedDown: Bool) async throws {
        let answer = try await client.call("compute", "PUT", "/v2.1/os-services/\(service)", ["forced_down": .bool(forcedDown)])
        guard answer.isAccepted else {
            return world.violation("forced_down is answered with \(answer.status): \(answer.json)")
        }
    }

    private func evacuate(_ host: String) async throws {
        let list = try await client.call("compute", "GET", "/v2.1/servers?all_tenants=1&host=\(host)")
        for server in list.json["servers"]?.arrayValue ?? [] {
            guard let id = server["id"]?.stringValue, world.random.below(4) > 0 else { continue }
            let answer = try await client.call("compute", "POST", "/v2.1/servers/\(id)/action", ["evacuate": [:]])
            guard answer.isAccepted else {
                world.count("refused \(answer.status)")
                if ![400, 404, 409].contains(answer.status) {
                    world.violation("evacuate is answered with \(answer.status): \(answer.json)")
                }
                continue
            }
            world.count("evacuated")
            history.accept("os_compute_api:os-evacuate", id)
        }
    }
}
