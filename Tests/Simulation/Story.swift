import JSON
import Kernel

/// What happens in a run: tenants at work under faults, then peace, then the checks.
struct Story {
    let world: World

    init(_ world: World) { self.world = world }

    func tell() async throws {
        var scene = Scene(world)
        try await scene.build()
        let tenant = Tenant(world: world, token: "p1", number: 1)
        try await world.executor.sleep(.seconds(12))
        let id = try await tenant.made(
            "compute", "/v2.1/servers", "server",
            ["name": "one", "flavorRef": "1", "imageRef": .string(Scene.image), "networks": [["uuid": .string(scene.networks["p1"] ?? "")]]])
        for _ in 0..<100 {
            try await world.executor.sleep(.seconds(1))
            let answer = try await tenant.call("compute", "GET", "/v2.1/servers/\(id)")
            if answer.json["server"]?["status"]?.stringValue == "ACTIVE" { break }
        }
        let answer = try await tenant.call("compute", "GET", "/v2.1/servers/\(id)")
        if answer.json["server"]?["status"]?.stringValue != "ACTIVE" { world.violation("not active: \(answer.json)") }
        _ = try await tenant.call("compute", "DELETE", "/v2.1/servers/\(id)")
        try await world.executor.sleep(.seconds(20))
        let gone = try await tenant.call("compute", "GET", "/v2.1/servers/\(id)")
        if gone.status != 404 { world.violation("not gone: \(gone.json)") }
    }
}
