import BareMetalService
import Database
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every route of the Bare Metal API, for callers without access.
@Suite struct AuthorizationSweepTests {
    private static let withoutSchema = ["GET /": "a document of versions", "GET /v1": "a document of versions"]

    private static func with(_ body: (NodeFixture, RouteSweep) async throws -> Void) async throws {
        try await NodeFixture.with { cloud in
            let node = try await cloud.enroll("one", ["owner": "p1"])
            let port = try await cloud.call("POST", "/v1/ports", ["node_uuid": .string(node), "address": "52:54:00:00:00:01"])
            let chassis = try await cloud.call("POST", "/v1/chassis", [:])
            #expect(try await cloud.call("PUT", "/v1/nodes/one/traits/CUSTOM_A").status == 204)
            let allocation = try await cloud.call("POST", "/v1/allocations", ["resource_class": "x", "owner": "p1"])
            let group = try await cloud.call("POST", "/v1/portgroups", ["node_uuid": .string(node), "name": "bond0"])
            // A node with an allocation: the other one is worked with in other ways.
            let claimed = try await cloud.enroll("three", ["owner": "p1"])
            try await cloud.database.write { connection in
                let id = allocation.json["uuid"]?.stringValue
                try connection.execute("UPDATE bare_metal_nodes SET instance_uuid = \(id)::uuid WHERE id = \(claimed)::uuid")
                try connection.execute(
                    "UPDATE bare_metal_allocations SET node_id = \(claimed)::uuid, state = 'active', last_error = NULL WHERE id = \(id)::uuid"
                )
            }
            let patch: JSONValue = [["op": "add", "path": "/extra/k", "value": 1]]
            try await body(
                cloud,
                RouteSweep(
                    cloud.api, database: cloud.database,
                    parameters: [
                        "node": node, "port": port.json["uuid"]?.stringValue ?? "", "chassis": chassis.json["uuid"]?.stringValue ?? "",
                        "/v1/nodes/{node}/allocation node": claimed, "allocation": allocation.json["uuid"]?.stringValue ?? "",
                        "portgroup": group.json["uuid"]?.stringValue ?? "", "trait": "CUSTOM_A", "driver": "fake-hardware",
                        "hostname": "wolke-bare-metal",
                    ],
                    bodies: [
                        "PATCH /v1/nodes/{node}": patch, "PATCH /v1/ports/{port}": patch, "PATCH /v1/chassis/{chassis}": patch,
                        "PATCH /v1/allocations/{allocation}": patch, "POST /v1/allocations": ["resource_class": "x"],
                        "PATCH /v1/portgroups/{portgroup}": patch,
                        "POST /v1/portgroups": ["node_uuid": .string(node)],
                        "POST /v1/nodes": ["driver": "fake-hardware", "name": "two"],
                        "POST /v1/ports": ["node_uuid": .string(node), "address": "52:54:00:00:00:02"],
                        "PUT /v1/nodes/{node}/states/provision": ["target": "manage"],
                        "PUT /v1/nodes/{node}/states/power": ["target": "power on"],
                        "PUT /v1/nodes/{node}/management/boot_device": ["boot_device": "pxe"],
                        "POST /v1/nodes/{node}/vmedia": ["device_type": "cdrom", "image_url": "http://images.example/a.iso"],
                    ]))
        }
    }

    @Test("S4 S6 S10 S11: requirements of every service", arguments: RouteSweep.Duty.allCases)
    func s10EveryServiceOwes(_ duty: RouteSweep.Duty) async throws {
        try await AuthorizationSweepTests.with { _, sweep in
            let findings = try await sweep.findings(duty, RouteSweep.Duties())
            #expect(findings == [])
        }
    }

    @Test func aKeyGivesOneEffect() async throws {
        try await AuthorizationSweepTests.with { _, sweep in
            let findings = try await sweep.repeated("admin")
            #expect(findings == [])
        }
    }

    @Test func answersFitTheirSchemas() async throws {
        try await AuthorizationSweepTests.with { _, sweep in
            let (findings, compared) = try await sweep.answersDifferingFromSchemas(["admin", "member"])
            #expect(findings == [])
            #expect(sweep.undeclaredAnswers(AuthorizationSweepTests.withoutSchema) == [])
            #expect(compared >= 20)
            #expect(try await sweep.comparisonsWithoutIndex().findings == [])
        }
    }
}
