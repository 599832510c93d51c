import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every member of a request has a visible effect or is refused by name.
@Suite struct BlockStorageRequestMemberTests {
    private static func kinds(volume: String, snapshot: String, image: String, attachable: String) -> [RequestMembers] {
        let absent = JSONValue.string("22222222-2222-4222-8222-000000000000")
        return [
            RequestMembers(
                "/v3/volumes", "volume", base: ["size": 1],
                seen: [
                    .init("size", 2), .init("name", "n"), .init("description", "d"), .init("display_name", "n", shownAs: "name"),
                    .init("display_description", "d", shownAs: "description"), .init("availability_zone", "nova"),
                    .init("metadata", ["k": "v"]), .init("volume_type", "members"), .init("snapshot_id", .string(snapshot)),
                    .init("source_volid", .string(volume)), .init("imageRef", .string(image), shownAs: "bootable", showing: "true"),
                    .init("image_id", .string(image), shownAs: "bootable", showing: "true"), .init("multiattach", false),
                    .init("project_id", "p1", shownAs: "os-vol-tenant-attr:tenant_id", isRecorded: false), .init("user_id", "u1"),
                    .init("status", "creating", showing: "available", isRecorded: false),
                    .init("attach_status", "detached", shownAs: "attachments", showing: []),
                ],
                refused: [
                    .init("availability_zone", "elsewhere"), .init("volume_type", "absent"), .init("multiattach", true),
                    .init("consistencygroup_id", absent), .init("group_id", absent), .init("backup_id", absent),
                    .init("source_replica", absent), .init("status", "available"), .init("attach_status", "attached"),
                    .init("project_id", "p2"), .init("user_id", "u2"), .init("encrypted", true), .init("migration_status", "x"),
                ], refusals: ["Availability zone", "olume type"]),
            RequestMembers(
                "/v3/snapshots", "snapshot", base: ["volume_id": .string(volume)],
                seen: [
                    .init("name", "n"), .init("description", "d"), .init("display_name", "n", shownAs: "name"),
                    .init("display_description", "d", shownAs: "description"), .init("metadata", ["k": "v"]),
                ],
                refused: [.init("status", "available"), .init("group_snapshot_id", absent), .init("force", false)],
                elsewhere: ["force": "VolumeRulesTests"]),
            RequestMembers(
                "/v3/types", "volume_type", base: ["name": "t#"],
                seen: [
                    .init("description", "d"), .init("is_public", false),
                    .init("os-volume-type-access:is_public", false, shownAs: "is_public"),
                    .init("extra_specs", ["multiattach": "<is> True"]),
                ], refused: [.init("qos_specs_id", absent)]),
            RequestMembers(
                "/v3/attachments", "attachment", base: ["volume_uuid": .string(attachable)],
                seen: [
                    .init("instance_uuid", .null, shownAs: "instance"),
                    .init("connector", ["host": "h1"], shownAs: "status", showing: "attaching"),
                    .init("mode", "ro", shownAs: "attach_mode", with: ["connector": ["host": "h1"]]),
                ], refused: [.init("mode", "x"), .init("mountpoint", "/dev/vdb")]),
        ]
    }

    /// The members with which a resource is changed.
    private static func changes(attachable: String) -> [RequestMembers] {
        let texts: [RequestMembers.Member] = [
            .init("name", "n"), .init("description", "d"), .init("display_name", "n", shownAs: "name"),
            .init("display_description", "d", shownAs: "description"),
        ]
        return [
            RequestMembers(
                "/v3/volumes", "volume", change: .put, base: ["size": 1], seen: texts + [.init("metadata", ["k": "v"])],
                refused: [.init("size", 2), .init("status", "error"), .init("volume_type", "x")]),
            RequestMembers(
                "/v3/snapshots", "snapshot", change: .put, base: ["volume_id": .string(attachable)], seen: texts,
                refused: [.init("metadata", ["k": "v"]), .init("status", "error")]),
            RequestMembers(
                "/v3/types", "volume_type", change: .put, base: ["name": "c#"],
                seen: [
                    .init("name", "d#"), .init("description", "d"), .init("is_public", false),
                    .init("os-volume-type-access:is_public", false, shownAs: "is_public"),
                ], refused: [.init("extra_specs", ["k": "v"])]),
            RequestMembers(
                "/v3/attachments", "attachment", change: .put, base: ["volume_uuid": .string(attachable)],
                seen: [
                    .init("connector", ["host": "h1"], shownAs: "status", showing: "attaching"),
                    .init("mode", "ro", shownAs: "attach_mode", with: ["connector": ["host": "h1"]]),
                ],
                refused: [
                    .init("mode", "x", with: ["connector": ["host": "h1"]]),
                    .init("instance_uuid", "x", with: ["connector": ["host": "h1"]]),
                ]),
        ]
    }

    @Test func membersAreSeenOrRefused() async throws {
        try await VolumeFixture.with { cloud in
            let quota = try await cloud.call(
                "PUT", "/v3/os-quota-sets/p1", token: "admin", ["quota_set": ["volumes": -1, "snapshots": -1]])
            #expect(quota.status == 200)
            #expect(try await cloud.call("POST", "/v3/types", token: "admin", ["volume_type": ["name": "members"]]).status == 200)
            let volume = try await cloud.create()
            let taken = try await cloud.call("POST", "/v3/p1/snapshots", ["snapshot": ["volume_id": .string(volume)]])
            let snapshot = taken["snapshot"]?["id"]?.stringValue ?? ""
            let attachable = try await cloud.create()
            try await cloud.settle()
            let image = try await cloud.addImage([UInt8](repeating: 7, count: 4096))
            let kinds = BlockStorageRequestMemberTests.kinds(volume: volume, snapshot: snapshot, image: image, attachable: attachable)
            for kind in kinds + BlockStorageRequestMemberTests.changes(attachable: attachable) {
                let findings = try await kind.findings(cloud.api, cloud.database) { method, path, body in
                    let token = path.contains("/types") || method == "GET" ? "admin" : "member"
                    let answer = try await cloud.call(method, path, token: token, version: "3.70", body)
                    if method == "POST" { try await cloud.settle() }
                    return (answer.status, answer.json)
                }
                #expect(findings == [])
            }
        }
    }

    /// Actions without parameters take nothing, and `os-complete` the attachment's own id, as openstacksdk sends it.
    @Test func membersOfActionsAreRefused() async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await cloud.create()
            for action in ["os-reserve", "os-unreserve", "os-begin_detaching", "os-roll_detaching", "os-show_image_metadata"] {
                let answer = try await cloud.call(
                    "POST", "/v3/volumes/\(volume)/action", .object(JSONObject([(action, ["x": 1] as JSONValue)])))
                #expect(answer.status == 400 && answer.json.description.contains("'x' was unexpected"), "\(action): \(answer.json)")
            }
            #expect(try await cloud.call("POST", "/v3/volumes/\(volume)/action", ["os-reserve": ""]).status == 202)
            #expect(try await cloud.call("POST", "/v3/volumes/\(volume)/action", ["os-unreserve": [:]]).status == 202)
            let connected = try await cloud.call(
                "POST", "/v3/attachments", version: "3.70",
                ["attachment": ["volume_uuid": .string(volume), "connector": ["host": "h1"]]])
            let id = try #require(connected["attachment"]?["id"]?.stringValue, "\(connected.json)")
            let path = "/v3/attachments/\(id)/action"
            let other = try await cloud.call("POST", path, version: "3.70", ["os-complete": .string(volume)])
            #expect(other.status == 400 && other.json.description.contains("os-complete"), "\(other.json)")
            #expect(try await cloud.call("POST", path, version: "3.70", ["os-complete": .string(id)]).status == 204)
        }
    }

    /// A body may repeat the project or class of the path, and name no other.
    @Test func quotasOfAnotherSubjectAreRefused() async throws {
        try await VolumeFixture.with { cloud in
            func put(_ path: String, _ set: String, _ member: String, _ value: JSONValue) async throws -> VolumeFixture.Answer {
                let members = JSONObject([("volumes", JSONValue.integer(7)), (member, value)])
                return try await cloud.call("PUT", path, token: "admin", .object(JSONObject([(set, .object(members))])))
            }
            for member in ["tenant_id", "project_id", "id"] {
                #expect(try await put("/v3/os-quota-sets/p1", "quota_set", member, "p1").status == 200)
                let other = try await put("/v3/os-quota-sets/p1", "quota_set", member, "p2")
                #expect(other.status == 400 && other.json.description.contains("quota_set.\(member)"), "\(other.json)")
            }
            for member in ["class_name", "id"] {
                #expect(try await put("/v3/os-quota-class-sets/default", "quota_class_set", member, "default").status == 200)
                #expect(try await put("/v3/os-quota-class-sets/default", "quota_class_set", member, "other").status == 400)
            }
            for member in ["force", "class_name"] {
                let other = try await put("/v3/os-quota-sets/p1", "quota_set", member, true)
                #expect(other.status == 400 && other.json.description.contains(member), "\(other.json)")
            }
        }
    }
}
