import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every route of the Compute API, as callers who must not get through.
@Suite struct AuthorizationSweepTests {
    /// A server of the project p1 with a port and a volume.
    private static func with(_ body: (RouteSweep) async throws -> Void) async throws {
        try await TestCloud.with { cloud in
            let server = try await cloud.createServer(["metadata": ["k": "v"], "tags": ["t1"]])
            let group = try await cloud.call(
                "POST", "/v2.1/os-server-groups", ["server_group": ["name": "g", "policy": "affinity"]])
            let groupID = try #require(group.json["server_group"]?["id"]?.stringValue, "\(group.json)")
            let actions = try await cloud.call("GET", "/v2.1/servers/\(server)/os-instance-actions")
            let request = actions.json["instanceActions"]?.arrayValue?.first?["request_id"]?.stringValue ?? ""
            let hypervisors = try await cloud.call("GET", "/v2.1/os-hypervisors", as: "admin")
            let hypervisor = hypervisors.json["hypervisors"]?.arrayValue?.first?["id"]?.stringValue ?? ""
            try await body(
                RouteSweep(
                    cloud.api, database: cloud.database,
                    parameters: [
                        "server_id": server, "flavor_id": "1", "key": "k", "tag": "t1", "group_id": groupID,
                        "project_id": "p1", "request_id": request, "hypervisor_id": hypervisor,
                    ]))
        }
    }

    @Test func ownersReachTheirOwn() async throws {
        try await AuthorizationSweepTests.with { sweep in
            let findings = try await sweep.owner("member")
            #expect(findings == [])
        }
    }

    @Test func nothingWithoutAToken() async throws {
        try await AuthorizationSweepTests.with { sweep in
            let findings = try await sweep.anonymous()
            #expect(findings == [])
        }
    }

    @Test func nothingForOtherProjects() async throws {
        try await AuthorizationSweepTests.with { sweep in
            let findings = try await sweep.foreigner("other")
            #expect(findings == [])
        }
    }

    @Test func readersDoNotWrite() async throws {
        try await AuthorizationSweepTests.with { sweep in
            let findings = try await sweep.reader("reader")
            #expect(findings == [])
        }
    }
}
