import JSON
import TestKit
import Testing

/// Members that mean the same, or contradict the resource: none of two values is dropped.
@Suite struct ContradictingMemberTests {
    private func refused(
        _ cloud: VolumeFixture, _ method: String, _ path: String, token: String = "member", _ body: JSONValue, naming name: String
    ) async throws {
        let answer = try await cloud.call(method, path, token: token, version: "3.70", body)
        #expect(
            answer.status == 400 && answer.json.description.contains(name), "\(method) \(path) \(body): \(answer.status) \(answer.json)")
    }

    @Test func namesOfOneThingDoNotDiffer() async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await cloud.create()
            let names: [(JSONValue, String)] = [
                (["name": "a", "display_name": "b"], "display_name"),
                (["description": "a", "display_description": "b"], "display_description"),
            ]
            for (members, name) in names {
                var new = members.objectValue ?? [:]
                new["size"] = 1
                try await refused(cloud, "POST", "/v3/volumes", ["volume": .object(new)], naming: name)
                try await refused(cloud, "PUT", "/v3/volumes/\(volume)", ["volume": members], naming: name)
                var copy = members.objectValue ?? [:]
                copy["volume_id"] = .string(volume)
                try await refused(cloud, "POST", "/v3/snapshots", ["snapshot": .object(copy)], naming: name)
            }
            let same = try await cloud.call("PUT", "/v3/volumes/\(volume)", ["volume": ["name": "a", "display_name": "a"]])
            #expect(same.status == 200, "\(same.json)")
            let both: JSONValue = ["name": "t", "is_public": true, "os-volume-type-access:is_public": false]
            try await refused(cloud, "POST", "/v3/types", token: "admin", ["volume_type": both], naming: "is_public")
            let type = try await cloud.call("POST", "/v3/types", token: "admin", ["volume_type": ["name": "t"]])
            let id = type["volume_type"]?["id"]?.stringValue ?? ""
            try await refused(cloud, "PUT", "/v3/types/\(id)", token: "admin", ["volume_type": both], naming: "is_public")
            try await refused(
                cloud, "PUT", "/v3/os-services/disable", token: "admin",
                ["host": "h", "binary": "cinder-volume", "service": "cinder-scheduler"], naming: "service")
            try await refused(
                cloud, "PUT", "/v3/os-services/enable", token: "admin",
                ["host": "h", "binary": "cinder-volume", "disabled_reason": "broken"], naming: "disabled_reason")
        }
    }

    @Test func aReadOnlyVolumeIsNotAttachedForWriting() async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await cloud.create()
            let flag = try await cloud.call(
                "POST", "/v3/volumes/\(volume)/action", ["os-update_readonly_flag": ["readonly": true]])
            #expect(flag.status == 202, "\(flag.json)")
            for members: JSONObject in [
                ["mode": "rw"], ["mode": "rw", "connector": ["host": "h1"]], ["connector": ["host": "h1", "mode": "rw"]],
                ["mode": "ro", "connector": ["host": "h1", "mode": "rw"]], ["connector": ["host": "h1", "mode": "x"]],
            ] {
                var body = members
                body["volume_uuid"] = .string(volume)
                try await refused(cloud, "POST", "/v3/attachments", ["attachment": .object(body)], naming: "mode")
            }
            let reading = try await cloud.call(
                "POST", "/v3/attachments", version: "3.70",
                ["attachment": ["volume_uuid": .string(volume), "mode": "ro", "connector": ["host": "h1"]]])
            #expect(reading.status == 200, "\(reading.json)")
            let id = reading["attachment"]?["id"]?.stringValue ?? ""
            try await refused(
                cloud, "PUT", "/v3/attachments/\(id)", ["attachment": ["mode": "rw", "connector": ["host": "h1"]]], naming: "mode")
        }
    }

    @Test func parametersThatAreNoBooleansAreRefused() async throws {
        try await VolumeFixture.with { cloud in
            for path in [
                "/v3/os-quota-sets/p1?usage=x", "/v3/volumes?with_count=x", "/v3/scheduler-stats/get_pools?detail=x",
            ] {
                let answer = try await cloud.call("GET", path, token: "admin", version: "3.70")
                #expect(answer.status == 400 && answer.json.description.contains("boolean"), "\(path): \(answer.status)")
            }
        }
    }
}
