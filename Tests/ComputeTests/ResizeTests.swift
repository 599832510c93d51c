@testable import ComputeService
import Contracts
import Database
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import Workflow

/// Resizing servers, confirming and reverting it.
@Suite struct ResizeTests {
    private func act(
        _ cloud: TestCloud, _ id: String, _ body: JSONValue, version: String = "2.96", as token: String = "member"
    ) async throws -> TestCloud.Answer { try await cloud.call("POST", "/v2.1/servers/\(id)/action", body, as: token, version: version) }

    private static let grow: JSONValue = ["resize": ["flavorRef": "2"]]

    private func orders(_ cloud: TestCloud) -> [JSONValue] { cloud.cloud.received.compactMap { $0["server"] } }

    private func resized(_ cloud: TestCloud) async throws -> String {
        let id = try await cloud.createServer()
        #expect(try await act(cloud, id, ResizeTests.grow).status == 202)
        try await cloud.engine().drain()
        return id
    }

    @Test func aResizedServerIsConfirmed() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            #expect(try await act(cloud, id, ResizeTests.grow).status == 202)
            #expect(try await cloud.server(id)["status"] == "RESIZE")
            #expect(try await act(cloud, id, ["os-stop": nil]).status == 409)
            try await cloud.engine().drain()
            let server = try await cloud.server(id)
            #expect(server["status"] == "VERIFY_RESIZE")
            #expect(server["flavor"]?["original_name"] == "m1.large")
            let order = try #require(orders(cloud).last)
            #expect(order["operation"]?["kind"] == "resize")
            #expect(order["vcpus"] == 4 && order["memory_mb"] == 8192 && order["root_gb"] == 40)
            #expect(order["keep_disks"] == true)
            #expect(try await cloud.leftovers() == [])
            let list = try await cloud.call("GET", "/v2.1/os-migrations", as: "admin").json["migrations"]?.arrayValue
            #expect(list?.first?["status"] == "finished")
            #expect(list?.first?["migration_type"] == "resize")
            #expect(try await act(cloud, id, ["os-stop": nil]).status == 409)

            #expect(try await act(cloud, id, ["confirmResize": nil]).status == 204)
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            try await cloud.engine().drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(orders(cloud).last?["keep_disks"] == nil)
            #expect(try await cloud.leftovers() == [])
            let held = try await cloud.database.read { try $0.query("SELECT DISTINCT consumer_id FROM fake_allocations").count }
            #expect(held == 1)
            #expect(try await act(cloud, id, ["confirmResize": nil]).status == 409)
            #expect(try await act(cloud, id, ["revertResize": nil]).status == 409)
            let done = try await cloud.call("GET", "/v2.1/os-migrations?instance_uuid=\(id)&status=confirmed", as: "admin")
            #expect(done.json["migrations"]?.arrayValue?.count == 1)
        }
    }

    @Test func aResizeIsReverted() async throws {
        try await TestCloud.with { cloud in
            let id = try await resized(cloud)
            #expect(try await act(cloud, id, ["revertResize": nil]).status == 202)
            #expect(try await cloud.server(id)["status"] == "REVERT_RESIZE")
            try await cloud.engine().drain()
            let server = try await cloud.server(id)
            #expect(server["status"] == "ACTIVE")
            #expect(server["flavor"]?["original_name"] == "m1.tiny")
            #expect(orders(cloud).last?["operation"]?["kind"] == "resize-revert")
            #expect(orders(cloud).last?["memory_mb"] == 512)
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func aStoppedServerStaysOff() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            _ = try await act(cloud, id, ["os-stop": nil])
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await act(cloud, id, ResizeTests.grow).status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "VERIFY_RESIZE")
            #expect(orders(cloud).last?["power"] == "shutoff")
            #expect(try await act(cloud, id, ["confirmResize": nil]).status == 204)
            #expect(try await cloud.server(id)["status"] == "SHUTOFF")
        }
    }

    @Test func impossibleResizesAreRefused() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(["flavorRef": "2"])
            func refusal(_ flavor: String, _ status: Int = 400) async throws -> String {
                let answer = try await act(cloud, id, ["resize": ["flavorRef": .string(flavor)]])
                #expect(answer.status == status)
                return answer.message
            }
            #expect(try await refusal("2") == "When resizing, instances must change flavor!")
            #expect(try await refusal("no such flavor").contains("could not be found"))
            // A private flavor of other projects.
            #expect(try await refusal("3").contains("could not be found"))
            #expect(try await refusal("1").contains("Unable to resize disk down"))
            try await cloud.database.write { try $0.execute("UPDATE flavors SET root_gb = 40, vcpus = 30 WHERE flavorid = '4'") }
            #expect(try await refusal("4", 403).contains("Quota exceeded"))
            try await cloud.database.write { try $0.execute("UPDATE flavors SET root_gb = 0, memory_mb = 100 WHERE flavorid = '4'") }
            #expect(try await refusal("4").contains("Resize to zero disk flavor is not allowed"))
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(try await act(cloud, id, ["revertResize": nil]).status == 409)
            #expect(try await act(cloud, id, ["resize": ["flavorRef": "1"]], as: "reader").status == 403)
            #expect(try await cloud.leftovers() == [])
        }
        try await TestCloud.with(settings: ComputeSettings(resizesOnSameHost: false)) { cloud in
            let id = try await cloud.createServer()
            _ = try await cloud.database.write { try $0.execute("UPDATE hypervisors SET capabilities = capabilities - 'release'") }
            let refused = try await act(cloud, id, ResizeTests.grow)
            #expect(refused.status == 400 && refused.message.contains("same host is not allowed"), "\(refused.json)")
        }
    }

    /// The host cannot revert the resize either, so the server does not run.
    @Test func aHostThatCannotLeavesTheServerInError() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.failOnHost("qemu-img: no", reason: "its host cannot resize the server's disks")
            #expect(try await act(cloud, id, ResizeTests.grow).status == 202)
            try await cloud.engine().drain()
            cloud.cloud.failOnHost(nil)
            try await cloud.cloud.deliver(to: cloud.consumer)
            let server = try await cloud.server(id)
            #expect(server["flavor"]?["original_name"] == "m1.tiny")
            #expect(server["OS-EXT-STS:task_state"] == .null)
            #expect(server["status"] == "ERROR", "\(server)")
            #expect(server["fault"]?["message"]?.stringValue?.contains("its host cannot resize the server's disks") == true, "\(server)")
            let actions = try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions").json["instanceActions"]?.arrayValue
            #expect(actions?.first?["action"] == "resize" && actions?.first?["message"] == "Error")
            try await cloud.call("DELETE", "/v2.1/servers/\(id)")
            try await cloud.engine().drain()
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func noRoomLeavesTheServerAsItWas() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.reject(["result": "rejected", "message": "No valid host was found.", "filters": []])
            #expect(try await act(cloud, id, ResizeTests.grow).status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            #expect(try await cloud.server(id)["flavor"]?["original_name"] == "m1.tiny")
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func aResizeIsConfirmedAfterTheWindow() async throws {
        try await TestCloud.with(settings: ComputeSettings(resizeConfirmWindow: .seconds(60))) { cloud in
            let id = try await resized(cloud)
            let tasks = ComputePeriodicTasks(cloud.compute)
            try await tasks.runOnce()
            #expect(try await cloud.server(id)["status"] == "VERIFY_RESIZE")
            cloud.time.advance(by: .seconds(61))
            try await cloud.cloud.beat(cloud.consumer)
            try await tasks.runOnce()
            #expect(try await cloud.server(id)["status"] == "ACTIVE")
            try await cloud.engine().drain()
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func resizedServersAreDeleted() async throws {
        try await TestCloud.with { cloud in
            for reverts in [false, true] {
                let id = try await resized(cloud)
                if reverts { #expect(try await act(cloud, id, ["revertResize": nil]).status == 202) }
                #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
                try await cloud.engine().drain()
                #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404)
                #expect(try await cloud.leftovers() == [])
            }
            let id = try await cloud.createServer()
            #expect(try await act(cloud, id, ResizeTests.grow).status == 202)
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404)
            #expect(try await cloud.leftovers() == [])
        }
    }

    // MARK: disturbances

    @Test func resizeUnderEveryDisturbance() async throws {
        try await TestCloud.with { cloud in
            for kind in ["server.resize", "server.confirm_resize", "server.revert_resize"] {
                let definition = try #require(cloud.module.workflows.first { $0.kind == kind })
                for variant in WorkflowChecks(definition).variants { try await run(kind, variant, cloud) }
            }
        }
    }

    private func run(_ kind: String, _ variant: WorkflowChecks.Variant, _ cloud: TestCloud) async throws {
        let label = Comment(rawValue: "\(kind) \(variant.name)")
        let engine = cloud.engine([variant.definition])
        let id = try await cloud.createServer()
        #expect(try await act(cloud, id, ResizeTests.grow).status == 202, label)
        try await engine.drain()
        let succeeded = kind != "server.resize" || variant.succeeds
        #expect(try await cloud.server(id)["status"] == (succeeded ? "VERIFY_RESIZE" : "ACTIVE"), label)
        #expect(try await cloud.leftovers() == [], label)
        if succeeded {
            let revert = kind == "server.revert_resize"
            #expect(try await act(cloud, id, [revert ? "revertResize" : "confirmResize": nil]).status / 100 == 2, label)
            try await engine.drain()
            try await cloud.cloud.deliver(to: cloud.consumer)
            #expect(try await cloud.server(id)["flavor"]?["original_name"] == (revert ? "m1.tiny" : "m1.large"), label)
        }
        #expect(try await cloud.server(id)["status"] == "ACTIVE", label)
        #expect(try await cloud.leftovers() == [], label)
        try await cloud.call("DELETE", "/v2.1/servers/\(id)")
        try await engine.drain()
        #expect(try await cloud.leftovers() == [], label)
    }
}
