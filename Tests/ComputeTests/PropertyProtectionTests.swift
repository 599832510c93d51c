import Database
import ImageAccess
import JSON
import Kernel
import Testing
import Workflow

/// Properties of images that only some roles may set, also through Compute.
@Suite struct ComputePropertyProtectionTests {
    private static let file = """
        [^x_billing_]
        create = admin
        read = admin
        update = admin
        delete = admin

        [.*]
        create = @
        read = @
        update = @
        delete = @
        """
    private static let image = "5b1e2f60-1c1f-4f0a-9a51-6a1e8a0c7f12"

    private func with(_ body: @Sendable (TestCloud) async throws -> Void) async throws {
        try await TestCloud.with(protections: try PropertyProtections(ComputePropertyProtectionTests.file)) { cloud in
            let properties: JSONObject = ["x_billing_code": "7", "os": "linux"]
            let (id, now) = (ComputePropertyProtectionTests.image, cloud.cloud.ambient.now)
            _ = try await cloud.database.write {
                try $0.execute(
                    """
                    INSERT INTO images (id, project_id, name, status, visibility, min_disk, min_ram, size, properties, upload_id,
                        created_at, updated_at)
                    VALUES (\(id)::uuid, 'p1', 'i', 'saving', 'private', 0, 0, 1, \(properties)::jsonb, \(id)::uuid, \(now), \(now))
                    """)
            }
            try await body(cloud)
        }
    }

    @Test("S11: the metadata of an image of a server is what its user may give it") func s11ImagesOfServers() async throws {
        try await with { cloud in
            let id = try await cloud.createServer()
            cloud.workWhileWaiting()
            for (action, more) in [("createImage", [:]), ("createBackup", ["backup_type": "daily", "rotation": 1])]
                as [(String, JSONObject)]
            {
                var body: JSONObject = ["name": "copy", "metadata": ["x_billing_code": "0"]]
                for (name, value) in more.members { body[name] = value }
                let refused = try await cloud.call("POST", "/v2.1/servers/\(id)/action", .object([action: .object(body)]))
                #expect(refused.status == 403 && refused.message.contains("x_billing_code"), "\(refused.json)")
            }
            let body: JSONValue = ["createImage": ["name": "copy", "metadata": ["other": "1"]]]
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", body).status == 202)
        }
    }

    @Test("S11: Compute's old form of images shows and changes what the user may see and change") func s11Proxy() async throws {
        try await with { cloud in
            let path = "/v2.1/images/\(ComputePropertyProtectionTests.image)"
            for (token, isShown) in [("member", false), ("admin", true)] {
                let metadata = try await cloud.call("GET", path, as: token, version: "2.1").json["image"]?["metadata"]
                #expect(metadata?["os"] == "linux" && (metadata?["x_billing_code"] != nil) == isShown, "\(token)")
                let item = try await cloud.call("GET", path + "/metadata/x_billing_code", as: token, version: "2.1")
                #expect(item.status == (isShown ? 200 : 404))
                let list = try await cloud.call("GET", "/v2.1/images?property-x_billing_code=7", as: token, version: "2.1")
                #expect(list.status == (isShown ? 200 : 403), "\(list.json)")
            }
            let change: JSONValue = ["meta": ["x_billing_code": "0"]]
            #expect(try await cloud.call("PUT", path + "/metadata/x_billing_code", change, version: "2.1").status == 403)
            let all: JSONValue = ["metadata": ["os": "bsd"]]
            #expect(try await cloud.call("PUT", path + "/metadata", all, version: "2.1").status == 200)
            // Properties that the user does not see are kept.
            #expect(cloud.cloud.imagePatches == [["op": "replace", "path": "/os", "value": "bsd"]])
        }
    }
}
