import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every route of the Placement API, for callers without access: it is only for operators and services.
@Suite struct PlacementAuthorizationSweepTests {
    @Test func answersFitTheirSchemas() async throws {
        try await Self.with { _, sweep in
            let (findings, compared) = try await sweep.answersDifferingFromSchemas(["admin"])
            #expect(findings == [])
            #expect(sweep.undeclaredAnswers(["GET /": "a document of versions"]) == [])
            #expect(compared == 12)
            #expect(try await sweep.comparisonsWithoutIndex().findings == [])
        }
    }

    private static func with(_ body: (_ host: String, RouteSweep) async throws -> Void) async throws {
        try await PlacementBench.with { bench in
            let host = try await bench.addHost("h1")
            for name in ["CUSTOM_A"] {
                #expect(try await bench.call("PUT", "/traits/\(name)").status < 300)
                #expect(try await bench.call("PUT", "/resource_classes/\(name)").status < 300)
            }
            try await body(
                host,
                RouteSweep(
                    bench.api, database: bench.test.database,
                    parameters: ["uuid": host, "class": "VCPU", "name": "CUSTOM_A"]))
        }
    }

    @Test func everyIdIsReal() async throws {
        try await PlacementAuthorizationSweepTests.with { _, sweep in
            let findings = try await sweep.unreachable(["admin"])
            #expect(findings == [])
        }
    }

    @Test func aKeyGivesOneEffect() async throws {
        try await PlacementAuthorizationSweepTests.with { host, sweep in
            let consumer = SystemRandom().uuid().description
            let provider = SystemRandom().uuid().description
            let bodies: [String: JSONValue] = [
                "POST /resource_providers": ["name": "new", "uuid": .string(provider)],
                "POST /resource_providers/{uuid}/inventories": [
                    "resource_class": "CUSTOM_A", "total": 10, "resource_provider_generation": 0,
                ],
                "POST /allocations": [
                    consumer: [
                        "allocations": [host: ["resources": ["VCPU": 1]]], "project_id": "p", "user_id": "u",
                        "consumer_generation": nil, "consumer_type": "INSTANCE",
                    ]
                ],
                "POST /resource_classes": ["name": "CUSTOM_NEW"],
            ]
            let findings = try await sweep.with(bodies: bodies).repeated("admin")
            #expect(findings == [])
        }
    }

    @Test func requestsWithoutATokenAreRefused() async throws {
        try await PlacementAuthorizationSweepTests.with { _, sweep in
            let findings = try await sweep.anonymous()
            #expect(findings == [])
        }
    }

    @Test func tenantsAreRefused() async throws {
        try await PlacementAuthorizationSweepTests.with { _, sweep in
            for token in ["other", "member", "reader", "unscoped"] {
                let findings = try await sweep.foreigner(token)
                #expect(findings == [], "\(token)")
                let written = try await sweep.reader(token)
                #expect(written == [], "\(token)")
            }
        }
    }

    @Test(
        "S6 S10 S11: what every service owes its callers",
        arguments: [
            RouteSweep.Duty.subjectsAreForServicesOnly, .readingIsNoWriting, .absentAndForeignLookTheSame,
        ])
    func s6EveryServiceOwes(_ duty: RouteSweep.Duty) async throws {
        try await PlacementAuthorizationSweepTests.with { _, sweep in
            let findings = try await sweep.findings(duty, RouteSweep.Duties())
            #expect(findings == [])
        }
    }

    @Test("S10: services cannot read a project's usage") func s10UsagesAreTheProjects() async throws {
        try await PlacementBench.with { bench in
            let service = try await bench.call("GET", "/usages?project_id=p1", token: "service").status
            #expect(service == 403)
            let inventory = try await bench.call("GET", "/resource_providers", token: "service").status
            #expect(inventory == 200)
        }
    }
}
