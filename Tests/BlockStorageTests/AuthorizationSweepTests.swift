import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every route of the Block Storage API, as callers who must not get through.
@Suite struct AuthorizationSweepTests {
    /// A volume, a snapshot and an attachment of the project p1.
    private static func with(_ body: (RouteSweep) async throws -> Void) async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await cloud.create(["size": 1, "metadata": ["k": "v"]])
            let attached = try await cloud.create()
            let taken = try await cloud.call(
                "POST", "/v3/p1/snapshots", ["snapshot": ["volume_id": .string(volume), "metadata": ["k": "v"]]])
            let snapshot = try #require(taken["snapshot"]?["id"]?.stringValue, "\(taken.json)")
            try await cloud.settle()
            let reserved = try await cloud.call(
                "POST", "/v3/p1/attachments", version: "3.70",
                [
                    "attachment": [
                        "volume_uuid": .string(attached), "instance_uuid": .string(SystemRandom().uuid().description),
                    ]
                ])
            let attachment = try #require(reserved["attachment"]?["id"]?.stringValue, "\(reserved.json)")
            let types = try await cloud.call("GET", "/v3/p1/types")
            let type = types["volume_types"]?.arrayValue?.first?["id"]?.stringValue ?? ""
            let specs = try await cloud.call(
                "POST", "/v3/types/\(type)/extra_specs", token: "admin", ["extra_specs": ["k": "v"]])
            #expect(specs.status < 300, "\(specs.json)")
            try await body(
                RouteSweep(
                    cloud.api, database: cloud.database,
                    parameters: [
                        "project_id": "p1", "volume_id": volume, "snapshot_id": snapshot, "attachment_id": attachment,
                        "type_id": type, "id": volume, "key": "k", "target_id": "p1",
                    ]))
        }
    }

    /// Below another project's path an operator gets 400, a tenant 403: the paths without a project are looked at.
    private let operatorsOnly: Set<String> = Set(
        [
            "types/{type_id}/encryption", "types/{type_id}/extra_specs", "types/{type_id}/extra_specs/{key}",
            "types/{type_id}/os-volume-type-access", "os-quota-class-sets/{class}", "os-services",
            "scheduler-stats/get_pools",
        ].map { "GET /v3/{project_id}/" + $0 })

    private var duties: RouteSweep.Duties {
        RouteSweep.Duties(unreachable: operatorsOnly.union(["GET /v3/types/{type_id}/os-volume-type-access"]),
        forAll: ["volume_extension:type_get"], readersOwn: ["volume_extension:volume_image_metadata:show"],
        // A path with a project that is not the token's is refused before anything is looked at.
        refusal: "Malformed request url")
    }

    @Test(arguments: RouteSweep.Duty.allCases) func everyServiceOwes(_ duty: RouteSweep.Duty) async throws {
        try await AuthorizationSweepTests.with { sweep in
            let findings = try await sweep.findings(duty, duties)
            #expect(findings == [])
        }
    }
}
