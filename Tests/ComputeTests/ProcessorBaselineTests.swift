import Contracts
import Database
import JSON
import Kernel
import TestKit
import Testing
import Workflow

@testable import ComputeCore

/// Aggregates with `cpu_model` `baseline`: guests get the processor that all hosts of the aggregate have.
@Suite struct ProcessorBaselineTests {
    private static let old = "<cpu><model>Haswell</model></cpu>"
    private static let new = "<cpu><model>Skylake-Server</model></cpu>"

    private func hello(_ host: String, _ definition: String?, features: [String] = []) throws -> JSONValue {
        var hello = try Fixtures.hello(host: host).decode(as: AgentHello.self)
        hello.capabilities.virtType = "kvm"
        hello.capabilities.processor.features = features
        hello.capabilities.processorDefinition = definition
        return try hello.document()
    }

    private func aggregate(_ cloud: TestCloud, of hosts: [String], _ model: JSONValue) async throws -> TestCloud.Answer {
        let creation = try await cloud.call("POST", "/v2.1/os-aggregates", ["aggregate": ["name": "a"]], as: "admin")
        let path = "/v2.1/os-aggregates/\(creation.json["aggregate"]?["id"]?.intValue ?? 0)/action"
        for host in hosts {
            let added = try await cloud.call("POST", path, ["add_host": ["host": .string(host)]], as: "admin")
            #expect(added.status == 200, "\(added.json)")
        }
        return try await cloud.call("POST", path, ["set_metadata": ["metadata": ["cpu_model": model]]], as: "admin")
    }

    private func definitions(_ cloud: TestCloud, of id: String) throws -> JSONValue? {
        try #require(cloud.cloud.received.last { $0["server"]?["id"] == .string(id) })["server"]?["processor_definitions"]
    }

    @Test func guestsGetTheProcessorsOfAllHosts() async throws {
        try await TestCloud.with { cloud in
            try await cloud.cloud.send(hello("host-1", ProcessorBaselineTests.new), cloud.consumer)
            let alone = try await cloud.createServer()
            try await cloud.engine().drain()
            #expect(try definitions(cloud, of: alone) == nil)
            try await cloud.cloud.send(hello("host-2", ProcessorBaselineTests.old), cloud.consumer)
            // The same once more, and one of an earlier release.
            try await cloud.cloud.send(hello("host-3", ProcessorBaselineTests.new), cloud.consumer)
            try await cloud.cloud.send(hello("host-4", nil), cloud.consumer)
            #expect(try await aggregate(cloud, of: ["host-1", "host-2", "host-3", "host-4"], "baseline").status == 200)
            #expect(
                try await cloud.call(
                    "POST", "/v2.1/servers/\(alone)/action", ["reboot": ["type": "HARD"]]
                ).status == 202)
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(
                try definitions(cloud, of: alone) == [.string(ProcessorBaselineTests.old), .string(ProcessorBaselineTests.new)])
        }
    }

    @Test func anotherModelIsRefused() async throws {
        try await TestCloud.with { cloud in
            let refused = try await aggregate(cloud, of: [], "Haswell")
            #expect(refused.status == 400 && refused.message.contains("cpu_model. Value: Haswell"), "\(refused.json)")
        }
    }

    @Test func runningGuestsMayMoveToHostsOfTheAggregate() async throws {
        try await TestCloud.with { cloud in
            try await cloud.cloud.send(hello("host-1", ProcessorBaselineTests.new, features: ["avx512f"]), cloud.consumer)
            try await cloud.cloud.send(hello("host-2", ProcessorBaselineTests.old), cloud.consumer)
            let id = try await cloud.createServer()
            try await cloud.engine().drain()
            func move() async throws -> TestCloud.Answer {
                try await cloud.call(
                    "POST", "/v2.1/servers/\(id)/action", ["os-migrateLive": ["host": "host-2", "block_migration": "auto"]],
                    as: "admin", version: "2.96")
            }
            let refused = try await move()
            #expect(refused.status == 400 && refused.message.contains("The processor lacks avx512f"), "\(refused.json)")
            #expect(try await aggregate(cloud, of: ["host-1", "host-2"], "baseline").status == 200)
            #expect(try await move().status == 202)
        }
    }
}
