import Database
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import Workflow

/// Attachments of devices that fail when the host has been ordered to plug them in.
@Suite struct FailedAttachmentTests {
    /// Starts an attachment whose step `await` fails, while the host gets no orders.
    private func failToAttach(_ cloud: TestCloud, _ kind: String, to id: String) async throws {
        let definition = try #require(cloud.module.workflows.first { $0.kind == "\(kind).attach" })
        let failing = definition.mapping { step in
            guard step.name == "await" else { return step }
            return WorkflowStep(step.name, deadline: step.deadline, run: { _ in throw StepFailure("No.") }, undo: step.undo)
        }
        cloud.time.whenWaitingTogether(nested: { try await cloud.cloud.beat(cloud.consumer) }) {
            await #expect(throws: ResourceError.self) { try await cloud.engine([failing]).drain(roundsMax: 60) }
        }
        let path = "/v2.1/servers/\(id)/" + (kind == "volume" ? "os-volume_attachments" : "os-interface")
        let body: JSONValue =
            kind == "volume"
            ? ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]] : ["interfaceAttachment": ["port_id": .string(Fixtures.port)]]
        _ = try await cloud.call("POST", path, body)
    }

    /// Whether other servers can have the device.
    private func isFree(_ cloud: TestCloud, _ kind: String) async throws -> Bool {
        try await cloud.database.read { connection in
            kind == "volume"
                ? try connection.query("SELECT status FROM volumes WHERE id = \(Fixtures.volume)")[0].string("status") == "available"
                : try connection.query("SELECT device_id FROM ports WHERE id = \(Fixtures.port)")[0].string("device_id").isEmpty
        }
    }

    /// The guest may have the device until then.
    @Test(arguments: ["volume", "interface"]) func aDeviceIsFreeWhenItsHostHasRemovedIt(kind: String) async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            try await failToAttach(cloud, kind, to: id)
            #expect(try await !isFree(cloud, kind))
            cloud.time.whenWaiting { try await cloud.cloud.work(cloud.consumer) }
            try await cloud.engine().drain()
            #expect(try await isFree(cloud, kind))
            let spec = cloud.cloud.received.last { $0["server"] != nil }?["server"]
            #expect(spec?["volumes"]?.arrayValue?.count == 0 && spec?["ports"]?.arrayValue?.count == 1, "\(spec ?? .null)")
            #expect(try await cloud.leftovers() == [])
        }
    }

    /// Nobody knows what the guest has on a host that does not report.
    @Test(arguments: ["volume", "interface"]) func aDeviceOfALostHostIsFreeByTheOperatorsWord(kind: String) async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            try await failToAttach(cloud, kind, to: id)
            cloud.cloud.silence("host-1")
            cloud.time.whenWaiting {}
            await #expect(throws: ResourceError.self) { try await cloud.engine().drain(roundsMax: 300) }
            #expect(try await !isFree(cloud, kind))
            try await cloud.declare("host-1", isDown: true)
            try await cloud.engine().drain()
            #expect(try await isFree(cloud, kind))
        }
    }
}
