import Database
import JSON
import Kernel
import Testing
import TestKit
import Workflow

/// Volumes that are attached to several servers.
@Suite struct ComputeMultiattachTests {
    private static let body: JSONValue = ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]]
    private static let old = "Multiattach volumes are only supported starting with compute API version 2.60."

    private func share(_ cloud: TestCloud) async throws {
        _ = try await cloud.database.write { try $0.execute("UPDATE volumes SET multiattach = true") }
    }

    private func status(_ cloud: TestCloud) async throws -> String {
        try await cloud.database.read { try $0.query("SELECT status FROM volumes WHERE id = \(Fixtures.volume)")[0].string("status") }
    }

    private func attach(_ cloud: TestCloud, _ server: String, version: String = "2.96") async throws -> TestCloud.Answer {
        cloud.workWhileWaiting()
        let answer = try await cloud.call(
            "POST", "/v2.1/servers/\(server)/os-volume_attachments", ComputeMultiattachTests.body, version: version)
        try await cloud.engine().drain()
        return answer
    }

    @Test func twoServersHaveAVolumeUntilTheLastIsGone() async throws {
        try await TestCloud.with { cloud in
            try await share(cloud)
            let first = try await cloud.createServer()
            let second = try await cloud.createServer()
            let refused = try await attach(cloud, first, version: "2.59")
            #expect(refused.status == 400 && refused.message == ComputeMultiattachTests.old, "\(refused.json)")
            for server in [first, second] {
                let answer = try await attach(cloud, server, version: "2.60")
                #expect(answer.status == 200, "\(answer.json)")
            }
            try await cloud.call("DELETE", "/v2.1/servers/\(first)")
            try await cloud.engine().drain()
            #expect(try await status(cloud) == "in-use")
            let left = try await cloud.call("GET", "/v2.1/servers/\(second)/os-volume_attachments").json["volumeAttachments"]
            #expect(left?.arrayValue?.count == 1)
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(second)/os-volume_attachments/\(Fixtures.volume)").status == 202)
            try await cloud.engine().drain()
            #expect(try await status(cloud) == "available")
        }
    }

    @Test func newServersGetASharedVolume() async throws {
        try await TestCloud.with { cloud in
            try await share(cloud)
            _ = try await cloud.database.write { try $0.execute("UPDATE volumes SET status = 'in-use'") }
            let devices: JSONValue = [
                ["uuid": .string(Fixtures.image), "source_type": "image", "destination_type": "local", "boot_index": 0],
                ["uuid": .string(Fixtures.volume), "source_type": "volume", "destination_type": "volume", "boot_index": -1],
            ]
            let body = TestCloud.body(["block_device_mapping_v2": devices])
            let refused = try await cloud.call("POST", "/v2.1/servers", body, version: "2.59")
            #expect(refused.status == 400 && refused.message == ComputeMultiattachTests.old, "\(refused.json)")
            #expect(try await cloud.call("POST", "/v2.1/servers", body, version: "2.60").status == 202)
        }
    }

    @Test func anOffloadedServerGetsNone() async throws {
        try await TestCloud.with { cloud in
            try await share(cloud)
            let id = try await cloud.createServer()
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["shelve": nil]).status == 202)
            cloud.time.whenWaiting { try await cloud.cloud.work(cloud.consumer) }
            try await cloud.engine().drain()
            let answer = try await attach(cloud, id)
            #expect(answer.status == 400, "\(answer.json)")
            #expect(answer.message == "Attaching multiattach volumes is not supported for shelved-offloaded instances.")
        }
    }
}
