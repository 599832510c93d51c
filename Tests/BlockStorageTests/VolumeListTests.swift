import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@testable import BlockStorageService

/// Reads lists page by page: with null or equal values too, each item is returned once, and the pages end.
@Suite struct VolumeListTests {
    @Test func snapshotsAndAttachmentsHaveCindersFilters() async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await cloud.create()
            #expect(try await cloud.call("POST", "/v3/p1/snapshots", ["snapshot": ["volume_id": .string(volume)]]).status == 202)
            try await cloud.settle()
            let reserved = try await cloud.call("POST", "/v3/p1/attachments", ["attachment": ["volume_uuid": .string(volume)]])
            #expect(reserved.status == 200)
            for (query, name, count) in [
                ("snapshots?availability_zone=nova", "snapshots", 1), ("snapshots?availability_zone=elsewhere", "snapshots", 0),
                ("attachments?attach_status=reserved", "attachments", 1), ("attachments?attach_status=attached", "attachments", 0),
            ] {
                // From 3.31 on a tenant's filters must be known.
                let answer = try await cloud.call("GET", "/v3/p1/\(query)", version: "3.70")
                #expect(answer[name]?.arrayValue?.count == count, "\(query): \(answer.json)")
            }
        }
    }

    @Test func everyListHasPagesDespiteNulls() async throws {
        try await VolumeFixture.with { cloud in
            for n in 0..<3 {
                let volume = try await cloud.create(n == 0 ? ["size": 1, "name": "a"] : ["size": 1])
                #expect(try await cloud.call("POST", "/v3/p1/snapshots", ["snapshot": ["volume_id": .string(volume)]]).status == 202)
                #expect(
                    try await cloud.call("POST", "/v3/types", token: "admin", ["volume_type": ["name": .string("t\(n)")]]).status == 200)
            }
            try await cloud.settle()
            let sweep = ListSweep(cloud.api, token: "member", headers: [("openstack-api-version", "volume 3.70")])
            for (path, name, table) in [
                ("volumes", "volumes", nil), ("snapshots", "snapshots", ResourceKind.snapshots.table),
                ("types", "volume_types", ResourceKind.volumeTypes.table),
            ] {
                let fields =
                    table?.fields.filter(\.sortable).map(\.name) ?? [
                        "id", "status", "size", "availability_zone", "created_at", "updated_at",
                        "bootable",
                    ]
                try await sweep.walk("/v3/p1/\(path)", collection: name, sortKeys: fields)
            }
            let (findings, walked) = try await RouteSweep(cloud.api, parameters: ["project_id": "p1"]).unpaged(["member", "admin"])
            #expect(findings == [])
            #expect(walked >= 4)
        }
    }
}
