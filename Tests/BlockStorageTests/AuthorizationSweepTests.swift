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

    @Test func everyIdIsReal() async throws {
        try await AuthorizationSweepTests.with { sweep in
            let findings = try await sweep.unreachable(
                ["member", "admin"], except: operatorsOnly.union(["GET /v3/types/{type_id}/os-volume-type-access"]))
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
            // A path with a project that is not the token's is refused before anything is looked at.
            let findings = try await sweep.foreigner("other", except: ["volume_extension:type_get"]).filter { !$0.contains("Malformed request url") }
            #expect(findings == [])
        }
    }

    @Test func readersDoNotWrite() async throws {
        try await AuthorizationSweepTests.with { sweep in
            let findings = try await sweep.reader("reader", except: ["volume_extension:volume_image_metadata:show"])
            #expect(findings == [])
        }
    }
}
