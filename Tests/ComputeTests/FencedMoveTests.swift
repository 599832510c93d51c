import ComputeService
import Database
import JSON
import Kernel
import Synchronization
import TestKit
import Testing
import Workflow

/// Hosts that stop reporting while a server moves to them or starts there, so that it is unknown whether the guest runs there.
@Suite struct FencedMoveTests {
    private static let live: JSONValue = ["os-migrateLive": ["host": nil, "block_migration": "auto"]]
    /// Longer than a host may be silent before it counts as down.
    private static let long = Duration.seconds(200)

    private func task(_ cloud: TestCloud, _ id: String) async throws -> String? {
        try await cloud.database.read { try $0.query("SELECT task_state FROM servers WHERE id = \(id)")[0].optionalString("task_state") }
    }

    /// Runs the workflow. From `moment` on the host is silent; if the workflow has not ended after a long time, the host is fenced off.
    ///
    /// - Returns: whether the server's task was still in progress after that time.
    private func runWithoutTarget(
        _ cloud: TestCloud, _ id: String, host: String = "host-2", fences: Bool = true, from moment: @escaping @Sendable (TestCloud) -> Bool
    ) async throws -> Bool {
        let silentSince = Mutex<Timestamp?>(nil)
        let waited = Mutex(false)
        cloud.time.whenWaiting {
            let now = cloud.time.now()
            if moment(cloud), silentSince.withLock({ $0 }) == nil {
                cloud.cloud.silence(host)
                silentSince.withLock { $0 = now }
            }
            if let since = silentSince.withLock({ $0 }), now - since > FencedMoveTests.long, try await task(cloud, id) != nil {
                waited.withLock { $0 = true }
                if fences { try await cloud.declare(host, isDown: true) }
            }
            try await cloud.cloud.work(cloud.consumer)
        }
        try await cloud.engine().drain()
        try await cloud.cloud.deliver(to: cloud.consumer)
        return waited.withLock { $0 }
    }

    @Test("S11: a live migration does not start the guest again while it may run on a host that vanished")
    func s11LiveMigrationWaitsForTheFence() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            #expect(try await cloud.act(id, FencedMoveTests.live).status == 202)
            cloud.cloud.failJobs("the connection was lost")
            let waited = try await runWithoutTarget(cloud, id) { cloud in
                cloud.cloud.received.contains { $0["server"]?["jobs"]?.arrayValue?.isEmpty == false }
            }
            #expect(waited, "the source had the guest again without the operator's word")
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(cloud.cloud.domains(on: "host-1")[id]?.power == "running")
        }
    }

    @Test func aGuestThatCertainlyStayedNeedsNoFence() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            #expect(try await cloud.act(id, FencedMoveTests.live).status == 202)
            cloud.cloud.failJobs("the connection was lost")
            cloud.cloud.reportStayingGuests()
            let waited = try await runWithoutTarget(cloud, id, fences: false) { cloud in
                cloud.cloud.received.contains { $0["server"]?["jobs"]?.arrayValue?.isEmpty == false }
            }
            #expect(!waited)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
        }
    }

    @Test("S11: an evacuation is taken back only if its target cannot run the guest")
    func s11EvacuationWaitsForTheFence() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer()
            try await cloud.declare("host-1", isDown: true)
            cloud.cloud.silence("host-1")
            #expect(try await cloud.act(id, ["evacuate": [:]]).status == 200)
            cloud.cloud.failOnHost("no room", reason: "no room", only: "host-2")
            let waited = try await runWithoutTarget(cloud, id) { $0.cloud.failures > 0 }
            #expect(waited)
            #expect(try await cloud.server(id, as: "admin")["OS-EXT-SRV-ATTR:host"] == "host-1")
            let power = try await cloud.database.read { try $0.query("SELECT power FROM servers WHERE id = \(id)")[0].string("power") }
            #expect(power == "running", "the server has its power again")
        }
    }

    @Test("S11: a migration is taken back only if its target cannot run the guest")
    func s11MigrationWaitsForTheFence() async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer([
                "imageRef": "<absent>",
                "block_device_mapping_v2": [
                    [
                        "boot_index": 0, "uuid": .string(Fixtures.image), "source_type": "image", "destination_type": "volume",
                        "volume_size": 1, "delete_on_termination": true,
                    ]
                ],
            ])
            #expect(try await cloud.act(id, ["migrate": nil]).status == 202)
            cloud.cloud.failOnHost("no room", reason: "no room", only: "host-2")
            let waited = try await runWithoutTarget(cloud, id) { $0.cloud.failures > 0 }
            #expect(waited)
            let server = try await cloud.server(id, as: "admin")
            #expect(server["status"] == "ACTIVE" && server["OS-EXT-SRV-ATTR:host"] == "host-1", "\(server)")
            #expect(cloud.cloud.domains(on: "host-1")[id]?.power == "running")
        }
    }

    // MARK: starts

    /// Hosts have less time to start a server than they may be silent.
    private static let hurried = ComputeSettings(spawnDeadline: .seconds(30))

    private func act(_ cloud: TestCloud, _ id: String, _ body: JSONValue) async throws {
        let answer = try await cloud.act(id, body)
        #expect(answer.status == 202, "\(answer.json)")
    }

    /// The server could otherwise be started on another host, with the same volumes.
    @Test("S11: a failed unshelve waits for the word about a host that vanished")
    func s11UnshelveWaitsForTheFence() async throws {
        try await TestCloud.withTwoHosts(settings: FencedMoveTests.hurried) { cloud in
            let id = try await cloud.createServer()
            try await act(cloud, id, ["shelve": nil])
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "SHELVED_OFFLOADED")
            try await act(cloud, id, ["unshelve": ["host": "host-2"]])
            #expect(try await runWithoutTarget(cloud, id) { _ in true }, "the server was free to start elsewhere")
            #expect(try await cloud.server(id)["status"] == "SHELVED_OFFLOADED")
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// Volumes that were created for the server are deleted.
    @Test("S11: a failed build frees no volume that its host may still write to", arguments: [true, false])
    func s11BuildWaitsForTheFence(hasVolume: Bool) async throws {
        try await TestCloud.withTwoHosts(settings: FencedMoveTests.hurried) { cloud in
            let root: JSONValue = [
                "boot_index": 0, "uuid": .string(Fixtures.image), "source_type": "image", "destination_type": "volume", "volume_size": 1,
            ]
            let volume: JSONValue = [
                "boot_index": -1, "uuid": .string(Fixtures.volume), "source_type": "volume", "destination_type": "volume",
            ]
            let devices: JSONValue = hasVolume ? [root, volume] : [root]
            let body = TestCloud.body(["imageRef": "<absent>", "block_device_mapping_v2": devices])
            let id = try #require(try await cloud.call("POST", "/v2.1/servers", body).json["server"]?["id"]?.stringValue)
            let waited = try await runWithoutTarget(cloud, id, host: "host-1", fences: hasVolume) { _ in true }
            #expect(waited == hasVolume)
            #expect(try await cloud.server(id)["status"] == "ERROR")
            let status = try await cloud.database.read {
                try $0.query("SELECT status FROM volumes WHERE id = \(Fixtures.volume)")[0].string("status")
            }
            #expect(status == "available")
        }
    }

    /// A host that may have started a shelved server keeps it.
    @Test("S11: a shelved server leaves a host that vanished by the operator's word, or when it is deleted", arguments: [true, false])
    func s11OffloadWaitsForTheFence(isDeleted: Bool) async throws {
        try await TestCloud.withTwoHosts(settings: ComputeSettings(shelvedOffloadTime: 3600)) { cloud in
            let id = try await cloud.createServer()
            try await act(cloud, id, ["shelve": nil])
            try await cloud.engine().drain()
            try await act(cloud, id, ["shelveOffload": nil])
            if isDeleted {
                cloud.time.whenWaiting { cloud.cloud.silence("host-1") }
                cloud.cloud.silence("host-1")
                await #expect(throws: ResourceError.self) { try await cloud.engine().drain(roundsMax: 100) }
                #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
                try await cloud.engine().drain()
                #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404)
            } else {
                #expect(try await runWithoutTarget(cloud, id, host: "host-1") { _ in true }, "the server was free to start elsewhere")
                #expect(try await cloud.server(id)["status"] == "SHELVED_OFFLOADED")
            }
            #expect(try await cloud.leftovers() == [])
        }
    }
}
