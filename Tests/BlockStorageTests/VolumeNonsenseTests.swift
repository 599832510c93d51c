import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every route with malformed input of every kind.
@Suite struct VolumeNonsenseTests {
    private func sweep(_ cloud: VolumeFixture) -> NonsenseSweep {
        NonsenseSweep(cloud.api, headers: ["x-auth-token": "admin", "openstack-api-version": "volume 3.70"])
    }

    @Test func nonsenseIsTheClientsError() async throws {
        try await VolumeFixture.with { cloud in
            let parameters = try await Self.parameters(cloud)
            cloud.workWhileWaiting()
            try await sweep(cloud).run(
                parameters: parameters,
                query: [
                    "limit", "marker", "sort", "sort_key", "sort_dir", "name", "status", "metadata", "bootable",
                    "all_tenants", "name~", "with_count", "volume_id", "is_public", "usage", "extra_specs", "resource", "updated_at",
                    "consumes_quota", "group_id", "project_id", "created_at",
                ],
                bodies: Self.bodies, excluding: "/v3/{project_id}")
        }
    }

    private static let bodies: [String: JSONValue] = [
        "POST /v3/volumes": [
            "volume": [
                "size": 1, "name": "n", "description": "d", "metadata": ["k": "v"], "imageRef": nil, "volume_type": nil,
                "availability_zone": "nova", "snapshot_id": nil, "source_volid": nil, "multiattach": false,
            ]
        ],
        "POST /v3/types": [
            "volume_type": ["name": "t", "description": "d", "extra_specs": ["a": "b"], "os-volume-type-access:is_public": true]
        ],
        "PUT /v3/volumes/{volume_id}": ["volume": ["name": "n", "description": "d", "metadata": ["k": "v"]]],
        "PUT /v3/os-quota-sets/{target_id}": ["quota_set": ["volumes": 1000]],
    ]

    private static func parameters(_ cloud: VolumeFixture) async throws -> [String: String] {
        let volume = try await cloud.create()
        let other = try await cloud.create()
        let snapshot = try await cloud.call("POST", "/v3/snapshots", ["snapshot": ["volume_id": .string(volume)]])
        let attachment = try await cloud.call("POST", "/v3/attachments", ["attachment": ["volume_uuid": .string(other)]])
        try await cloud.settle()
        return [
            "volume_id": volume, "snapshot_id": snapshot["snapshot"]?["id"]?.stringValue ?? "",
            "attachment_id": attachment["attachment"]?["id"]?.stringValue ?? "", "type_id": "default", "target_id": "p1",
            "class": "default", "change": "enable", "host": "wolke@file",
        ]
    }
}
