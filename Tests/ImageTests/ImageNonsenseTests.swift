import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every route with malformed input of every kind.
@Suite struct ImageNonsenseTests {
    private func sweep(_ cloud: ImageFixture) -> NonsenseSweep {
        NonsenseSweep(cloud.api, headers: ["x-auth-token": "admin"])
    }

    @Test func nonsenseIsTheClientsError() async throws {
        try await ImageFixture.with { cloud in
            try await sweep(cloud).run(
                parameters: try await Self.parameters(cloud),
                query: [
                    "limit", "marker", "sort", "sort_key", "sort_dir", "name", "id", "status", "size_min",
                    "created_at", "tag", "owner", "visibility", "member_status", "os_hidden", "anything",
                ],
                bodies: Self.bodies)
        }
    }

    private static let bodies: [String: JSONValue] = [
        "POST /v2/metadefs/namespaces": [
            "namespace": "n2", "display_name": "d", "description": "x", "visibility": "public", "protected": false, "owner": "p1",
            "objects": [["name": "o", "description": "d", "required": ["a"], "properties": ["a": ["title": "A", "type": "string"]]]],
            "properties": ["p": ["title": "P", "type": "string", "default": "x", "enum": ["x"]]], "tags": [["name": "g"]],
            "resource_type_associations": [["name": "T", "prefix": "x:", "properties_target": "image"]],
        ],
        "POST /v2/metadefs/namespaces/{namespace}/properties": [
            "name": "p", "title": "P", "type": "array", "items": ["type": "string", "enum": ["a"]], "minItems": 1, "operators": ["<or>"],
        ],
        "POST /v2/images": [
            "name": "n", "disk_format": "raw", "container_format": "bare", "min_disk": 1, "min_ram": 1, "visibility": "private",
            "protected": false, "os_hidden": false, "tags": ["t"], "owner": "p1", "property": "p",
        ],
    ]

    private static func parameters(_ cloud: ImageFixture) async throws -> [String: String] {
        let id = try await cloud.create()
        _ = try await cloud.upload(id, [1, 2, 3])
        _ = try await cloud.call("POST", "/v2/images/\(id)/members", json: ["member": "p2"])
        _ = try await cloud.call(
            "POST", "/v2/metadefs/namespaces", token: "admin",
            json: [
                "namespace": "n1", "objects": [["name": "o1"]], "properties": ["p1": ["title": "P", "type": "string"]],
                "tags": [["name": "g1"]], "resource_type_associations": [["name": "OS::Glance::Image"]],
            ])
        return [
            "image_id": id, "member_id": "p2", "tag": "t", "namespace": "n1", "object": "o1", "property": "p1",
            "resource_type": "OS::Glance::Image",
        ]
    }

    @Test func nonsenseAsAPatch() async throws {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create()
            for name in ["name", "tags", "visibility", "min_disk", "protected", "owner", "anything", "a~1b", "", "~", "\u{0}"] {
                for verb in ["add", "replace", "remove", "move", ""] {
                    for value in NonsenseSweep.values {
                        try await sweep(cloud).check(
                            .patch, "/v2/images/\(id)", [["op": .string(verb), "path": .string("/" + name), "value": value]])
                    }
                }
            }
        }
    }
}
