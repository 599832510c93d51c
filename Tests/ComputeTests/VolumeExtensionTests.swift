import ComputeService
import Database
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import Workflow

/// Volumes that Block Storage extends while servers have them.
@Suite struct VolumeExtensionTests {
    private func server(_ cloud: TestCloud) async throws -> String {
        let id = try await cloud.createServer()
        cloud.workWhileWaiting()
        let body: JSONValue = ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]]
        #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/os-volume_attachments", body).status == 200)
        try await cloud.engine().drain()
        cloud.time.whenWaiting { try await cloud.cloud.work(cloud.consumer) }
        return id
    }

    private func extend(_ cloud: TestCloud, to size: Int) async throws {
        _ = try await cloud.database.write { try $0.execute("UPDATE volumes SET size = \(size) WHERE id = \(Fixtures.volume)") }
    }

    /// The sizes that the host was told of, in order.
    private func sizes(_ cloud: TestCloud) -> [Int] {
        cloud.cloud.received.compactMap { $0["server"]?["volumes"]?.arrayValue?.first?["size_gb"]?.intValue }
    }

    private func actions(_ cloud: TestCloud, _ id: String) async throws -> [JSONValue] {
        let all =
            try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions", as: "admin").json["instanceActions"]?.arrayValue ?? []
        return all.filter { $0["action"] == "extend_volume" }
    }

    @Test func theHostIsToldOfTheNewSize() async throws {
        try await TestCloud.with { cloud in
            let id = try await server(cloud)
            #expect(sizes(cloud).last == 1)
            let tasks = ComputePeriodicTasks(cloud.compute)
            _ = try await tasks.runOnce()
            #expect(try await actions(cloud, id).isEmpty, "nothing has changed")
            try await extend(cloud, to: 3)
            _ = try await tasks.runOnce()
            try await cloud.engine().drain()
            #expect(sizes(cloud).last == 3)
            let told = sizes(cloud).count
            let action = try #require(try await actions(cloud, id).first)
            #expect(action["finish_time"] ?? .null != .null || action["updated_at"] != nil, "\(action)")
            let result = try await cloud.database.read {
                try $0.query("SELECT result FROM server_actions WHERE action = 'extend_volume'").map { try $0.optionalString("result") }
            }
            #expect(result == ["Success"])
            _ = try await tasks.runOnce()
            try await cloud.engine().drain()
            #expect(sizes(cloud).count == told, "once is enough")
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func aHostThatCannotSaysWhy() async throws {
        try await TestCloud.with { cloud in
            let id = try await server(cloud)
            try await extend(cloud, to: 2)
            cloud.cloud.failOnHost("No space left on device", reason: "its host has no room")
            _ = try await ComputePeriodicTasks(cloud.compute).runOnce()
            try await cloud.engine().drain()
            let details = try await cloud.database.read {
                try $0.query("SELECT result, details FROM server_actions WHERE action = 'extend_volume'").map {
                    [try $0.optionalString("result"), try $0.optionalString("details")]
                }
            }
            #expect(details.first?.first == "Error" && details.first?.last??.contains("No space left") == true, "\(details)")
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
        }
    }

    @Test func anEventHasTheSizeSentAgain() async throws {
        try await TestCloud.with { cloud in
            let id = try await server(cloud)
            func send(_ version: String, tag: String?) async throws -> TestCloud.Answer {
                var event: JSONObject = ["name": "volume-extended", "server_uuid": .string(id)]
                if let tag { event["tag"] = .string(tag) }
                return try await cloud.call(
                    "POST", "/v2.1/os-server-external-events", ["events": [.object(event)]], as: "admin", version: version)
            }
            #expect(try await send("2.50", tag: Fixtures.volume).status == 400)
            #expect(try await send("2.51", tag: nil).json["events"]?.arrayValue?.first?["code"] == 400)
            let answer = try await send("2.51", tag: Fixtures.volume)
            #expect(answer.status == 200 && answer.json["events"]?.arrayValue?.first?["code"] == 200, "\(answer.json)")
            let told = sizes(cloud).count
            _ = try await ComputePeriodicTasks(cloud.compute).runOnce()
            try await cloud.engine().drain()
            #expect(sizes(cloud).count == told + 1 && sizes(cloud).last == 1)
        }
    }

    @Test func underEveryDisturbance() async throws {
        try await TestCloud.with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "volume.extend" })
            for (index, variant) in WorkflowChecks(definition).variants.enumerated() {
                let name = Comment(rawValue: variant.name)
                let id = try await server(cloud)
                try await extend(cloud, to: 10 + index)
                _ = try await ComputePeriodicTasks(cloud.compute).runOnce()
                try await cloud.engine([variant.definition]).drain()
                // A step that fails at once has not waited for the host.
                try await cloud.cloud.deliver(to: cloud.consumer)
                #expect(sizes(cloud).last == 10 + index, name)
                #expect(try await cloud.server(id)["status"] == "ACTIVE", name)
                try await cloud.call("DELETE", "/v2.1/servers/\(id)")
                try await cloud.engine().drain()
                #expect(try await cloud.leftovers() == [], name)
            }
        }
    }
}
