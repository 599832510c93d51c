import ImageCore
import JSON
import Kernel
import TestKit
import Testing

/// Every member of a request has a visible effect or is refused by name.
@Suite struct ImageRequestMemberTests {
    private static let id: JSONValue = "22222222-2222-4222-8222-000000000001"

    private static let kinds = [
        RequestMembers(
            "/v2/images", nil,
            seen: [
                .init("name", "n"), .init("visibility", "community"), .init("visibility", "public"), .init("os_hidden", true),
                .init("container_format", "bare"), .init("disk_format", "qcow2"), .init("min_ram", 64), .init("min_disk", 2),
                .init("tags", ["t"]), .init("id", id), .init("owner", "p3"), .init("hw_disk_bus", "scsi"), .init("colour", "red"),
                .init("protected", true),
            ],
            refused: [
                "status", "checksum", "size", "virtual_size", "os_hash_algo", "os_hash_value", "created_at", "updated_at", "file",
                "direct_url", "self", "schema", "locations",
            ].map { .init($0, "x") } + [
                .init("disk_format", "nonsense"), .init("container_format", "nonsense"), .init("visibility", "nobody"),
                .init("min_ram", -1), .init("id", "x"), .init("tags", "t"),
            ]),
        RequestMembers(
            "/v2/metadefs/namespaces", nil, idMember: "namespace", base: ["namespace": "n#"],
            seen: [
                .init("display_name", "n"), .init("description", "d"), .init("visibility", "public"), .init("owner", "p3"),
                .init("protected", true),
            ],
            refused: ["created_at", "updated_at", "self", "schema"].map { .init($0, "x") } + [.init("colour", "red")],
            elsewhere: [
                "objects": "MetadataDefinitionTests", "properties": "MetadataDefinitionTests", "tags": "MetadataDefinitionTests",
                "resource_type_associations": "MetadataDefinitionTests",
            ]),
    ]

    @Test func membersAreSeenOrRefused() async throws {
        try await ImageFixture.with { cloud in
            for kind in ImageRequestMemberTests.kinds {
                let findings = try await kind.findings(cloud.api, cloud.database) { method, path, body in
                    let answer =
                        if let body { try await cloud.call(method, path, token: "admin", json: body) } else {
                            try await cloud.call(method, path, token: "admin")
                        }
                    // Refusals of the Image service are HTML.
                    let text = String(decoding: answer.bytes, as: UTF8.self)
                    return (answer.status, answer.status < 300 ? answer.json : .string(text))
                }
                #expect(findings == [])
            }
        }
    }
}
