import Database
import JSON
import Kernel
import Synchronization
import TestKit
import Testing
import Workflow

@testable import ComputeService

/// Several requests compete for one port or volume: a workflow must not revert or repeat another one's work.
@Suite struct PortClaimTests {
    private struct Owner: Equatable {
        var server: String?
        var state: String?
        var device: String
    }

    private static func owner(_ cloud: TestCloud) async throws -> Owner {
        try await cloud.database.read { connection in
            let row = try connection.query("SELECT server_id, state FROM server_interfaces WHERE port_id = \(Fixtures.port)").first
            let port = try connection.query("SELECT device_id FROM ports WHERE id = \(Fixtures.port)")[0]
            return Owner(server: try row?.string("server_id"), state: try row?.string("state"), device: try port.string("device_id"))
        }
    }

    @Test func anAcceptedAttachmentClaimsItsPort() async throws {
        try await TestCloud.with { cloud in
            let (first, second) = (try await cloud.createServer(), try await cloud.createServer())
            let body: JSONValue = ["interfaceAttachment": ["port_id": .string(Fixtures.port)]]
            let statuses = Mutex<[Int]?>(nil)
            // The first request is accepted, and its workflow has not begun.
            cloud.time.whenWaiting {
                let isFirst = statuses.withLock { list in
                    defer { list = list ?? [] }
                    return list == nil
                }
                guard isFirst else { return try await cloud.cloud.work(cloud.consumer) }
                let attach = try await cloud.call("POST", "/v2.1/servers/\(second)/os-interface", body)
                let again = try await cloud.call("POST", "/v2.1/servers/\(first)/os-interface", body)
                let create = try await cloud.call(
                    "POST", "/v2.1/servers", TestCloud.body(["networks": [["port": .string(Fixtures.port)]]]))
                let detach = try await cloud.call("DELETE", "/v2.1/servers/\(first)/os-interface/\(Fixtures.port)")
                statuses.withLock { $0 = [attach.status, again.status, create.status, detach.status] }
                cloud.workWhileWaiting()
            }
            let answer = try await cloud.call("POST", "/v2.1/servers/\(first)/os-interface", body)
            #expect(answer.status == 200, "\(answer.json)")
            #expect(statuses.withLock { $0 } == [409, 409, 409, 404])
            try await cloud.engine().drain()
            #expect(try await PortClaimTests.owner(cloud) == Owner(server: first, state: "attached", device: first))
        }
    }

    /// A request that an older version accepted has not claimed its port.
    @Test func anAttachmentWithoutAClaimLeavesThePortToItsServer() async throws {
        try await TestCloud.with { cloud in
            let other = try await cloud.createServer(["networks": [["port": .string(Fixtures.port)]]])
            let before = try await PortClaimTests.owner(cloud)
            #expect(before == Owner(server: other, state: "attached", device: other))
            let server = try await cloud.createServer()
            let definition = InterfaceWorkflows(cloud.compute).attach
            let frame = InterfaceWorkflows.Attachment(server: server, port: Fixtures.port)
            let workflow = try await PortClaimTests.start(cloud, definition, frame)
            try await cloud.engine().drain()
            let state = try await cloud.database.read {
                try $0.query("SELECT state FROM workflows WHERE id = \(workflow)")[0].string("state")
            }
            #expect(state == "failed")
            #expect(try await PortClaimTests.owner(cloud) == before)
        }
    }

    @Test func aRepeatedDetachmentLeavesThePortToItsNextServer() async throws {
        try await TestCloud.with { cloud in
            let server = try await cloud.createServer()
            let next = try await cloud.createServer(["networks": [["port": .string(Fixtures.port)]]])
            let before = try await PortClaimTests.owner(cloud)
            // The process died after it had released the port and deleted the interface, before it recorded that.
            let frame = InterfaceWorkflows.Detachment(server: server, port: Fixtures.port, created: false, generation: 1)
            _ = try await PortClaimTests.start(cloud, InterfaceWorkflows(cloud.compute).detach, frame)
            try await cloud.engine().drain()
            #expect(before == Owner(server: next, state: "attached", device: next))
            #expect(try await PortClaimTests.owner(cloud) == before)
        }
    }

    /// The process died after it had released the port and deleted the interface, before it recorded that. The port was attached to the
    /// same server again.
    @Test(arguments: ["attaching", "attached", "detaching"])
    func aRepeatedDetachmentLeavesThePortToALaterAttachmentOfTheServer(state: String) async throws {
        try await TestCloud.with { cloud in
            let server = try await cloud.createServer()
            cloud.workWhileWaiting()
            let body: JSONValue = ["interfaceAttachment": ["port_id": .string(Fixtures.port)]]
            let answer = try await cloud.call("POST", "/v2.1/servers/\(server)/os-interface", body)
            #expect(answer.status == 200, "\(answer.json)")
            try await cloud.engine().drain()
            try await cloud.database.write { connection in
                try connection.execute(
                    """
                    UPDATE server_interfaces SET state = \(state), detach_operation = CASE WHEN \(state) = 'detaching' THEN 'another' END
                    WHERE port_id = \(Fixtures.port)
                    """)
            }
            let before = try await PortClaimTests.owner(cloud)
            #expect(before == Owner(server: server, state: state, device: server))
            let frame = InterfaceWorkflows.Detachment(server: server, port: Fixtures.port, created: false, generation: 1)
            _ = try await PortClaimTests.start(cloud, InterfaceWorkflows(cloud.compute).detach, frame)
            try await cloud.engine().drain()
            #expect(try await PortClaimTests.owner(cloud) == before)
        }
    }

    /// The same for the undo of an attachment.
    @Test func aRepeatedUndoLeavesThePortToALaterAttachmentOfTheServer() async throws {
        try await TestCloud.with { cloud in
            let server = try await cloud.createServer()
            cloud.workWhileWaiting()
            let body: JSONValue = ["interfaceAttachment": ["port_id": .string(Fixtures.port)]]
            #expect(try await cloud.call("POST", "/v2.1/servers/\(server)/os-interface", body).status == 200)
            try await cloud.engine().drain()
            let before = try await PortClaimTests.owner(cloud)
            let frame = InterfaceWorkflows.Attachment(server: server, port: Fixtures.port)
            _ = try await PortClaimTests.start(cloud, InterfaceWorkflows(cloud.compute).attach, frame)
            try await cloud.engine().drain()
            #expect(before == Owner(server: server, state: "attached", device: server))
            #expect(try await PortClaimTests.owner(cloud) == before)
        }
    }

    /// Rows that an older release marked have no operation.
    @Test func aDetachmentThatAnOlderReleaseAcceptedEnds() async throws {
        try await TestCloud.with { cloud in
            let server = try await cloud.createServer(["networks": [["port": .string(Fixtures.port)]]])
            try await cloud.database.write {
                try $0.execute("UPDATE server_interfaces SET state = 'detaching' WHERE port_id = \(Fixtures.port)")
            }
            let frame = InterfaceWorkflows.Detachment(server: server, port: Fixtures.port, created: false, generation: 1)
            _ = try await PortClaimTests.start(cloud, InterfaceWorkflows(cloud.compute).detach, frame)
            try await cloud.engine().drain()
            #expect(try await PortClaimTests.owner(cloud) == Owner(server: nil, state: nil, device: ""))
        }
    }

    /// A router takes the port between the acceptance of a request and its workflow: before Compute looks, or right after.
    @Test(arguments: [false, true]) func aPortThatARouterTookIsRefused(late: Bool) async throws {
        try await TestCloud.with { cloud in
            let server = try await cloud.createServer()
            let router = "99999999-9999-4999-8999-999999999999"
            let taken = Mutex(false)
            @Sendable func take() async throws {
                let isFirst = taken.withLock { taken in
                    defer { taken = true }
                    return !taken
                }
                guard isFirst else { return }
                try await cloud.database.write { connection in
                    try connection.execute(
                        """
                        UPDATE ports SET device_id = \(router), device_owner = 'network:router_interface' WHERE id = \(Fixtures.port)
                        """)
                }
            }
            if late { cloud.cloud.beforePortUpdate { try await take() } }
            cloud.time.whenWaiting {
                if !late { try await take() }
                // It is not listed before it is attached.
                let listed = try await cloud.call("GET", "/v2.1/servers/\(server)/os-interface").json["interfaceAttachments"]
                #expect(listed?.arrayValue?.count == 1)
                cloud.workWhileWaiting()
            }
            let body: JSONValue = ["interfaceAttachment": ["port_id": .string(Fixtures.port)]]
            let answer = try await cloud.call("POST", "/v2.1/servers/\(server)/os-interface", body)
            #expect((400..<500).contains(answer.status), "\(answer.json)")
            #expect("\(answer.json)".contains("network:router_interface"), "\(answer.json)")
            try await cloud.engine().drain()
            #expect(try await PortClaimTests.owner(cloud) == Owner(server: nil, state: nil, device: router))
            let waiting = try await cloud.database.read { try $0.query("SELECT 1 AS one FROM workflows WHERE finished_at IS NULL").count }
            #expect(waiting == 0)
            #expect(try await cloud.server(server)["status"] == "ACTIVE")
            #expect(
                try await cloud.call("GET", "/v2.1/servers/\(server)/os-interface").json["interfaceAttachments"]?.arrayValue?.count == 1)
        }
    }

    /// A build or delete of a server does not wait for a port that a router has taken.
    @Test func serversWithATakenPortAreDeleted() async throws {
        try await TestCloud.with { cloud in
            let answer = try await cloud.call(
                "POST", "/v2.1/servers", TestCloud.body(["networks": [["port": .string(Fixtures.port)]]]))
            let server = try #require(answer.json["server"]?["id"]?.stringValue)
            let router = "99999999-9999-4999-8999-999999999999"
            try await cloud.database.write { connection in
                try connection.execute(
                    "UPDATE ports SET device_id = \(router), device_owner = 'network:router_interface' WHERE id = \(Fixtures.port)")
            }
            try await cloud.engine().drain()
            #expect(try await cloud.server(server)["status"] == "ERROR")
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(server)").status == 204)
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(server)").status == 404)
            #expect(try await PortClaimTests.owner(cloud) == Owner(server: nil, state: nil, device: router))
        }
    }

    @Test func aRepeatedDetachmentLeavesTheVolumeToTheNextAttachment() async throws {
        try await TestCloud.with { cloud in
            let server = try await cloud.createServer()
            cloud.workWhileWaiting()
            let path = "/v2.1/servers/\(server)/os-volume_attachments"
            let answer = try await cloud.call("POST", path, ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]])
            #expect(answer.status == 200, "\(answer.json)")
            try await cloud.engine().drain()
            let frame = VolumeAttachmentWorkflows.Detachment(server: server, volume: Fixtures.volume, generation: 1)
            _ = try await PortClaimTests.start(cloud, VolumeAttachmentWorkflows(cloud.compute).detach, frame)
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", path).json["volumeAttachments"]?.arrayValue?.count == 1)
            let attachments = try await cloud.database.read {
                try $0.query("SELECT id FROM volume_attachments WHERE volume_id = \(Fixtures.volume)").count
            }
            #expect(attachments == 1)
        }
    }

    private static func start<Frame: Codable & Sendable>(
        _ cloud: TestCloud, _ definition: Workflow<Frame>, _ frame: Frame
    ) async throws -> String {
        let ambient = cloud.compute.ambient
        return try await cloud.database.write { connection in
            try Workflows.start(
                connection, definition, subject: ambient.newUUID().description, frame: frame, requestID: "req-test", ambient: ambient
            ).text
        }
    }
}
