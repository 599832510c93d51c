import JSON
import Kernel
import TestKit
import Testing

/// Every member of a request has a visible effect or is refused by name.
@Suite struct PlacementRequestMemberTests {
    @Test func membersAreSeenOrRefused() async throws {
        try await PlacementBench.with { bench in
            let host = try await bench.addHost("h1")
            let own = "/resource_providers/\(host)/inventories"
            #expect(try await bench.call("PUT", "/resource_classes/CUSTOM_MEMBER").status < 300)
            let kinds = [
                RequestMembers(
                    "/resource_providers", nil, idMember: "uuid", base: ["name": "p#"],
                    seen: [
                        .init("uuid", "22222222-2222-4222-8222-000000000001"), .init("parent_provider_uuid", .string(host)),
                        .init("name", "named"),
                    ],
                    refused: [.init("generation", 3), .init("root_provider_uuid", .string(host)), .init("uuid", "x")]),
                RequestMembers(
                    own, nil, template: "/resource_providers/{uuid}/inventories", idMember: "resource_class",
                    base: ["resource_class": "CUSTOM_MEMBER", "total": 8],
                    seen: [
                        .init("total", 16), .init("reserved", 2), .init("min_unit", 2), .init("max_unit", 4), .init("step_size", 2),
                        .init("allocation_ratio", 1.5),
                    ],
                    refused: [.init("used", 1), .init("resource_provider_generation", 9999), .init("reserved", 9)],
                    refusals: ["generation", "inventory"]),
            ]
            for kind in kinds {
                let findings = try await kind.findings(bench.api, bench.test.database) { method, path, body in
                    let answer = try await bench.call(method, path, body: body)
                    // A generation other than the current one is a conflict.
                    return (answer.status == 409 ? 400 : answer.status, answer.json)
                }
                #expect(findings == [])
            }
        }
    }
}
