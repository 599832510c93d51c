import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@testable import ImageService

/// Reads lists page by page: with null or equal values too, each item is returned once, and the pages end.
@Suite struct ImageListTests {
    @Test func everyListHasPagesDespiteNulls() async throws {
        try await ImageFixture.with { cloud in
            for body in [["name": "b", "disk_format": "raw", "container_format": "bare"], ["name": "a"], [:], ["name": "a"]] as [JSONValue]
            {
                #expect(!(try await cloud.create(body)).isEmpty)
            }
            let keys = ResourceKind.images.table.fields.filter(\.sortable).map(\.name)
            let sweep = ListSweep(cloud.api, token: "member")
            try await sweep.walk("/v2/images", collection: "images", sortKeys: keys)
            let (findings, walked) = try await RouteSweep(cloud.api).unpaged(["member", "admin"])
            #expect(findings == [])
            #expect(walked >= 1)
        }
    }

    @Test func propertiesHaveAnyName() async throws {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create(["name": "a", "properties": "x", "fields": "y"])
            _ = try await cloud.create(["name": "b"])
            let images = try await cloud.call("GET", "/v2/images?fields=y")["images"]?.arrayValue
            #expect(images?.map { $0["id"] } == [.string(id)])
            #expect(images?.first?["properties"] == "x")
        }
    }

    private static let withoutSchema = [
        "GET /": "a document of versions", "GET /versions": "a document of versions", "GET /v2": "a document of versions",
        "GET /v2/schemas/*": "a JSON schema", "GET /v2/images/{image_id}/file": "bytes, not JSON",
    ]

    @Test func answersFitTheirSchemas() async throws {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create(["name": "a", "disk_format": "raw", "container_format": "bare", "os_distro": "x"])
            _ = try await cloud.upload(id, Array(repeating: 1, count: 100))
            _ = try await cloud.call("POST", "/v2/images/\(id)/members", json: ["member": "p2"])
            let namespace: JSONValue = [
                "namespace": "n1", "visibility": "public", "display_name": "d", "objects": [["name": "o1", "required": ["a"]]],
                "properties": ["p1": ["title": "P", "type": "string"]], "tags": [["name": "g1"]],
                "resource_type_associations": [["name": "OS::Glance::Image", "prefix": "x_"]],
            ]
            _ = try await cloud.call("POST", "/v2/metadefs/namespaces", token: "admin", json: namespace)
            let sweep = RouteSweep(
                cloud.api,
                parameters: [
                    "image_id": id, "member_id": "p2", "namespace": "n1", "object": "o1", "property": "p1", "tag": "g1",
                    "resource_type": "OS::Glance::Image",
                ])
            let (findings, compared) = try await sweep.answersDifferingFromSchemas(["member"])
            #expect(findings == [])
            #expect(sweep.undeclaredAnswers(ImageListTests.withoutSchema) == [])
            // Nine lists of images, their members, tasks and stores, ten of metadata definitions.
            #expect(compared == 19)
            #expect(try await sweep.comparisonsWithoutIndex(cloud.database).findings == [])
        }
    }

    @Test func declaredPropertiesAreChecked() async throws {
        try await ImageFixture.with { cloud in
            let kernel = SystemRandom().uuid().description
            let id = try await cloud.create(["name": "a", "kernel_id": .string(kernel), "ramdisk_id": .null, "description": "d"])
            let image = try await cloud.call("GET", "/v2/images/\(id)")
            #expect(image["kernel_id"]?.stringValue == kernel)
            #expect(image["description"] == "d")
            #expect(image["ramdisk_id"] == nil)
            #expect(try await cloud.call("GET", "/v2/images?kernel_id=\(kernel)")["images"]?.arrayValue?.count == 1)
            for bad in [["kernel_id": "k"], ["ramdisk_id": 1], ["os_distro": .null], ["architecture": ["x"]]] as [JSONValue] {
                #expect(try await cloud.call("POST", "/v2/images", json: bad).status == 400, "\(bad)")
            }
            let schema = try await cloud.call("GET", "/v2/schemas/image")["properties"]
            #expect(schema?["kernel_id"]?["is_base"] == false)
            #expect(schema?["architecture"]?["type"] == "string")
        }
    }

    @Test func emptyListsCheckTheirParameters() async throws {
        try await ImageFixture.with { cloud in
            let image = try await cloud.create()
            for path in ["/v2/metadefs/namespaces", "/v2/metadefs/resource_types", "/v2/tasks", "/v2/images/\(image)/tasks"] {
                for (query, status) in [
                    ("limit=1", 200), ("limit=x", 400), ("marker=x", 404), ("nonsense=1", 400), ("sort_key=nonsense", 400),
                ] {
                    #expect(try await cloud.call("GET", "\(path)?\(query)").status == status, "\(path)?\(query)")
                }
            }
        }
    }
}
