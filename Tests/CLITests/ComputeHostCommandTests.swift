import JSON
import TestKit
import Testing

/// `osctl compute-service` and `osctl aggregate`, against a stub service.
@Suite struct ComputeHostCommandTests {
    private static let service: JSONValue = [
        "services": [["id": "s1", "host": "h1", "binary": "nova-compute", "status": "enabled", "forced_down": false]]
    ]

    private func tool() throws -> CommandLineTool {
        try CommandLineTool { request in
            if request.path.hasSuffix("/os-services") { return .json(200, ComputeHostCommandTests.service) }
            if request.path.hasSuffix("/os-aggregates") { return .json(200, ["aggregates": [["id": 7, "name": "rack"]]]) }
            return .json(200, ["aggregate": ["id": 7, "name": "rack"], "service": [:]])
        }
    }

    @Test(arguments: [
        ("compute-service disable h1 --reason broken", "{\"status\":\"disabled\",\"disabled_reason\":\"broken\"}"),
        ("compute-service enable h1", "{\"status\":\"enabled\"}"),
        ("compute-service force-down h1", "{\"forced_down\":true}"),
        ("compute-service force-down h1 --unset", "{\"forced_down\":false}"),
    ]) func hostsAreChanged(line: String, body: String) async throws {
        let tool = try tool()
        let result = try await tool.run(line)
        #expect(result.status == 0, "\(result)")
        let request = try #require(tool.server.requests.last)
        #expect(request.method == "PUT" && request.path == "/compute/v2.1/os-services/s1")
        #expect(try request.json == JSONValue.parse(Array(body.utf8)))
    }

    @Test func anUnknownHostIsAnError() async throws {
        let result = try await tool().run("compute-service force-down h2")
        #expect(result.status == 1 && result.errors.contains("There is no host h2."), "\(result)")
    }

    @Test(arguments: [
        ("aggregate add-host rack h1", "/action", "{\"add_host\":{\"host\":\"h1\"}}"),
        ("aggregate remove-host rack h1", "/action", "{\"remove_host\":{\"host\":\"h1\"}}"),
        ("aggregate set rack --zone z2", "", "{\"aggregate\":{\"availability_zone\":\"z2\"}}"),
        (
            "aggregate set rack --property cpu_model=baseline --remove-property ssd", "/action",
            "{\"set_metadata\":{\"metadata\":{\"cpu_model\":\"baseline\",\"ssd\":null}}}"
        ),
        (
            "aggregate load-images rack 22222222-2222-4222-8222-222222222222", "/images",
            "{\"cache\":[{\"id\":\"22222222-2222-4222-8222-222222222222\"}]}"
        ),
    ]) func aggregatesAreChanged(line: String, path: String, body: String) async throws {
        let tool = try tool()
        let result = try await tool.run(line)
        #expect(result.status == 0, "\(result)")
        let request = try #require(tool.server.requests.last)
        #expect(request.path == "/compute/v2.1/os-aggregates/7" + path)
        #expect(try request.json == JSONValue.parse(Array(body.utf8)))
    }

    @Test func nothingToSetIsAnError() async throws {
        #expect(try await tool().run("aggregate set rack").status != 0)
    }
}
