import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every route of the Image API, as callers who must not get through.
@Suite struct AuthorizationSweepTests {
    /// A private image of the project p1 with data, a tag and a member that is not the foreigner.
    private static func with(_ body: (RouteSweep) async throws -> Void) async throws {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create(["name": "i", "disk_format": "raw", "container_format": "bare", "visibility": "shared"])
            #expect(try await cloud.upload(id, Array(repeating: 1, count: 1024)).status == 204)
            #expect(try await cloud.call("PUT", "/v2/images/\(id)/tags/t1").status == 204)
            #expect(try await cloud.call("POST", "/v2/images/\(id)/members", json: ["member": "p3"]).status == 200)
            try await body(
                RouteSweep(
                    cloud.api, database: cloud.database,
                    parameters: ["image_id": id, "member_id": "p3", "tag": "t1", "schema": "image", "namespace": "n", "task_id": "t"],
                    headers: [("Content-Type", "application/openstack-images-v2.1-json-patch")]))
        }
    }

    private var duties: RouteSweep.Duties {
        // There are no tasks and no metadata definitions.
        RouteSweep.Duties(
            unreachable: Set(
                ["", "/objects", "/properties", "/tags", "/resource_types"].map { "GET /v2/metadefs/namespaces/{namespace}" + $0 }
                    + ["GET /v2/tasks/{task_id}"]))
    }

    @Test func aKeyGivesOneEffect() async throws {
        try await AuthorizationSweepTests.with { sweep in
            let findings = try await sweep.repeated(
                "admin", except: ["POST /v2/images/{image_id}/import": "no import method is enabled"])
            #expect(findings == [])
        }
    }

    @Test(arguments: RouteSweep.Duty.allCases) func everyServiceOwes(_ duty: RouteSweep.Duty) async throws {
        try await AuthorizationSweepTests.with { sweep in
            let findings = try await sweep.findings(duty, duties)
            #expect(findings == [])
        }
    }
}
