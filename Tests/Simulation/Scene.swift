import Database
import JSON
import Kernel

/// The initial resources: flavors, an image, and networks created through the API.
struct Scene {
    static let projects = ["p1", "p2"]
    static let image = "22222222-2222-4222-8222-222222222222"

    let world: World
    /// Networks by project.
    private(set) var networks: [String: String] = [:]
    private(set) var external = ""

    init(_ world: World) { self.world = world }

    mutating func build() async throws {
        try rows()
        let admin = Tenant(world: world, token: "admin", number: 0)
        external = try await admin.createAndWait(
            "network", "/v2.0/networks", "network",
            ["name": "public", "router:external": true, "provider:network_type": "flat", "provider:physical_network": "physnet1"])
        _ = try await admin.createAndWait(
            "network", "/v2.0/subnets", "subnet",
            ["network_id": .string(external), "cidr": "172.24.4.0/24", "ip_version": 4, "enable_dhcp": false])
        for (number, project) in Scene.projects.enumerated() {
            let tenant = Tenant(world: world, token: project, number: 0)
            let network = try await tenant.createAndWait("network", "/v2.0/networks", "network", ["name": "net"])
            let subnet = try await tenant.createAndWait(
                "network", "/v2.0/subnets", "subnet",
                ["network_id": .string(network), "cidr": .string("10.\(number).0.0/24"), "ip_version": 4])
            let router = try await tenant.createAndWait(
                "network", "/v2.0/routers", "router", ["name": "r", "external_gateway_info": ["network_id": .string(external)]])
            let answer = try await tenant.call(
                "network", "PUT", "/v2.0/routers/\(router)/add_router_interface", ["subnet_id": .string(subnet)])
            guard answer.status == 200 else { throw SimulationExecutor.Failure(description: "no router interface: \(answer.json)") }
            networks[project] = network
        }
    }

    private func rows() throws {
        let now = world.now
        let (content, hash) = (SimulatedImages.content, SimulatedImages.hash)
        try world.store.look { connection in
            for (id, name, vcpus, memory, disk) in [("1", "tiny", 1, 512, 1), ("2", "small", 2, 1024, 4), ("3", "huge", 8, 8192, 40)] {
                try connection.execute(
                    """
                    INSERT INTO flavors (id, flavorid, name, vcpus, memory_mb, root_gb, is_public, created_at)
                    VALUES (\("99999999-9999-4999-8999-99999999999" + id), \(id), \(name), \(vcpus), \(memory), \(disk), true, \(now))
                    """)
            }
            try connection.execute(
                """
                INSERT INTO images (id, project_id, name, status, visibility, disk_format, container_format, size,
                    checksum, os_hash_algo, os_hash_value, file_id, created_at, updated_at)
                VALUES (\(Scene.image), 'admin', 'guest', 'active', 'public', 'raw', 'bare', \(content.count), 'c', 'sha512', \(hash),
                    \(Scene.image)::uuid, \(now), \(now))
                """)
        }
    }
}
