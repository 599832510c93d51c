@testable import ComputeService
import Contracts
import Database
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import Workflow

/// Moving servers to other hosts while they are off.
@Suite struct MigrateTests {
    private static let onVolumes: JSONObject = [
        "imageRef": "<absent>",
        "block_device_mapping_v2": [
            [
                "boot_index": 0, "uuid": .string(Fixtures.image), "source_type": "image", "destination_type": "volume", "volume_size": 1,
                "delete_on_termination": true,
            ]
        ],
    ]

    private func act(
        _ cloud: TestCloud, _ id: String, _ body: JSONValue, version: String = "2.96", as token: String = "admin"
    ) async throws -> TestCloud.Answer { try await cloud.call("POST", "/v2.1/servers/\(id)/action", body, as: token, version: version) }

    private func with(_ body: (TestCloud) async throws -> Void) async throws {
        try await TestCloud.with { cloud in
            try await cloud.cloud.send(Fixtures.hello(host: "host-2"), cloud.consumer)
            try await cloud.database.write { try $0.execute("DELETE FROM outbox") }
            try await body(cloud)
        }
    }

    private func hosts(_ cloud: TestCloud, of id: String) -> [String] {
        ["host-1", "host-2"].filter { cloud.cloud.domains(on: $0)[id] != nil }
    }

    /// Where the rows of all services say that the server is.
    private func recorded(_ cloud: TestCloud, _ id: String) async throws -> Set<String> {
        try await cloud.database.read { connection in
            Set(
                try connection.query(
                    "SELECT host FROM servers WHERE id = \(id) UNION SELECT host_id FROM ports WHERE device_id = \(id)"
                ).map { try $0.string("host") })
        }
    }

    @Test func aServerOnAVolumeMovesAndReturns() async throws {
        try await with { cloud in
            let id = try await cloud.createServer(MigrateTests.onVolumes)
            let before = try await cloud.server(id)
            #expect(try await act(cloud, id, ["migrate": nil]).status == 202)
            try await cloud.engine().drain()
            let moved = try await cloud.server(id, as: "admin")
            #expect(moved["status"] == "VERIFY_RESIZE")
            #expect(moved["OS-EXT-SRV-ATTR:host"] == "host-2")
            #expect(moved["addresses"] == before["addresses"])
            #expect(hosts(cloud, of: id) == ["host-2"])
            #expect(try await recorded(cloud, id) == ["host-2"])
            #expect(cloud.cloud.domains(on: "host-2")[id]?.power == "running")
            #expect(try await cloud.leftovers() == [])
            let list = try await cloud.call("GET", "/v2.1/os-migrations?host=host-2", as: "admin").json["migrations"]?.arrayValue
            #expect(list?.first?["migration_type"] == "migration")
            #expect(list?.first?["source_compute"] == "host-1" && list?.first?["dest_compute"] == "host-2")

            #expect(try await act(cloud, id, ["revertResize": nil], as: "member").status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(hosts(cloud, of: id) == ["host-1"])
            #expect(try await recorded(cloud, id) == ["host-1"])
            #expect(try await cloud.leftovers() == [])

            #expect(try await act(cloud, id, ["migrate": ["host": "host-2"]]).status == 202)
            try await cloud.engine().drain()
            #expect(try await act(cloud, id, ["confirmResize": nil], as: "member").status == 204)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(hosts(cloud, of: id) == ["host-2"])
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func whatCannotMoveIsRefused() async throws {
        try await with { cloud in
            let local = try await cloud.createServer()
            #expect(try await act(cloud, local, ["migrate": nil]).message.contains("has local disks"))
            let id = try await cloud.createServer(MigrateTests.onVolumes)
            #expect(try await act(cloud, id, ["migrate": nil], as: "member").status == 403)
            #expect(try await act(cloud, id, ["migrate": ["host": "host-2"]], version: "2.55").status == 202)
            try await cloud.engine().drain()
            #expect(try await act(cloud, id, ["migrate": nil]).status == 409)
            #expect(try await act(cloud, id, ["confirmResize": nil]).status == 204)
            try await cloud.engine().drain()
            #expect(try await act(cloud, id, ["migrate": ["host": "host-2"]]).message.contains("to current host"))
            #expect(try await act(cloud, id, ["migrate": ["host": "nowhere"]]).message.contains("could not be found"))
        }
    }

    @Test func noHostLeavesTheServerRunning() async throws {
        try await with { cloud in
            let id = try await cloud.createServer(MigrateTests.onVolumes)
            cloud.cloud.reject(["result": "rejected", "message": "No valid host was found.", "filters": []])
            #expect(try await act(cloud, id, ["migrate": nil]).status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(cloud.cloud.domains(on: "host-1")[id]?.power == "running")
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func migrateUnderEveryDisturbance() async throws {
        try await with { cloud in
            for kind in ["server.migrate", "server.revert_migration"] {
                let definition = try #require(cloud.module.workflows.first { $0.kind == kind })
                for variant in WorkflowChecks(definition).variants { try await run(kind, variant, cloud) }
            }
        }
    }

    private func run(_ kind: String, _ variant: WorkflowChecks.Variant, _ cloud: TestCloud) async throws {
        let label = Comment(rawValue: "\(kind) \(variant.name)")
        let engine = cloud.engine([variant.definition])
        let id = try await cloud.createServer(MigrateTests.onVolumes)
        #expect(try await act(cloud, id, ["migrate": nil]).status == 202, label)
        try await engine.drain()
        try await cloud.cloud.deliver(to: cloud.consumer)
        var home = kind != "server.migrate" || variant.succeeds ? "host-2" : "host-1"
        #expect(try await cloud.server(id)["status"] == (home == "host-2" ? "VERIFY_RESIZE" : "ACTIVE"), label)
        #expect(hosts(cloud, of: id) == [home], label)
        if home == "host-2" {
            let reverts = kind == "server.revert_migration"
            #expect(try await act(cloud, id, [reverts ? "revertResize" : "confirmResize": nil]).status / 100 == 2, label)
            try await engine.drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            home = reverts ? "host-1" : "host-2"
        }
        #expect(try await cloud.server(id)["status"] == "ACTIVE", label)
        #expect(hosts(cloud, of: id) == [home], label)
        #expect(cloud.cloud.domains(on: home)[id]?.power == "running", label)
        #expect(try await recorded(cloud, id) == [home], label)
        #expect(try await cloud.leftovers() == [], label)
        try await cloud.call("DELETE", "/v2.1/servers/\(id)")
        try await engine.drain()
        try await cloud.cloud.deliver(to: cloud.consumer)
        #expect(hosts(cloud, of: id) == [], label)
        #expect(try await cloud.leftovers() == [], label)
    }
}
