import ComputeCore
import ComputeService
import Contracts
import Database
import JSON
import Kernel
import ServiceKit
import Synchronization
import TestKit
import Testing
import WebAPI
import Workflow

/// Volumes of shelved servers, and blank volumes to boot from.
@Suite struct ShelvedVolumeTests {
    private struct Row: Equatable {
        let state: String
        let isConnected: Bool
        let host: String?
        let attachment: String
        let volume: String
    }

    private func row(_ cloud: TestCloud) async throws -> Row? {
        try await cloud.database.read { connection in
            try connection.query(
                """
                SELECT v.state, v.connection IS NOT NULL AS connected, a.host, a.status, o.status AS volume FROM server_volumes v
                JOIN volume_attachments a ON a.id = v.attachment_id JOIN volumes o ON o.id = v.volume_id
                WHERE v.volume_id = \(Fixtures.volume)
                """
            ).first.map {
                Row(
                    state: try $0.string("state"), isConnected: try $0.bool("connected"), host: try $0.optionalString("host"),
                    attachment: try $0.string("status"), volume: try $0.string("volume"))
            }
        }
    }

    private func shelved(_ cloud: TestCloud) async throws -> String {
        let id = try await cloud.createServer()
        try await act(cloud, id, "shelve")
        return id
    }

    private func act(_ cloud: TestCloud, _ id: String, _ action: String) async throws {
        #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", .object([action: .null])).status == 202)
        cloud.time.whenWaiting { try await cloud.cloud.work(cloud.consumer) }
        try await cloud.engine().drain()
    }

    private func attach(_ cloud: TestCloud, _ id: String, version: String = "2.96") async throws -> TestCloud.Answer {
        cloud.workWhileWaiting()
        let body: JSONValue = ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]]
        let answer = try await cloud.call("POST", "/v2.1/servers/\(id)/os-volume_attachments", body, version: version)
        try await cloud.engine().drain()
        return answer
    }

    private func detach(_ cloud: TestCloud, _ id: String) async throws {
        #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)/os-volume_attachments/\(Fixtures.volume)").status == 202)
        try await cloud.engine().drain()
    }

    private func disks(_ cloud: TestCloud) -> [String] {
        let spec = cloud.cloud.received.last { $0["server"] != nil }
        return (spec?["server"]?["volumes"]?.arrayValue ?? []).compactMap { $0["volume_id"]?.stringValue }
    }

    @Test func anOffloadedServerGetsItsVolumeWhenItIsUnshelved() async throws {
        try await TestCloud.with { cloud in
            let id = try await shelved(cloud)
            #expect(try await cloud.server(id)["status"] == "SHELVED_OFFLOADED")
            #expect(try await attach(cloud, id, version: "2.19").status == 409)
            let answer = try await attach(cloud, id)
            #expect(answer.status == 200 && answer.json["volumeAttachment"]?["device"] == "/dev/vdb", "\(answer.json)")
            #expect(try await row(cloud) == Row(state: "attached", isConnected: false, host: nil, attachment: "attached", volume: "in-use"))
            #expect(try await attach(cloud, id).status == 400)
            try await act(cloud, id, "unshelve")
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(
                try await row(cloud) == Row(state: "attached", isConnected: true, host: "host-1", attachment: "attached", volume: "in-use"))
            #expect(disks(cloud) == [Fixtures.volume])
            try await act(cloud, id, "shelve")
            try await detach(cloud, id)
            #expect(try await row(cloud) == nil)
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)/os-volume_attachments").json["volumeAttachments"] == [])
            try await act(cloud, id, "unshelve")
            #expect(disks(cloud) == [])
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func aShelvedServerOnItsHostGetsItsVolumeAtOnce() async throws {
        try await TestCloud.with(settings: ComputeSettings(shelvedOffloadTime: 3600)) { cloud in
            let id = try await shelved(cloud)
            #expect(try await cloud.server(id)["status"] == "SHELVED")
            #expect(try await attach(cloud, id).status == 200)
            #expect(
                try await row(cloud) == Row(state: "attached", isConnected: true, host: "host-1", attachment: "attached", volume: "in-use"))
            #expect(disks(cloud) == [Fixtures.volume])
            #expect(cloud.cloud.domains(on: "host-1")[id]?.power == "shutoff")
            try await detach(cloud, id)
            #expect(try await row(cloud) == nil)
            #expect(disks(cloud) == [])
        }
    }

    /// The server gets a host after Block Storage was asked without one.
    @Test func aVolumeIsConnectedWhenItsServerGetsAHostMeanwhile() async throws {
        try await TestCloud.with { cloud in
            let id = try await shelved(cloud)
            cloud.cloud.whenAttaching {
                _ = try await cloud.database.write { try $0.execute("UPDATE servers SET host = 'host-1' WHERE id = \(id)") }
            }
            #expect(try await attach(cloud, id).status == 200)
            let found = try await row(cloud)
            #expect(found?.isConnected == true && found?.host == "host-1")
        }
    }

    @Test(arguments: ["volume.attach", "volume.detach"]) func underEveryDisturbance(kind: String) async throws {
        try await TestCloud.with { cloud in
            let id = try await shelved(cloud)
            let definition = try #require(cloud.module.workflows.first { $0.kind == kind })
            for variant in WorkflowChecks(definition).variants {
                let name = Comment(rawValue: variant.name)
                if kind == "volume.detach" { #expect(try await attach(cloud, id).status == 200, name) }
                cloud.workWhileWaiting([variant.definition])
                let path = "/v2.1/servers/\(id)/os-volume_attachments"
                if kind == "volume.attach" {
                    try await cloud.call("POST", path, ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]])
                } else {
                    try await cloud.call("DELETE", "\(path)/\(Fixtures.volume)")
                }
                try await cloud.engine([variant.definition]).drain()
                let isThere = kind == "volume.attach" && variant.succeeds
                #expect(try await row(cloud)?.state == (isThere ? "attached" : nil), name)
                let left = try await cloud.database.read {
                    try $0.query("SELECT count(*) AS count FROM volume_attachments")[0].int("count")
                }
                #expect(left == (isThere ? 1 : 0), name)
                if isThere { try await detach(cloud, id) }
            }
            #expect(try await cloud.leftovers() == [])
        }
    }

    // MARK: blank volumes

    @Test func aServerBootsFromABlankVolume() async throws {
        try await TestCloud.with { cloud in
            _ = try await cloud.database.write {
                try $0.execute(
                    "UPDATE images SET properties = '{\"hw_machine_type\": \"q35\"}' WHERE id = \(Fixtures.image)")
            }
            let device: JSONValue = [
                "boot_index": "0", "source_type": "blank", "destination_type": "volume", "volume_size": 2, "delete_on_termination": true,
            ]
            for image in ["", Fixtures.image] {
                let id = try await cloud.createServer(["imageRef": .string(image), "block_device_mapping_v2": [device]])
                let server = try await cloud.server(id)
                #expect(server["status"] == "ACTIVE" && server["image"] == "", "\(server)")
                let found = try await cloud.database.read {
                    try $0.query(
                        """
                        SELECT v.size, s.device, s.boot_index FROM volumes v JOIN server_volumes s ON s.volume_id = v.id
                        WHERE s.server_id = \(id)
                        """
                    ).map { (try $0.int("size"), try $0.string("device"), try $0.optionalInt("boot_index")) }
                }
                #expect(found.count == 1 && found[0] == (2, "/dev/vda", 0))
                // The image gives the server its properties only.
                let spec = try #require(cloud.cloud.received.last { $0["server"] != nil }?["server"])
                #expect((spec["image"] ?? .null) == .null)
                #expect(spec.description.contains("q35") == (image != ""))
            }
            let local = try await cloud.call(
                "POST", "/v2.1/servers",
                TestCloud.body([
                    "imageRef": "", "block_device_mapping_v2": [["boot_index": 0, "source_type": "blank", "destination_type": "local"]],
                ]))
            #expect(local.status == 400 && local.message.contains("a blank local disk cannot be booted from"))
        }
    }
}
