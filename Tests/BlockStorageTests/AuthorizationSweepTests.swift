import BlockStorageService
import Database
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every route of the Block Storage API, for callers without access.
@Suite struct BlockStorageAuthorizationSweepTests {
    private static let withoutSchema = [
        "GET /": "a document of versions", "GET /v3": "a document of versions",
    ]

    /// A volume, a snapshot and an attachment of the project p1.
    private static func with(_ body: (VolumeFixture, RouteSweep) async throws -> Void) async throws {
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
            // The specs of a type in use cannot change.
            let types = try await cloud.call(
                "POST", "/v3/types", token: "admin", ["volume_type": ["name": "unused", "extra_specs": ["k": "v"]]])
            let type = try #require(types["volume_type"]?["id"]?.stringValue, "\(types.json)")
            try await body(
                cloud,
                RouteSweep(
                    cloud.api, database: cloud.database,
                    parameters: [
                        "project_id": "p1", "volume_id": volume, "snapshot_id": snapshot, "attachment_id": attachment,
                        "type_id": type, "id": volume, "key": "k", "target_id": "p1", "host": "wolke@file", "class": "default",
                    ]))
        }
    }

    /// Below another project's path an operator gets 400 and a tenant 403, so the paths without a project are checked.
    private let operatorsOnly: Set<String> = Set(
        [
            "types/{type_id}/encryption", "types/{type_id}/extra_specs", "types/{type_id}/extra_specs/{key}",
            "types/{type_id}/os-volume-type-access", "os-quota-class-sets/{class}", "os-services",
            "scheduler-stats/get_pools", "capabilities/{host}",
        ].map { "GET /v3/{project_id}/" + $0 })

    /// Resources that this cloud does not have, have no ids to access.
    private static func absent(_ cloud: VolumeFixture) -> Set<String> {
        let kinds = Set(AbsentResource.all.map(\.path))
        return Set(
            cloud.api.resources.flatMap(\.routes).filter { route in
                route.path.contains("{absent_id}")
                    || route.path.hasPrefix("/v3/{project_id}/") && route.rule == "rule:admin_required"
                        && route.path.split(separator: "/").contains { kinds.contains(String($0)) }
            }.map(RouteSweep.name))
    }

    private func duties(_ cloud: VolumeFixture) -> RouteSweep.Duties {
        RouteSweep.Duties(
            unreachable: operatorsOnly.union(["GET /v3/types/{type_id}/os-volume-type-access"])
                .union(BlockStorageAuthorizationSweepTests.absent(cloud)),
            forAll: ["volume_extension:type_get"], readersOwn: ["volume_extension:volume_image_metadata:show"],
            // A path with a project that is not the token's is refused before anything is looked up.
            reads: Set(BlockStorageAuthorizationSweepTests.effectless.keys), refusal: "Malformed request url")
    }

    /// Routes without an effect, which therefore cannot happen twice.
    private static let effectless = [
        "POST /v3/volumes/{volume_id}/action os-initialize_connection": "tells",
        "POST /v3/volumes/{volume_id}/action os-terminate_connection": "does nothing",
        "POST /v3/volumes/{volume_id}/action os-show_image_metadata": "reads",
    ]

    /// The paths with a project lead to the same handlers.
    @Test func aKeyGivesOneEffect() async throws {
        try await BlockStorageAuthorizationSweepTests.with { cloud, sweep in
            let volume = try #require(sweep.parameters["volume_id"])
            let snapshot = try #require(sweep.parameters["snapshot_id"])
            let attachment = try #require(sweep.parameters["attachment_id"])
            let attached = try await cloud.database.read {
                try $0.query("SELECT volume_id FROM volume_attachments WHERE id = \(attachment)::uuid")[0].string("volume_id")
            }
            let type = try await cloud.call(
                "POST", "/v3/types", token: "admin", ["volume_type": ["name": "closed", "os-volume-type-access:is_public": false]])
            let open = try await cloud.call("POST", "/v3/types", token: "admin", ["volume_type": ["name": "open"]])
            #expect(open.status == 200)
            let closed = try #require(type["volume_type"]?["id"]?.stringValue, "\(type.json)")
            let action = "POST /v3/volumes/{volume_id}/action "
            let image = try await cloud.addImage(Array(repeating: 1, count: 512))
            cloud.workWhileWaiting()
            let bodies: [String: JSONValue] = [
                "POST /v3/volumes": ["volume": ["size": 1]], action + "os-extend": ["os-extend": ["new_size": 2]],
                action + "os-reset_status": ["os-reset_status": ["status": "error"]],
                action + "os-retype": ["os-retype": ["new_type": "open"]],
                action + "os-attach": [
                    "os-attach": ["instance_uuid": .string(SystemRandom().uuid().description), "mountpoint": "/dev/vdb"]
                ],
                action + "os-reimage": ["os-reimage": ["image_id": .string(image)]],
                action + "os-unset_image_metadata": ["os-unset_image_metadata": ["key": "k"]],
                "POST /v3/snapshots": ["snapshot": ["volume_id": .string(volume)]],
                "POST /v3/snapshots/{snapshot_id}/action os-update_snapshot_status": ["os-update_snapshot_status": ["status": "available"]],
                "POST /v3/attachments": [
                    "attachment": ["volume_uuid": .string(volume), "instance_uuid": .string(SystemRandom().uuid().description)]
                ],
            ]
            let statuses = [
                action + "os-begin_detaching": "in-use", action + "os-roll_detaching": "detaching",
                action + "os-unreserve": "attaching", action + "os-detach": "in-use",
            ]
            let findings = try await sweep.with(
                parameters: [
                    "/v3/types/{type_id}/action type_id": closed
                ], bodies: bodies
            ).repeated(
                "admin", except: BlockStorageAuthorizationSweepTests.effectless,
                where: { !$0.path.hasPrefix("/v3/{project_id}/") && !$0.path.contains("{absent_id}") },
                prepare: { route in
                    try await cloud.database.write { connection in
                        try connection.execute("DELETE FROM intents")
                        try connection.execute("DELETE FROM workflows")
                        let status = statuses[route] ?? "available"
                        try connection.execute(
                            """
                            UPDATE volumes SET status = CASE WHEN id = \(attached)::uuid THEN 'reserved' ELSE \(status) END, size = 1,
                                image_metadata = '{"k": "v"}'
                            """)
                        let reported = route.hasSuffix("os-update_snapshot_status") ? "creating" : "available"
                        try connection.execute("UPDATE volume_snapshots SET status = \(reported) WHERE id = \(snapshot)::uuid")
                        try connection.execute("DELETE FROM volume_snapshots WHERE id <> \(snapshot)::uuid")
                        // A volume with a snapshot cannot be deleted.
                        try connection.execute("UPDATE volume_snapshots SET volume_id = \(attached)::uuid")
                        try connection.execute("DELETE FROM volume_attachments WHERE id <> \(attachment)::uuid")
                        try connection.execute("UPDATE volume_attachments SET status = 'attaching' WHERE id = \(attachment)::uuid")
                        if route == action + "os-detach" {
                            try connection.execute(
                                """
                                INSERT INTO volume_attachments (id, volume_id, project_id, status, created_at, updated_at)
                                VALUES (gen_random_uuid(), \(volume)::uuid, 'p1', 'attached', now(), now())
                                """)
                        }
                    }
                })
            #expect(findings == [])
        }
    }

    @Test func answersFitTheirSchemas() async throws {
        try await BlockStorageAuthorizationSweepTests.with { cloud, sweep in
            let ids = sweep.parameters
            let completed = try await cloud.call("POST", "/v3/attachments/\(ids["attachment_id"] ?? "")/action", ["os-complete": nil])
            #expect(completed.status == 204)
            let (findings, compared) = try await sweep.answersDifferingFromSchemas(["admin", "member"])
            #expect(findings == [])
            #expect(sweep.undeclaredAnswers(BlockStorageAuthorizationSweepTests.withoutSchema) == [])
            #expect(compared >= 100)
            #expect(try await sweep.comparisonsWithoutIndex().findings == [])
        }
    }

    @Test("S4 S6 S10 S11: requirements of every service", arguments: RouteSweep.Duty.allCases)
    func s10EveryServiceOwes(_ duty: RouteSweep.Duty) async throws {
        try await BlockStorageAuthorizationSweepTests.with { cloud, sweep in
            let findings = try await sweep.findings(duty, duties(cloud))
            #expect(findings == [])
        }
    }
}
