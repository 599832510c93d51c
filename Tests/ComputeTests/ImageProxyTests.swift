import ComputeCore
@testable import ComputeService
import Database
import JSON
import Kernel
import Testing

/// `/images`, the old form of Image's API.
@Suite struct ImageProxyTests {
    private let image = "5b1e2f60-1c1f-4f0a-9a51-6a1e8a0c7f11"

    private func with(_ body: @Sendable (TestCloud) async throws -> Void) async throws {
        let image = image
        try await TestCloud.with { cloud in
            let server = Fixtures.port
            let properties: JSONObject = ["image_type": "snapshot", "instance_uuid": .string(server), "os": "linux"]
            let now = cloud.cloud.ambient.now
            _ = try await cloud.database.write {
                try $0.execute(
                    """
                    INSERT INTO images (id, project_id, name, status, visibility, min_disk, min_ram, size, properties, upload_id,
                        created_at, updated_at)
                    VALUES (\(image)::uuid, 'p1', 'snap', 'saving', 'private', 3, 64, 512, \(properties)::jsonb, \(image)::uuid, \(now), \(now))
                    """)
            }
            try await body(cloud)
        }
    }

    @Test func imagesInTheOldForm() async throws {
        try await with { cloud in
            let shown = try await cloud.call("GET", "/v2.1/images/\(image)", version: "2.1")
            #expect(shown.status == 200)
            let one = try #require(shown.json["image"])
            #expect(one["status"] == "SAVING" && one["progress"] == 50 && one["minDisk"] == 3 && one["minRam"] == 64)
            #expect(one["OS-EXT-IMG-SIZE:size"] == 512 && one["server"]?["id"] == .string(Fixtures.port))
            #expect(one["metadata"]?["os"] == "linux" && one["created"] == "2026-01-01T00:00:00Z")
            let links = one["links"]?.arrayValue ?? []
            #expect(links.map { $0["rel"] } == ["self", "bookmark", "alternate"])
            #expect(links.last?["href"] == .string("http://image.test/v2/images/\(image)"))
            let names = try await cloud.call("GET", "/v2.1/images?limit=1", version: "2.35").json
            #expect(names["images"]?.arrayValue?.count == 1 && names["images"]?.arrayValue?.first?["status"] == nil)
            #expect(names["images_links"]?.arrayValue?.first?["href"]?.stringValue?.contains("marker=") == true)
            let details = try await cloud.call("GET", "/v2.1/images/detail", version: "2.35").json
            #expect(details["images"]?.arrayValue?.contains(one) == true)
            #expect(details["images_links"] == nil)
            for path in ["", "/detail", "/\(image)"] {
                #expect(try await cloud.call("GET", "/v2.1/images\(path)", version: "2.36").status == 404)
            }
            #expect(try await cloud.call("GET", "/v2.1/images/\(image)", as: "other", version: "2.1").status == 404)
            #expect(try await cloud.call("GET", "/v2.1/images/x", version: "2.1").status == 404)
        }
    }

    @Test func filtersAreImagesFilters() async throws {
        try await with { cloud in
            let server = "http://compute.test/v2.1/servers/\(Fixtures.port)"
            let query = "name=a&status=ACTIVE&minRam=1&minDisk=2&type=snapshot&server=\(server)&property-os=linux&limit=0&x=y"
            #expect(try await cloud.call("GET", "/v2.1/images?\(query)", version: "2.1").status == 200)
            #expect(
                cloud.cloud.imageQueries.last == [
                    "name=a", "status=active", "min_ram=1", "min_disk=2", "image_type=snapshot", "instance_uuid=\(Fixtures.port)",
                    "os=linux",
                ])
            for bad in ["status=x", "minRam=-1", "limit=x", "marker=x", "changes-since=x", "server=x", "property-owner=p2", "property-=1"] {
                let answer = try await cloud.call("GET", "/v2.1/images?\(bad)", version: "2.1")
                #expect(answer.status == 400, "\(bad)")
            }
        }
    }

    @Test("S8: the old form of images gives nobody rights that the token does not have") func s8ImageProxies() async throws {
        try await with { cloud in
            let path = "/v2.1/images/\(image)"
            #expect(try await cloud.call("DELETE", path, as: "reader", version: "2.1").status == 403)
            let set = try await cloud.call("PUT", path + "/metadata/os", ["meta": ["os": "bsd"]], as: "reader", version: "2.1")
            #expect(set.status == 403)
            #expect(try await cloud.call("DELETE", path, as: "other", version: "2.1").status == 404)
            let subjects = cloud.cloud.subjects
            #expect(!subjects.isEmpty && subjects.allSatisfy { $0.grounds == .accepted })
            #expect(try await cloud.call("DELETE", path, version: "2.1").status == 204)
            #expect(try await cloud.call("GET", path, version: "2.1").status == 404)
        }
    }

    @Test func metadataBecomesAPatch() async throws {
        try await with { cloud in
            let path = "/v2.1/images/\(image)/metadata"
            let item = try await cloud.call("GET", path + "/os", version: "2.38")
            #expect(item.json == ["meta": ["os": "linux"]])
            #expect(try await cloud.call("GET", path, version: "2.39").status == 404)
            let set = try await cloud.call("POST", path, ["metadata": ["os": "bsd", "a/b": "c"]], version: "2.38")
            #expect(set.status == 200 && set.json["metadata"]?["os"] == "bsd")
            #expect(
                cloud.cloud.imagePatches == [
                    ["op": "replace", "path": "/os", "value": "bsd"], ["op": "add", "path": "/a~1b", "value": "c"],
                ])
            #expect(try await cloud.call("DELETE", path + "/os", version: "2.1").status == 204)
            #expect(cloud.cloud.imagePatches.last == ["op": "remove", "path": "/os"])
            #expect(try await cloud.call("DELETE", path + "/none", version: "2.1").status == 404)
        }
    }
}
