import Database
import JSON
import Kernel
import TestKit
import Testing

/// Guest hardware in requests that select it.
@Suite struct HardwareRouteTests {
    private func setProperties(_ cloud: TestCloud, _ properties: JSONObject) async throws {
        try await cloud.database.write { connection in
            try connection.execute("UPDATE images SET properties = \(properties)::jsonb WHERE id = \(Fixtures.image)::uuid")
        }
    }

    private func announce(_ cloud: TestCloud, _ traits: [String]) async throws {
        try await cloud.database.write { connection in
            try connection.execute(
                "UPDATE hypervisors SET capabilities = jsonb_set(capabilities, '{traits}', \(JSONValue(traits))::jsonb)")
        }
    }

    private func rebuild(_ cloud: TestCloud, _ id: String) async throws -> TestCloud.Answer {
        let answer = try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["rebuild": ["imageRef": .string(Fixtures.image)]])
        try await cloud.cloud.deliver(to: cloud.consumer)
        return answer
    }

    @Test func rebuildsRequireTheHostsCapabilities() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            try await setProperties(cloud, ["hw_disk_bus": "sata"])
            #expect(try await rebuild(cloud, id).status == 400)
            try await announce(cloud, ["COMPUTE_NODE", "COMPUTE_STORAGE_BUS_SATA"])
            #expect(try await rebuild(cloud, id).status == 202)
            #expect(cloud.cloud.received.last?["server"]?["image_properties"] == ["hw_disk_bus": "sata"])
            // The root disk and four volumes are more than IDE holds.
            try await announce(cloud, ["COMPUTE_NODE", "COMPUTE_STORAGE_BUS_IDE"])
            try await setProperties(cloud, ["hw_disk_bus": "ide"])
            try await cloud.database.write { connection in
                for letter in ["b", "c", "d", "e"] {
                    try connection.execute(
                        """
                        INSERT INTO server_volumes (id, server_id, volume_id, device, created_at)
                        VALUES (gen_random_uuid(), \(id)::uuid, gen_random_uuid(), \("/dev/vd" + letter), now())
                        """)
                }
            }
            let many = try await rebuild(cloud, id)
            #expect(many.status == 400 && many.message.contains("holds at most"), "\(many.json)")
        }
    }

    @Test(
        "S7: a move does not lose what is on the host",
        arguments: [
            (["hw_tpm_version": "2.0", "hw_firmware_type": "uefi"], ["shelve", "migrate"]),
            (["hw_firmware_type": "uefi"], ["migrate"]),
            (["hw_cpu_policy": "dedicated"], ["os-migrateLive"]),
        ] as [([String: String], [String])]) func s7StateOfTheHostStays(properties: [String: String], refused: [String]) async throws
    {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            try await cloud.database.write { connection in
                let set = JSONObject(properties.map { ($0.key, .string($0.value)) })
                try connection.execute("UPDATE servers SET image_properties = \(set)::jsonb WHERE id = \(id)::uuid")
            }
            func act(_ name: String) async throws -> TestCloud.Answer {
                let body: JSONValue = name == "os-migrateLive" ? ["host": nil, "block_migration": "auto"] : .null
                return try await cloud.call("POST", "/v2.1/servers/\(id)/action", .object([name: body]), as: "admin")
            }
            for name in refused {
                let answer = try await act(name)
                #expect(answer.status == 400 && answer.message.contains("cannot leave its host"), "\(name): \(answer.json)")
            }
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
        }
    }

    @Test func volumesComeToOldBusesOnlyWhileTheServerIsOff() async throws {
        try await TestCloud.with { cloud in
            try await setProperties(cloud, ["hw_disk_bus": "ide"])
            let id = try await cloud.createServer()
            let path = "/v2.1/servers/\(id)/os-volume_attachments"
            let body: JSONValue = ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]]
            let refused = try await cloud.call("POST", path, body)
            #expect(refused.status == 409 && refused.message.contains("hw_disk_bus"), "\(refused.json)")
            #expect(try await cloud.call("GET", path).json["volumeAttachments"] == [])
            _ = try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["os-stop": nil])
            try await cloud.cloud.deliver(to: cloud.consumer)
            cloud.workWhileWaiting()
            let attached = try await cloud.call("POST", path, body)
            #expect(attached.status == 200, "\(attached.json)")
        }
    }

    @Test("S26: contradictions are refused before anything is written") func s26ContradictionsAreRefusedFirst() async throws {
        try await TestCloud.with { cloud in
            try await setProperties(cloud, ["hw_disk_bus": "ide", "hw_machine_type": "q35"])
            let refused = try await cloud.call("POST", "/v2.1/servers", TestCloud.body())
            #expect(refused.status == 400 && refused.message.contains("hw_disk_bus") && refused.message.contains("hw_machine_type"))
            #expect(try await cloud.call("GET", "/v2.1/servers").json["servers"] == [])
            try await setProperties(cloud, ["hw_tpm_version": "2.0"])
            let id = try await cloud.createServer()
            let specs: JSONValue = ["extra_specs": ["hw:tpm_version": "1.2"]]
            #expect(try await cloud.call("POST", "/v2.1/flavors/2/os-extra_specs", specs, as: "admin").status == 200)
            let resize = try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["resize": ["flavorRef": "2"]])
            #expect(resize.status == 400 && resize.message.contains("hw:tpm_version") && resize.message.contains("hw_tpm_version"))
        }
    }
}
