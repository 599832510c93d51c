import JSON
import Testing

@testable import WebAPI

/// Behaviour that glanceclient and Horizon rely on.
@Suite struct ImageClientTests {
    private static let missing = "/v2/images/9d5c3f0e-0000-4000-8000-000000000000"

    /// glanceclient sends `*/*` and reads HTML; JSON of this form crashes it.
    @Test(
        arguments: [
            ("*/*", "text/html; charset=UTF-8"), ("application/json", "application/json"), (nil, "text/plain; charset=UTF-8"),
            ("", "text/html; charset=UTF-8"), (" ", "text/html; charset=UTF-8"),
            ("text/html", "text/html; charset=UTF-8"), ("application/json, */*;q=0.1", "application/json"),
            ("application/json;q=0.2, text/*", "text/html; charset=UTF-8"), ("application/octet-stream", "text/plain; charset=UTF-8"),
            ("*/*, text/html;q=0", "application/json"), ("application/*", "application/json"),
        ] as [(String?, String)])
    func anErrorHasTheFormThatIsAccepted(_ accept: String?, _ type: String) async throws {
        try await ImageFixture.with { cloud in
            let headers = accept.map { [("Accept", $0)] } ?? []
            for (method, path, status) in [
                ("GET", ImageClientTests.missing, 404), ("GET", "/v2/images?limit=x", 400), ("POST", "/v2/schemas/image", 405),
                ("GET", "/v2/nowhere", 404),
            ] {
                let answer = try await cloud.call(method, path, headers: headers)
                #expect(answer.status == status && answer.headers["content-type"] == type, "\(method) \(path): \(answer.headers)")
            }
            // keystonemiddleware answers everyone in JSON.
            #expect(try await cloud.call("GET", "/v2/images", token: nil, headers: headers)["error"]?["code"] == 401)
        }
    }

    @Test("S12: client input is escaped in HTML error pages") func s12APageOfAnErrorIsEscaped() async throws {
        try await ImageFixture.with { cloud in
            let answer = try await cloud.call("GET", "/v2/images?limit=%3Cscript%3E%26", headers: [("Accept", "*/*")])
            let text = String(decoding: answer.bytes, as: UTF8.self)
            #expect(
                text.contains("<h1>400 Bad Request</h1>") && text.contains("&lt;script&gt;&amp;") && !text.contains("<script>"), "\(text)")
        }
    }

    @Test func emptyListsAndTheirSchemas() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            #expect(try await cloud.call("GET", "/v2/tasks").json == ["tasks": [], "schema": "/v2/schemas/tasks", "first": "/v2/tasks"])
            #expect(try await cloud.call("GET", "/v2/tasks/1").status == 404)
            for (query, status) in [
                ("limit=x", 400), ("sort_dir=up", 400), ("sort_key=secret", 400), ("surprise=1", 400), ("marker=x", 404),
            ] {
                #expect(try await cloud.call("GET", "/v2/metadefs/namespaces?\(query)").status == status, "\(query)")
                #expect(try await cloud.call("GET", "/v2/tasks?\(query)").status == status, "\(query)")
            }
            #expect(try await cloud.call("GET", "/v2/tasks", token: nil).status == 401)
        }
    }

    /// References, which clients follow, point to existing definitions.
    @Test func schemaReferencesExist() async throws {
        try await ImageFixture.with { cloud in
            let kinds = [
                "namespace", "namespaces", "object", "objects", "property", "properties", "resource_type", "resource_types", "tag", "tags",
            ]
            for path in kinds.map({ "metadefs/\($0)" }) + ["task", "tasks"] {
                let answer = try await cloud.call("GET", "/v2/schemas/\(path)")
                #expect(
                    answer.status == 200 && answer["name"]?.stringValue != nil && answer["properties"]?.objectValue?.isEmpty == false,
                    "\(path)")
                let defined = Set(answer["definitions"]?.objectValue?.names ?? [])
                for reference in ImageClientTests.references(answer.json) {
                    #expect(defined.contains(String(reference.dropFirst("#/definitions/".count))), "\(path): \(reference)")
                }
            }
            let namespace = try await cloud.call("GET", "/v2/schemas/metadefs/namespace")
            #expect(namespace["required"] == ["namespace"] && namespace["properties"]?["display_name"]?["maxLength"] == 80)
        }
    }

    private static func references(_ value: JSONValue) -> [String] {
        switch value {
        case .object(let object):
            object.members.flatMap { $0.name == "$ref" ? [$0.value.stringValue ?? ""] : references($0.value) }
        case .array(let list): list.flatMap(references)
        default: []
        }
    }
}
