import ArgumentParser
import Client
import JSON
import Kernel
import ServiceCatalog
import TestKit
import Testing

@testable import osctl

/// The example's noun against a stub of its API.
@Suite struct ExampleCommandTests {
    @Test func theNounCreatesAndLists() async throws {
        let report: JSONValue = ["id": "r1", "name": "monthly", "status": "building", "sections": 3]
        let server = try StubServer { request in
            switch request.line {
            case "POST /v3/auth/tokens":
                .json(
                    201, ["token": ["expires_at": "2999-01-01T00:00:00Z", "user": ["id": "u"], "project": ["id": "p1"], "catalog": []]],
                    headers: [("x-subject-token", "t")])
            case "POST /v1/reports": .json(202, ["report": report])
            default: .json(200, ["reports": [report]])
            }
        }
        defer { server.stop() }
        let client = RESTClient(
            .serviceUser(
                endpoints: [.identity: server.url, .example: server.url], user: "demo", password: Secret("secret"), domain: "default",
                project: "demo"))
        let api = CloudAPI(client: client, source: "test")
        try await Create<ReportCommand>.parse(["monthly", "--sections", "3"]).execute(api)
        #expect(server.requests.last?.json == ["report": ["name": "monthly", "sections": 3]])
        try await List<ReportCommand>.parse(["--limit", "5"]).execute(api)
        #expect(server.lines.last == "GET /v1/reports?limit=5")
    }
}
