import Database
import JSON
import Kernel
import Synchronization
import TestKit
import Testing
import Workflow

/// Hosts that stop reporting while a server is moving to them, so that it is unknown whether the guest runs there.
@Suite struct FencedMoveTests {
    private static let live: JSONValue = ["os-migrateLive": ["host": nil, "block_migration": "auto"]]
    /// Longer than a host may be silent before it counts as down.
    private static let long = Duration.seconds(200)

    private func task(_ cloud: TestCloud, _ id: String) async throws -> String? {
        try await cloud.database.read { try $0.query("SELECT task_state FROM servers WHERE id = \(id)")[0].optionalString("task_state") }
    }

    /// Runs the workflow. From `moment` on host-2 is silent; if the workflow has not ended after a long time, the host is fenced off.
    ///
    /// - Returns: whether the move was still in progress after that time.
    private func runWithoutTarget(
        _ cloud: TestCloud, _ id: String, fences: Bool = true, from moment: @escaping @Sendable (TestCloud) -> Bool
    ) async throws -> Bool {
        let silentSince = Mutex<Timestamp?>(nil)
        let waited = Mutex(false)
        cloud.time.whenWaiting {
            let now = cloud.time.now()
            if moment(cloud), silentSince.withLock({ $0 }) == nil {
                cloud.cloud.silence("host-2")
                silentSince.withLock { $0 = now }
            }
            if let since = silentSince.withLock({ $0 }), now - since > FencedMoveTests.long, try await task(cloud, id) != nil {
                waited.withLock { $0 = true }
                if fences { try await cloud.declare("host-2", isDown: true) }
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
}
