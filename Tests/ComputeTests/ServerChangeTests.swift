@testable import ComputeService
import Contracts
import Database
import JSON
import Kernel
import TestKit
import Testing
import WebAPI
import Workflow

/// Rebuild and rescue, as the API and the host's agent see them.
@Suite struct ServerChangeTests {
    private func act(
        _ cloud: TestCloud, _ id: String, _ body: JSONValue, version: String = "2.92", as token: String = "member"
    ) async throws -> TestCloud.Answer { try await cloud.call("POST", "/v2.1/servers/\(id)/action", body, as: token, version: version) }

    private func lastOrder(_ cloud: TestCloud) -> JSONValue { cloud.cloud.received.last?["server"] ?? .null }

    private func image(_ cloud: TestCloud, _ properties: JSONObject = [:], minRAM: Int = 0, status: String = "active") async throws
        -> String
    {
        let id = cloud.compute.ambient.newUUID().description
        try await cloud.database.write { connection in
            try connection.execute(
                """
                INSERT INTO images SELECT (jsonb_populate_record(i, jsonb_build_object('id', \(id)::text, 'file_id', \(id)::text, 'min_ram', \(minRAM)::int,
                    'status', \(status)::text, 'properties', \(properties)::jsonb))).* FROM images i WHERE i.id = \(Fixtures.image)::uuid
                """)
        }
        return id
    }

    // MARK: rebuild

    @Test func aRebuiltServerHasANewDiskAndItsOldAddress() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(["metadata": ["a": "b"]])
            let before = try await cloud.server(id)
            let other = try await image(cloud)
            let answer = try await act(
                cloud, id, ["rebuild": ["imageRef": .string(other), "name": "new", "metadata": ["c": "d"], "adminPass": "secret"]])
            #expect(answer.status == 202)
            #expect(answer.headers["location"] == "http://compute.example/v2.1/servers/\(id)")
            let shown = answer.json["server"]
            #expect(shown?["adminPass"] == "secret")
            #expect(shown?["status"] == "REBUILD")
            #expect(shown?["image"]?["id"] == .string(other))
            #expect(shown?["name"] == "new")
            #expect(shown?["metadata"] == ["c": "d"])
            #expect(try await act(cloud, id, ["rebuild": ["imageRef": .string(other)]]).status == 409)
            try await cloud.cloud.deliver(to: cloud.consumer)
            let order = lastOrder(cloud)
            #expect(order["operation"]?["kind"] == "rebuild")
            #expect(order["image"]?["id"] == .string(other))
            #expect(order["power"] == "running")
            let after = try await cloud.server(id)
            #expect(after["status"] == "ACTIVE")
            #expect(after["OS-EXT-STS:task_state"] == .null)
            #expect(after["addresses"] == before["addresses"])
            let actions = try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions").json["instanceActions"]?.arrayValue
            #expect(actions?.first?["action"] == "rebuild")
        }
    }

    @Test func aStoppedServerStaysOff() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            _ = try await act(cloud, id, ["os-stop": nil])
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await act(cloud, id, ["rebuild": ["imageRef": .string(Fixtures.image), "preserve_ephemeral": true]]).status == 202)
            #expect(try await cloud.call("GET", "/v2.1/servers?status=REBUILD").json["servers"]?.arrayValue?.count == 1)
            #expect(try await cloud.call("GET", "/v2.1/servers?status=SHUTOFF").json["servers"]?.arrayValue?.isEmpty == true)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(lastOrder(cloud)["power"] == "shutoff")
            #expect(lastOrder(cloud)["operation"]?["preserve_ephemeral"] == true)
            #expect(try await cloud.server(id)["status"] == "SHUTOFF")
        }
    }

    @Test func membersOfARebuildComeWithTheirVersions() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            func rebuild(_ changes: JSONObject, _ version: String) async throws -> TestCloud.Answer {
                var body: JSONObject = ["imageRef": .string(Fixtures.image)]
                for (name, value) in changes.members { body[name] = value }
                let answer = try await act(cloud, id, ["rebuild": .object(body)], version: version)
                try await cloud.cloud.deliver(to: cloud.consumer)
                return answer
            }
            // Before 2.75 the answer to a change has addresses without their extensions, as Nova's.
            for (version, isBrief) in [("2.1", true), ("2.74", true), ("2.75", false)] {
                let shown = try await rebuild([:], version).json["server"]
                let address = shown?["addresses"]?.objectValue?.members.first?.value.arrayValue?.first
                #expect(address?["addr"] != nil && (address?["OS-EXT-IPS:type"] == nil) == isBrief, "\(version) \(address ?? .null)")
                #expect(shown?["OS-EXT-SRV-ATTR:user_data"] == nil)
            }
            #expect(try await rebuild(["key_name": nil], "2.53").status == 400)
            #expect(try await rebuild(["key_name": "no such key"], "2.54").status == 400)
            #expect(try await rebuild(["key_name": nil], "2.54").json["server"]?["key_name"] == .null)
            #expect(try await rebuild(["user_data": "aGk="], "2.56").status == 400)
            let files: JSONValue = [["path": "/etc/motd", "contents": "aGk="]]
            #expect(try await rebuild(["personality": files], "2.57").status == 400)
            #expect(try await rebuild(["personality": files], "2.56").status == 202)
            #expect(lastOrder(cloud)["personality"]?.arrayValue?.count == 1)
            #expect(try await rebuild(["user_data": "aGk="], "2.57").json["server"]?["user_data"] == "aGk=")
            #expect(lastOrder(cloud)["user_data"] == "aGk=")
            #expect(try await rebuild(["user_data": nil], "2.57").json["server"]?["user_data"] == .null)
            #expect(try await rebuild(["trusted_image_certificates": ["a"]], "2.63").status == 400)
            #expect(try await rebuild(["trusted_image_certificates": nil], "2.63").status == 202)
            #expect(try await rebuild(["hostname": "other"], "2.89").status == 400)
            #expect(try await rebuild(["hostname": "other"], "2.90").status == 202)
            #expect(lastOrder(cloud)["hostname"] == "other")
            #expect(try await rebuild(["description": "d"], "2.18").status == 400)
            #expect(try await rebuild(["description": "d"], "2.19").json["server"]?["description"] == "d")
            #expect(try await rebuild([:], "2.1").json["server"]?["OS-EXT-STS:vm_state"] == nil)
        }
    }

    @Test func aRebuildIsCheckedAsACreate() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            func refused(_ image: String) async throws -> String {
                let answer = try await act(cloud, id, ["rebuild": ["imageRef": .string(image)]])
                #expect(answer.status == 400)
                return answer.message
            }
            #expect(try await refused(cloud.compute.ambient.newUUID().description).contains("could not be found"))
            #expect(try await refused("no-image").contains("imageRef"))
            #expect(try await refused(image(cloud, minRAM: 1 << 20)).contains("memory is too small"))
            #expect(try await refused(image(cloud, status: "deactivated")).contains("is not active"))
            #expect(try await refused(image(cloud, ["trait:CUSTOM_NEW": "required"])).contains("traits"))
            #expect(try await refused(image(cloud, ["hw_disk_bus": "fdc"])).contains("hw_disk_bus"))
            // The host has not reported the trait.
            #expect(try await refused(image(cloud, ["hw_disk_bus": "scsi"])).contains("traits"))
            #expect(try await refused(image(cloud, ["hw_cpu_policy": "dedicated"])).contains("dedicated processors"))
            // No copies are kept.
            #expect(try await cloud.server(id)["image"]?["id"] == .string(Fixtures.image))
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
        }
    }

    @Test func aRebuildThatFailsIsExplainedAndCanBeRepeated() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.failOnHost("qemu-img: no", reason: "the image cannot be used")
            #expect(try await act(cloud, id, ["rebuild": ["imageRef": .string(Fixtures.image)]]).status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            let server = try await cloud.server(id)
            #expect(server["status"] == "ERROR")
            #expect(server["fault"]?["message"]?.stringValue?.contains("the image cannot be used") == true)
            cloud.cloud.failOnHost(nil)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(lastOrder(cloud)["power"] == "shutoff")
            #expect(try await act(cloud, id, ["rebuild": ["imageRef": .string(Fixtures.image)]]).status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(try await cloud.server(id)["fault"] == nil)
        }
    }

    @Test func aServerOnAVolumeKeepsTheVolumesContent() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer([
                "imageRef": "<absent>",
                "block_device_mapping_v2": [
                    [
                        "boot_index": 0, "source_type": "image", "destination_type": "volume", "uuid": .string(Fixtures.image),
                        "volume_size": 1,
                    ]
                ],
            ])
            try await cloud.database.write { try $0.execute("UPDATE volumes SET source_image_id = \(Fixtures.image)") }
            let rebuild: JSONValue = ["rebuild": ["imageRef": .string(Fixtures.image), "name": "again"]]
            let other = try await image(cloud)
            let answer = try await act(cloud, id, ["rebuild": ["imageRef": .string(other)]])
            #expect(answer.status == 400)
            #expect(answer.message == "Unable to rebuild with a different image for a volume-backed server.")
            #expect(try await act(cloud, id, rebuild).status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(try await cloud.server(id)["name"] == "again")
        }
    }

    // MARK: rescue

    @Test func aRescuedServerBootsAnotherSystem() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let answer = try await act(cloud, id, ["rescue": nil])
            #expect(answer.status == 200)
            #expect(answer.json["adminPass"]?.stringValue?.isEmpty == false)
            try await cloud.cloud.deliver(to: cloud.consumer)
            let order = lastOrder(cloud)
            #expect(order["operation"]?["kind"] == "rescue")
            #expect(order["rescue"]?["image"]?["id"] == .string(Fixtures.image))
            #expect(order["rescue"]?["stable"] == false)
            #expect(try await cloud.server(id)["status"] == "RESCUE")
            #expect(try await cloud.call("GET", "/v2.1/servers?status=RESCUE").json["servers"]?.arrayValue?.count == 1)
            for body in [["rescue": nil], ["os-stop": nil], ["reboot": ["type": "HARD"]], ["pause": nil], ["suspend": nil]] as [JSONValue] {
                #expect(try await act(cloud, id, body).status == 409)
            }
            #expect(try await act(cloud, id, ["unrescue": nil]).status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(lastOrder(cloud)["operation"]?["kind"] == "unrescue")
            #expect(lastOrder(cloud)["rescue"] == nil)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(try await act(cloud, id, ["unrescue": nil]).status == 409)
        }
    }

    @Test func aFailedRescueLeavesTheServerWithItsOwnSystem() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.failOnHost("no", reason: "the image cannot be used")
            #expect(try await act(cloud, id, ["rescue": nil]).status == 200)
            try await cloud.cloud.deliver(to: cloud.consumer)
            cloud.cloud.failOnHost(nil)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(lastOrder(cloud)["rescue"] == nil)
            let actions = try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions").json["instanceActions"]?.arrayValue
            #expect(actions?.first?["message"] == "Error")
        }
    }

    @Test func stableRescuesUseTheImagesDevices() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let usb = try await image(cloud, ["hw_rescue_device": "cdrom", "hw_rescue_bus": "usb"])
            #expect(try await act(cloud, id, ["rescue": ["rescue_image_ref": .string(usb), "adminPass": "pw"]]).json["adminPass"] == "pw")
            try await cloud.cloud.deliver(to: cloud.consumer)
            let rescue = lastOrder(cloud)["rescue"]
            #expect(rescue?["stable"] == true)
            #expect(rescue?["device"] == "cdrom")
            #expect(rescue?["bus"] == "usb")
            #expect(try await act(cloud, id, ["unrescue": nil]).status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            for properties in [
                ["hw_rescue_device": "floppy"], ["hw_rescue_bus": "xen"], ["hw_rescue_device": "cdrom", "hw_rescue_bus": "virtio"],
            ]
                as [JSONObject]
            {
                let other = try await image(cloud, properties)
                #expect(try await act(cloud, id, ["rescue": ["rescue_image_ref": .string(other)]]).status == 400)
            }
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
        }
    }

    @Test func aServerOnAVolumeIsRescuedWithAddedDisksOnly() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer([
                "imageRef": "<absent>",
                "block_device_mapping_v2": [
                    [
                        "boot_index": 0, "source_type": "image", "destination_type": "volume", "uuid": .string(Fixtures.image),
                        "volume_size": 1,
                    ]
                ],
            ])
            let stable = try await image(cloud, ["hw_rescue_bus": "virtio"])
            let rescue: JSONValue = ["rescue": ["rescue_image_ref": .string(stable)]]
            #expect(try await act(cloud, id, rescue, version: "2.86").status == 400)
            #expect(try await act(cloud, id, ["rescue": nil], version: "2.87").status == 400)
            #expect(try await act(cloud, id, ["rescue": ["rescue_image_ref": .string(Fixtures.image)]], version: "2.87").status == 400)
            #expect(try await act(cloud, id, rescue, version: "2.87").status == 200)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(lastOrder(cloud)["volumes"]?.arrayValue?.count == 1)
            #expect(try await cloud.server(id)["status"] == "RESCUE")
            // It can be deleted in this state.
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
            try await cloud.engine().drain()
            #expect(try await cloud.leftovers() == [])
        }
    }
}
