import Authorization
import Database
import JSON
import Kernel
import Messaging
import PlacementService
import ServiceCatalog
import ServiceKit
import Telemetry
import TestKit
import WebAPI

/// A private database with the service.
struct PlacementBench {
    let test: TestDatabase
    let placement: Placement
    let api: API

    static func with(connectionsMax: Int = 8, _ body: (PlacementBench) async throws -> Void) async throws {
        try await TestDatabase.with(connectionsMax: connectionsMax) { test in
            let placement = Placement(database: test.database, ambient: Ambient(random: SeededRandom(seed: 7)))
            let module = try PlacementModule.make(placement, .test(test.database, .placement))
            try await body(PlacementBench(test: test, placement: placement, api: module.api))
        }
    }

    /// A host as announced by Compute.
    @discardableResult
    func addHost(
        _ name: String, cpus: Int = 4, memory: Int = 8192, disk: Int = 100, ratio: Double = 1, traits: [String] = [],
        enabled: Bool = true, zone: String = "nova"
    ) async throws -> String {
        let id = SystemRandom().uuid().description
        try await test.database.write {
            _ = try $0.execute(
                """
                INSERT INTO compute_services (id, host, enabled, availability_zone, created_at, updated_at)
                VALUES (\(id)::uuid, \(name), \(enabled), \(zone), now(), now())
                """)
        }
        try await hear([
            "type": "host", "host": .string(name), "resource_provider_id": .string(id),
            "inventories": [
                "VCPU": ["total": JSONValue(cpus), "allocation_ratio": .double(ratio), "max_unit": JSONValue(cpus)],
                "MEMORY_MB": ["total": JSONValue(memory)], "DISK_GB": ["total": JSONValue(disk)],
            ], "traits": JSONValue(traits), "enabled": .bool(enabled), "forced_down": false,
        ])
        return id
    }

    /// Compute's message about a host.
    func hear(_ body: JSONValue) async throws {
        try await placement.register(Message(id: SystemRandom().uuid(), type: "host", body: body))
    }

    func call(
        _ method: String, _ target: String, version: String = "1.39", token: String? = "admin", body: JSONValue? = nil
    ) async throws -> (status: Int, json: JSONValue, headers: Headers) {
        var fields: Headers = ["openstack-api-version": "placement \(version)"]
        if let token { fields["x-auth-token"] = token }
        let response = await api.respond(to: try IncomingRequest(method, target, headers: fields, body: body?.encoded ?? []))
        let bytes = response.bytes ?? []
        return (response.status, bytes.isEmpty ? .null : try JSONValue.parse(bytes), response.headers)
    }

    func count(_ table: String) async throws -> Int {
        try await test.database.read { try $0.query("SELECT count(*) AS n FROM \(raw: table)")[0].int("n") }
    }
}

/// The body of a `placement.schedule` message.
func wanted(
    _ consumer: UUID128 = SystemRandom().uuid(), operation: UUID128 = SystemRandom().uuid(), cpus: Int = 1,
    memory: Int = 512, disk: Int = 1, with more: JSONObject = [:]
) -> JSONValue {
    var body: JSONObject = [
        "operation_id": .string(operation.description), "consumer_id": .string(consumer.description),
        "project_id": "p1", "user_id": "u1",
        "resources": ["VCPU": JSONValue(cpus), "MEMORY_MB": JSONValue(memory), "DISK_GB": JSONValue(disk)],
        "required_traits": [], "forbidden_traits": [], "flavor_extra_specs": [:], "image_properties": [:], "aggregate_metadata": [:],
        "same_host": [], "different_host": [], "exclude_hosts": [], "dry_run": false,
    ]
    for member in more.members { body[member.name] = member.value }
    return .object(body)
}
