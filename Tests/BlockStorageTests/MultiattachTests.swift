import BlockStorageCore
import BlockStorageService
import Database
import JSON
import TestKit
import Testing

/// Volumes that can be attached to several servers.
@Suite struct BlockStorageMultiattachTests {
    private static let servers = (0..<3).map { "0a0a0a0a-0000-4000-8000-00000000000\($0)" }

    private func addType(_ cloud: VolumeFixture, _ name: String = "shared", spec: String = "<is> True") async throws {
        let creation = try await cloud.call(
            "POST", "/v3/types", token: "admin",
            ["volume_type": ["name": .string(name), "extra_specs": ["multiattach": .string(spec)]]])
        #expect(creation.status == 200, "\(creation.json)")
    }

    private func attach(_ cloud: VolumeFixture, _ volume: String, to server: Int, mode: String? = nil) async throws -> VolumeFixture.Answer
    {
        let body: JSONValue = [
            "attachment": [
                "volume_uuid": .string(volume), "instance_uuid": .string(BlockStorageMultiattachTests.servers[server]),
                "connector": ["host": .string("h\(server)")], "mode": JSONValue(mode),
            ]
        ]
        return try await cloud.call("POST", "/v3/p1/attachments", token: "service", version: "latest", body)
    }

    private func complete(_ cloud: VolumeFixture, _ answer: VolumeFixture.Answer) async throws -> String {
        let id = try #require(answer["attachment"]?["id"]?.stringValue, "\(answer.json)")
        let path = "/v3/p1/attachments/\(id)/action"
        #expect(try await cloud.call("POST", path, token: "service", version: "latest", ["os-complete": [:]]).status == 204)
        return id
    }

    @Test func severalServersHaveAVolume() async throws {
        try await VolumeFixture.with { cloud in
            try await addType(cloud)
            let id = try await cloud.create(["size": 1, "volume_type": "shared"])
            #expect(try await cloud.volume(id)["multiattach"] == true)
            let first = try await attach(cloud, id, to: 0)
            #expect(first["attachment"]?["connection_info"]?["multiattach"] == true)
            // As in Cinder, it can be attached to one server at a time.
            let early = try await attach(cloud, id, to: 1)
            #expect(early.status == 400 && early.json.description.contains("available or in-use"), "\(early.json)")
            let one = try await complete(cloud, first)
            let second = try await attach(cloud, id, to: 1, mode: "ro")
            #expect(second["attachment"]?["connection_info"]?["read_only"] == true, "\(second.json)")
            #expect(try await cloud.status(id) == "in-use")
            let two = try await complete(cloud, second)
            let shown = try await cloud.volume(id)["attachments"]?.arrayValue
            #expect(Set(shown?.compactMap { $0["server_id"]?.stringValue } ?? []) == Set(BlockStorageMultiattachTests.servers[0..<2]))
            #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)").status == 400)
            #expect(try await cloud.call("DELETE", "/v3/p1/attachments/\(one)", token: "service").status == 200)
            #expect(try await cloud.status(id) == "in-use")
            #expect(try await cloud.call("DELETE", "/v3/p1/attachments/\(two)", token: "service").status == 200)
            #expect(try await cloud.status(id) == "available")
        }
    }

    @Test func otherVolumesAreOnOneServerAtATime() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            #expect(try await cloud.volume(id)["multiattach"] == false)
            let first = try await attach(cloud, id, to: 0)
            #expect(first["attachment"]?["connection_info"]?["multiattach"] == nil)
            _ = try await complete(cloud, first)
            #expect(try await attach(cloud, id, to: 1).status == 400)
            // Cinder has retired the member of the request.
            let asked = try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1, "multiattach": true]])
            #expect(asked.status == 400 && asked.json.description.contains("<is> True"), "\(asked.json)")
            #expect(try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1, "multiattach": false]]).status == 202)
        }
    }

    @Test func copiesOfSharedVolumesAreShared() async throws {
        var settings = BlockStorageSettings()
        settings.format = .qcow2
        try await VolumeFixture.with(settings: settings) { cloud in
            try await addType(cloud)
            let id = try await cloud.create(["size": 1, "volume_type": "shared"])
            let copy = try await cloud.create(["source_volid": .string(id)])
            #expect(try await cloud.volume(copy)["multiattach"] == true)
            let plain = try await cloud.create(["source_volid": .string(id), "volume_type": "__DEFAULT__"])
            #expect(try await cloud.volume(plain)["multiattach"] == false)
            // A qcow2 file cannot be shared.
            let formats = try await cloud.database.read { connection in
                try connection.query("SELECT id, format FROM volumes").reduce(into: [String: String]()) {
                    $0[try $1.string("id")] = try $1.string("format")
                }
            }
            #expect(formats == [id: "raw", copy: "raw", plain: "qcow2"])
            let path = "/v3/volumes/\(plain)/action"
            let refused = try await cloud.call("POST", path, ["os-retype": ["new_type": "shared"]])
            #expect(refused.status == 400 && refused.json.description.contains("qcow2"), "\(refused.json)")
        }
    }

    @Test func aTypeThatSharesIsGivenToFreeVolumesOnly() async throws {
        try await VolumeFixture.with { cloud in
            try await addType(cloud)
            let id = try await cloud.create()
            let path = "/v3/volumes/\(id)/action"
            let attachment = try await complete(cloud, try await attach(cloud, id, to: 0))
            let refused = try await cloud.call("POST", path, ["os-retype": ["new_type": "shared"]])
            #expect(refused.status == 400 && refused.json.description.contains("in-use"), "\(refused.json)")
            #expect(try await cloud.call("DELETE", "/v3/p1/attachments/\(attachment)", token: "service").status == 200)
            #expect(try await cloud.call("POST", path, ["os-retype": ["new_type": "shared"]]).status == 202)
            #expect(try await cloud.volume(id)["multiattach"] == true)
            _ = try await complete(cloud, try await attach(cloud, id, to: 0))
            #expect(try await cloud.call("POST", path, ["os-retype": ["new_type": "__DEFAULT__"]]).status == 400)
            // Volumes keep the properties of their type, so a type in use must not change.
            let specs: JSONValue = ["extra_specs": ["multiattach": "<is> False"]]
            let types = try await cloud.call("GET", "/v3/types", token: "admin")["volume_types"]?.arrayValue
            let type = try #require(types?.first { $0["name"] == "shared" }?["id"]?.stringValue)
            let used = try await cloud.call("POST", "/v3/types/\(type)/extra_specs", token: "admin", specs)
            #expect(used.status == 400 && used.json.description.contains("Volume Type is currently in use."), "\(used.json)")
            #expect(try await cloud.call("DELETE", "/v3/types/\(type)/extra_specs/multiattach", token: "admin").status == 400)
        }
    }

    @Test func policyRestrictsMultiattach() async throws {
        let rules = ["volume:multiattach": "rule:admin_required", "volume:multiattach_bootable_volume": "rule:admin_required"]
        try await VolumeFixture.with(policy: rules) { cloud in
            try await addType(cloud)
            let body: JSONValue = ["volume": ["size": 1, "volume_type": "shared"]]
            #expect(try await cloud.call("POST", "/v3/volumes", body).status == 403)
            let plain = try await cloud.create()
            let retype: JSONValue = ["os-retype": ["new_type": "shared"]]
            #expect(try await cloud.call("POST", "/v3/volumes/\(plain)/action", retype).status == 403)
            #expect(try await cloud.call("POST", "/v3/volumes/\(plain)/action", token: "admin", retype).status == 202)
            let bootable: JSONValue = ["os-set_bootable": ["bootable": true]]
            #expect(try await cloud.call("POST", "/v3/volumes/\(plain)/action", bootable).status == 200)
            _ = try await complete(cloud, try await attach(cloud, plain, to: 0))
            #expect(try await attach(cloud, plain, to: 1).status == 403)
        }
    }

    @Test func olderCallsKnowSharedVolumes() async throws {
        try await VolumeFixture.with { cloud in
            try await addType(cloud)
            let id = try await cloud.create(["size": 1, "volume_type": "shared"])
            let path = "/v3/volumes/\(id)/action"
            func act(_ name: String, _ body: JSONValue = [:]) async throws -> VolumeFixture.Answer {
                try await cloud.call("POST", path, token: "admin", .object([name: body]))
            }
            func attach(_ server: Int) -> JSONValue {
                ["instance_uuid": .string(BlockStorageMultiattachTests.servers[server]), "mountpoint": "/dev/vdb"]
            }
            #expect(try await act("os-attach", attach(0)).status == 202)
            #expect(try await act("os-reserve").status == 202)
            #expect(try await cloud.status(id) == "attaching")
            #expect(try await act("os-unreserve").status == 202)
            #expect(try await cloud.status(id) == "in-use")
            #expect(try await act("os-attach", attach(1)).status == 202)
            #expect(try await act("os-attach", attach(1)).status == 400)
            let which = try await act("os-detach")
            #expect(which.status == 400 && which.json.description.contains("no attachment_id"), "\(which.json)")
            let all = try await cloud.volume(id)["attachments"]?.arrayValue?.compactMap { $0["attachment_id"] } ?? []
            #expect(all.count == 2)
            #expect(try await act("os-detach", ["attachment_id": all[0]]).status == 202)
            #expect(try await cloud.status(id) == "in-use")
            #expect(try await act("os-detach").status == 202)
            #expect(try await cloud.status(id) == "available")
        }
    }

    @Test func anImageIsNotWrittenUnderOtherServers() async throws {
        try await VolumeFixture.with { cloud in
            try await addType(cloud)
            let image = try await cloud.addImage([UInt8](repeating: 7, count: 1 << 20))
            let id = try await cloud.create(["size": 1, "volume_type": "shared"])
            for server in 0..<2 { _ = try await complete(cloud, try await attach(cloud, id, to: server)) }
            let answer = try await cloud.call(
                "POST", "/v3/volumes/\(id)/action", token: "service", version: "3.68",
                ["os-reimage": ["image_id": .string(image), "reimage_reserved": true]])
            #expect(answer.status == 400 && answer.json.description.contains("2 attachments"), "\(answer.json)")
        }
    }
}
