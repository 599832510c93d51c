import ImageCore
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// `POST /v2/tasks`, the older form of imports.
@Suite struct ImageTaskTests {
    private static func body(_ uri: String, _ properties: JSONValue = ["name": "t", "disk_format": "raw"]) -> JSONValue {
        ["type": "import", "input": ["import_from": .string(uri), "import_from_format": "raw", "image_properties": properties]]
    }

    @Test func aTaskImportsANewImage() async throws {
        let bytes = Array(repeating: UInt8(5), count: 3000)
        let server = try StubServer { $0.path == "/x" ? .bytes(200, bytes) : .empty(404) }
        defer { server.stop() }
        try await ImageFixture.with(limits: DownloadSample.limits(server.url)) { cloud in
            let creation = try await cloud.call("POST", "/v2/tasks", token: "admin", json: ImageTaskTests.body(server.url + "/x"))
            #expect(creation.status == 201 && creation["type"] == "import" && creation["status"] == "pending", "\(creation.json)")
            let path = "/v2/tasks/\(creation["id"]?.stringValue ?? "")"
            #expect(creation.headers["location"]?.hasSuffix(path) == true)
            try await cloud.settle()
            let task = try await cloud.call("GET", path, token: "admin")
            #expect(task["status"] == "success" && task["input"]?["import_from_format"] == "raw", "\(task.json)")
            let image = try await cloud.call("GET", "/v2/images/\(task["result"]?["image_id"]?.stringValue ?? "")", token: "admin")
            #expect(image["name"] == "t" && image["status"] == "active" && image["container_format"] == "bare")
            let failing = try await cloud.call("POST", "/v2/tasks", token: "admin", json: ImageTaskTests.body(server.url + "/none"))
            try await cloud.settle()
            let failed = try await cloud.call("GET", "/v2/tasks/\(failing["id"]?.stringValue ?? "")", token: "admin")
            #expect(failed["status"] == "failure" && failed["message"]?.stringValue?.contains("answered 404") == true)
        }
    }

    @Test("S11 S13: tasks are for administrators, and their URLs follow the rules of downloads") func s13TasksThatAreRefused() async throws
    {
        try await ImageFixture.with { cloud in
            let good = "http://example.com/x"
            #expect(try await cloud.call("POST", "/v2/tasks", json: ImageTaskTests.body(good)).status == 403)
            for (body, word) in [
                (ImageTaskTests.body("http://127.0.0.1/x"), "not public"), (ImageTaskTests.body("file:///etc/passwd"), "filtering"),
                (["type": "export", "input": [:]], "'type'"), (["type": "import", "input": [:]], "import_from"),
                (["type": "import"], "input"), (["input": [:]], "type"),
                (ImageTaskTests.body(good, ["disk_format": "qcow2"]), "import_from_format"),
                (ImageTaskTests.body(good, ["disk_format": "x"]), "disk_format"),
            ] as [(JSONValue, String)] {
                let answer = try await cloud.call(
                    "POST", "/v2/tasks", token: "admin", headers: [("Accept", "application/json")], json: body)
                #expect(answer.status == 400, "\(body)")
                #expect(String(decoding: answer.bytes, as: UTF8.self).contains(word), "\(answer.json)")
            }
            let readOnly = try await cloud.call("POST", "/v2/tasks", token: "admin", json: ImageTaskTests.body(good, ["checksum": "x"]))
            #expect(readOnly.status == 403)
            #expect(try await cloud.call("GET", "/v2/tasks", token: "admin")["tasks"] == [])
            #expect(try await cloud.call("GET", "/v2/images?visibility=all", token: "admin")["images"] == [])
        }
    }
}
