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

    /// The target's disks are deleted when the server returns, so its source host must be available.
    @Test func aServerReturnsOnlyToAHostThatIsUp() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer(MigrateTests.onVolumes)
            #expect(try await cloud.act(id, ["migrate": nil]).status == 202)
            try await cloud.engine().drain()
            let reset = try await cloud.act(id, ["os-resetState": ["state": "active"]])
            #expect(reset.status == 409 && reset.message.contains("neither confirmed nor reverted"), "\(reset.message)")
            try await cloud.declare("host-1", isDown: true)
            let refused = try await cloud.act(id, ["revertResize": nil], as: "member")
            #expect(refused.status == 409 && refused.message.contains("is down"), "\(refused.message)")
            #expect(try await cloud.server(id)["status"] == "VERIFY_RESIZE" && cloud.hosts(of: id) == ["host-2"])
            try await cloud.declare("host-1", isDown: false)
            #expect(try await cloud.act(id, ["revertResize": nil], as: "member").status == 202)
            try await cloud.engine().drain()
            #expect(cloud.hosts(of: id) == ["host-1"])
        }
    }

    @Test func noServerMovesWhileItsVolumesAreCopied() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer(MigrateTests.onVolumes)
            try await cloud.database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO server_jobs (id, server_id, host, job, created_at)
                    VALUES (gen_random_uuid(), \(id), 'host-1', jsonb_build_object('kind', \(ServerJob.copyVolumes)::text), now())
                    """)
            }
            for body: JSONValue in [
                ["migrate": nil], ["resize": ["flavorRef": "2"]], ["os-migrateLive": ["host": nil, "block_migration": "auto"]],
            ] {
                let refused = try await cloud.act(id, body)
                #expect(refused.status == 409 && refused.message.contains("copies volumes"), "\(refused.message)")
            }
        }
    }

    @Test func aServerOnAVolumeMovesAndReturns() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer(MigrateTests.onVolumes)
            let before = try await cloud.server(id)
            #expect(try await cloud.act(id, ["migrate": nil]).status == 202)
            try await cloud.engine().drain()
            let moved = try await cloud.server(id, as: "admin")
            #expect(moved["status"] == "VERIFY_RESIZE")
            #expect(moved["OS-EXT-SRV-ATTR:host"] == "host-2")
            #expect(moved["addresses"] == before["addresses"])
            #expect(cloud.hosts(of: id) == ["host-2"])
            #expect(try await cloud.recordedHosts(of: id) == ["host-2"])
            #expect(cloud.cloud.domains(on: "host-2")[id]?.power == "running")
            #expect(try await cloud.leftovers() == [])
            let list = try await cloud.call("GET", "/v2.1/os-migrations?host=host-2", as: "admin").json["migrations"]?.arrayValue
            #expect(list?.first?["migration_type"] == "migration")
            #expect(list?.first?["source_compute"] == "host-1" && list?.first?["dest_compute"] == "host-2")

            #expect(try await cloud.act(id, ["revertResize": nil], as: "member").status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(cloud.hosts(of: id) == ["host-1"])
            #expect(try await cloud.recordedHosts(of: id) == ["host-1"])
            #expect(try await cloud.leftovers() == [])

            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.act(id, ["migrate": ["host": "host-2"]]).status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.act(id, ["confirmResize": nil], as: "member").status == 204)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(cloud.hosts(of: id) == ["host-2"])
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func localDisksMoveAndTheFirstHostKeepsThem() async throws {
        try await TestCloud.withTwoHosts { cloud in
            _ = try await cloud.database.write { try $0.execute("UPDATE flavors SET ephemeral_gb = 2 WHERE flavorid = '1'") }
            let id = try await cloud.createServer()
            func images() async throws -> Int {
                try await cloud.database.read {
                    try $0.query("SELECT count(*) AS n FROM images WHERE properties->>'instance_uuid' = \(id) AND status <> 'deleted'")[0]
                        .int("n")
                }
            }
            #expect(try await cloud.act(id, ["migrate": nil]).status == 202)
            try await cloud.engine().drain()
            let jobs = cloud.cloud.received.compactMap { $0["server"]?["jobs"]?.arrayValue }.last { $0.count == 2 } ?? []
            #expect(Set(jobs.map { $0["upload"]?["disk"] ?? "root" }) == ["root", "ephemeral"])
            #expect(Set(jobs.map { $0["upload"]?["project_id"] ?? .null }) == ["admin"], "the copies are the operator's")
            #expect(try await cloud.server(id, as: "admin")["OS-EXT-SRV-ATTR:host"] == "host-2")
            let there = try #require(cloud.cloud.received.last { $0["server"]?["disk_sources"] ?? .null != .null })["server"]
            let sources = there?["disk_sources"]?.arrayValue ?? []
            #expect(sources.map { $0["disk"] ?? .null } == ["root", "ephemeral"])
            #expect(sources.allSatisfy { $0["image"]?["os_hash_value"] == "h" && $0["image"]?["disk_format"] == "qcow2" })
            #expect(cloud.hosts(of: id) == ["host-2"])
            #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-1", "host-2"])
            #expect(try await images() == 0, "the copies are gone")
            #expect(try await cloud.leftovers() == [])

            #expect(try await cloud.act(id, ["revertResize": nil], as: "member").status == 202)
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.hosts(of: id) == ["host-1"] && cloud.cloud.hosts(withDisksOf: id) == ["host-1"])
            #expect(try await cloud.leftovers() == [])

            #expect(try await cloud.act(id, ["migrate": ["host": "host-2"]]).status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.act(id, ["confirmResize": nil], as: "member").status == 204)
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-2"], "the first host has nothing left")
            // The moved disk has no backing image, so the disk that it is sent to must not have one either.
            #expect(try await cloud.act(id, ["os-migrateLive": ["host": nil, "block_migration": "auto"]]).status == 202)
            try await cloud.engine().drain()
            let expected = cloud.cloud.received.last { $0["server"]?["power"] == "expected" }
            #expect(expected?["server"]?["image"]?["copied"] == true)
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// A late report must not cause the loss of the disks that the server can return to.
    @Test func aLateReportDoesNotRemoveKeptDisks() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            #expect(try await cloud.act(id, ["migrate": nil]).status == 202)
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            try await cloud.cloud.report(id, host: "host-1", power: "shutoff", generation: 1, epoch: 1, cloud.consumer)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-1", "host-2"])
            // Deleted before it is confirmed: both hosts remove it.
            try await cloud.call("DELETE", "/v2.1/servers/\(id)")
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.hosts(withDisksOf: id) == [])
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// Copies that are kept for a reversal must not cause a deleted server to leave disks on its host.
    @Test func aDeletedServerLeavesNoDisks() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            #expect(try await cloud.act(id, ["resize": ["flavorRef": "2"]], as: "member").status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id, as: "admin")["OS-EXT-SRV-ATTR:host"] == "host-1")
            try await cloud.call("DELETE", "/v2.1/servers/\(id)")
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(cloud.cloud.hosts(withDisksOf: id) == [])
        }
    }

    @Test func aResizeGoesToAnotherHostIfItsOwnIsFull() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            func flavor() async throws -> JSONValue? { try await cloud.server(id)["flavor"]?["original_name"] }
            cloud.cloud.fill("host-1")
            for reverts in [true, false] {
                #expect(try await cloud.act(id, ["resize": ["flavorRef": "2"]], as: "member").status == 202)
                try await cloud.engine().drain()
                let server = try await cloud.server(id, as: "admin")
                #expect(server["status"] == "VERIFY_RESIZE" && server["OS-EXT-SRV-ATTR:host"] == "host-2", "\(server)")
                #expect(try await flavor() == "m1.large")
                #expect(cloud.cloud.hosts(withDisksOf: id) == ["host-1", "host-2"])
                let record = try #require(try await cloud.migrations(of: id).first)
                #expect(record["migration_type"] == "resize" && record["dest_compute"] == "host-2")
                #expect(try await cloud.leftovers() == [])
                #expect(try await cloud.act(id, [reverts ? "revertResize" : "confirmResize": nil], as: "member").status / 100 == 2)
                try await cloud.engine().drain()
                try await cloud.cloud.deliver(to: cloud.consumer)
                #expect(cloud.cloud.hosts(withDisksOf: id) == [reverts ? "host-1" : "host-2"])
                #expect(try await flavor() == (reverts ? "m1.tiny" : "m1.large"))
                #expect(try await cloud.leftovers() == [])
            }
        }
    }

    @Test func impossibleMigrationsAreRefused() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            #expect(try await cloud.act(id, ["migrate": nil], as: "member").status == 403)
            func release(_ host: String, _ isKnown: Bool) async throws {
                _ = try await cloud.database.write {
                    try $0.execute(
                        """
                        UPDATE hypervisors SET capabilities = CASE WHEN \(isKnown) THEN capabilities || '{"release": "0.2.0"}'
                            ELSE capabilities - 'release' END WHERE host = \(host)
                        """)
                }
            }
            try await release("host-1", false)
            #expect(try await cloud.act(id, ["migrate": nil]).message.contains("would delete the server's disks"))
            try await release("host-1", true)
            try await release("host-2", false)
            #expect(try await cloud.act(id, ["migrate": ["host": "host-2"]]).status == 409)
            try await release("host-2", true)
            // The member is new in 2.56; before, Nova ignores it and lets the scheduler choose another host.
            #expect(try await cloud.act(id, ["migrate": ["host": "host-2"]], version: "2.55").status == 400)
            #expect(try await cloud.act(id, ["migrate": ["host": "host-2"]], version: "2.56").status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.act(id, ["migrate": nil]).status == 409)
            #expect(try await cloud.act(id, ["confirmResize": nil]).status == 204)
            try await cloud.engine().drain()
            #expect(try await cloud.act(id, ["migrate": ["host": "host-2"]]).message.contains("to current host"))
            #expect(try await cloud.act(id, ["migrate": ["host": "nowhere"]]).message.contains("could not be found"))
        }
    }

    @Test func noHostLeavesTheServerRunning() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer(MigrateTests.onVolumes)
            cloud.cloud.reject(["result": "rejected", "message": "No valid host was found.", "filters": []])
            #expect(try await cloud.act(id, ["migrate": nil]).status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(cloud.cloud.domains(on: "host-1")[id]?.power == "running")
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func migrateUnderEveryDisturbance() async throws {
        try await TestCloud.withTwoHosts { cloud in
            for kind in ["server.migrate", "server.revert_migration"] {
                let definition = try #require(cloud.module.workflows.first { $0.kind == kind })
                for variant in WorkflowChecks(definition).variants {
                    // Servers that boot from a volume skip the steps for disks.
                    try await run(kind, variant, cloud, on: MigrateTests.onVolumes)
                    try await run(kind, variant, cloud, on: [:])
                }
            }
        }
    }

    private func run(_ kind: String, _ variant: WorkflowChecks.Variant, _ cloud: TestCloud, on disks: JSONObject) async throws {
        let label = Comment(rawValue: "\(kind) \(variant.name) \(disks.isEmpty ? "on local disks" : "on volumes")")
        let engine = cloud.engine([variant.definition])
        let id = try await cloud.createServer(disks)
        #expect(try await cloud.act(id, ["migrate": nil]).status == 202, label)
        try await engine.drain()
        try await cloud.cloud.deliver(to: cloud.consumer)
        var home = kind != "server.migrate" || variant.succeeds ? "host-2" : "host-1"
        #expect(try await cloud.server(id)["status"] == (home == "host-2" ? "VERIFY_RESIZE" : "ACTIVE"), label)
        #expect(cloud.hosts(of: id) == [home], label)
        #expect(cloud.cloud.hosts(withDisksOf: id) == (home == "host-2" ? ["host-1", "host-2"] : ["host-1"]), label)
        if home == "host-2" {
            let reverts = kind == "server.revert_migration"
            #expect(try await cloud.act(id, [reverts ? "revertResize" : "confirmResize": nil]).status / 100 == 2, label)
            try await engine.drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            home = reverts ? "host-1" : "host-2"
        }
        #expect(try await cloud.server(id)["status"] == "ACTIVE", label)
        #expect(cloud.hosts(of: id) == [home], label)
        #expect(cloud.cloud.domains(on: home)[id]?.power == "running", label)
        #expect(cloud.cloud.hosts(withDisksOf: id) == [home], label)
        #expect(try await cloud.recordedHosts(of: id) == [home], label)
        #expect(try await cloud.leftovers() == [], label)
        try await cloud.call("DELETE", "/v2.1/servers/\(id)")
        try await engine.drain()
        try await cloud.cloud.deliver(to: cloud.consumer)
        #expect(cloud.hosts(of: id) == [], label)
        #expect(try await cloud.leftovers() == [], label)
    }
}
