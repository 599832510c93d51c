import ComputeService
import Database
import JSON
import Kernel
import ServiceKit
import Synchronization
import TestKit
import Testing
import WebAPI
import Workflow

/// Interfaces and volumes of running servers.
@Suite struct AttachTests {
    @Test func anInterfaceComesAndGoes() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.workWhileWaiting()
            let answer = try await cloud.call(
                "POST", "/v2.1/servers/\(id)/os-interface", ["interfaceAttachment": ["net_id": .string(Fixtures.network)]])
            #expect(answer.status == 200, "\(answer.json)")
            let port = try #require(answer.json["interfaceAttachment"]?["port_id"]?.stringValue)
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)/os-interface").json["interfaceAttachments"]?.arrayValue?.count == 2)
            #expect(try await cloud.server(id)["addresses"]?["net"]?.arrayValue?.count == 2)
            let given = try await cloud.call(
                "POST", "/v2.1/servers/\(id)/os-interface", ["interfaceAttachment": ["port_id": .string(Fixtures.port)]])
            #expect(given.status == 200, "\(given.json)")
            #expect(
                try await cloud.call(
                    "POST", "/v2.1/servers/\(id)/os-interface", ["interfaceAttachment": ["port_id": .string(Fixtures.port)]]
                ).status == 409)
            for detached in [port, Fixtures.port] {
                #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)/os-interface/\(detached)").status == 202)
            }
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)/os-interface").json["interfaceAttachments"]?.arrayValue?.count == 1)
            let left = try await cloud.database.read { try $0.query("SELECT id FROM ports WHERE device_id = \(id)").count }
            #expect(left == 1)
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)/os-interface/\(port)").status == 404)
            let actions = try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions").json["instanceActions"]?.arrayValue ?? []
            #expect(actions.count == 5)
        }
    }

    @Test func aVolumeComesAndGoes() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.workWhileWaiting()
            let body: JSONValue = ["volumeAttachment": ["volumeId": .string(Fixtures.volume), "device": nil]]
            let answer = try await cloud.call("POST", "/v2.1/servers/\(id)/os-volume_attachments", body)
            #expect(answer.status == 200, "\(answer.json)")
            #expect(answer.json["volumeAttachment"]?["device"] == "/dev/vdb")
            #expect(answer.json["volumeAttachment"]?["attachment_id"] != .null)
            try await cloud.engine().drain()
            #expect(
                try await cloud.server(id)["os-extended-volumes:volumes_attached"]?.arrayValue?.first?["id"] == .string(Fixtures.volume))
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/os-volume_attachments", body).status == 400)
            let old = try await cloud.call("GET", "/v2.1/servers/\(id)/os-volume_attachments/\(Fixtures.volume)", version: "2.1")
            #expect(old.json["volumeAttachment"]?["id"] == .string(Fixtures.volume))
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)/os-volume_attachments/\(Fixtures.volume)").status == 202)
            try await cloud.engine().drain()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)/os-volume_attachments").json["volumeAttachments"] == [])
            let status = try await cloud.database.read {
                try $0.query("SELECT status FROM volumes WHERE id = \(Fixtures.volume)")[0].string("status")
            }
            #expect(status == "available")
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func attachUnderEveryDisturbance() async throws {
        try await TestCloud.with { cloud in
            for kind in ["volume.attach", "interface.attach", "volume.detach", "interface.detach"] {
                let definition = try #require(cloud.module.workflows.first { $0.kind == kind })
                for variant in WorkflowChecks(definition).variants { try await run(kind, variant, cloud) }
            }
        }
    }

    private func run(_ kind: String, _ variant: WorkflowChecks.Variant, _ cloud: TestCloud) async throws {
        let label = Comment(rawValue: "\(kind) \(variant.name)")
        cloud.workWhileWaiting()
        let id = try await cloud.createServer()
        cloud.workWhileWaiting([variant.definition])
        let isVolume = kind.hasPrefix("volume")
        let path = "/v2.1/servers/\(id)/" + (isVolume ? "os-volume_attachments" : "os-interface")
        let body: JSONValue =
            isVolume
            ? ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]]
            : ["interfaceAttachment": ["net_id": .string(Fixtures.network)]]
        let answer = try await cloud.call("POST", path, body)
        if kind.hasSuffix("detach") {
            let item = isVolume ? Fixtures.volume : answer.json["interfaceAttachment"]?["port_id"]?.stringValue ?? ""
            try await cloud.engine([variant.definition]).drain()
            #expect(try await cloud.call("DELETE", "\(path)/\(item)").status == 202, label)
        }
        try await cloud.engine([variant.definition]).drain()
        let list = try await cloud.call("GET", path).json
        let count = (list["volumeAttachments"] ?? list["interfaceAttachments"])?.arrayValue?.count ?? -1
        let attached = variant.succeeds && kind.hasSuffix("attach")
        #expect(count == (isVolume ? 0 : 1) + (attached ? 1 : 0), label)
        #expect(try await cloud.server(id)["status"] == "ACTIVE", label)
        try await cloud.call("DELETE", "/v2.1/servers/\(id)")
        try await cloud.engine().drain()
        #expect(try await cloud.leftovers() == [], label)
    }
}
