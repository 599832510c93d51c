import JSON
import Kernel
import Testing

@testable import ComputeAgentCore

@Suite struct DesiredServerTests {
    @Test func readsEverything() throws {
        let server = try Fixture.server(["volumes": [Fixture.volume]])
        #expect(server.power == .running)
        #expect(server.userData == Array("#!/bin/sh\n".utf8))
        #expect(server.ports[0].tapName == "tapbbbbbbbb-00")
        #expect(server.ports[0].tapName.utf8.count < 16)
        #expect(server.ports[0].metadataPort?.fixedIPs[0].cidr.prefixLength == 24)
        #expect(server.volumes[0].connection == .file(path: "/srv/volumes/one.raw", format: "raw", readOnly: false))
        #expect(server.hasLocalRoot)
    }

    private static let wrong: [(String, JSONValue, String)] = [
        ("power", "sleeping", "server.power"), ("vcpus", 0, "server.vcpus"), ("vcpus", "1", "server.vcpus"),
        ("id", "x", "server.id"), ("ports", .array([.object(["id": "x"])]), "server.ports[0].id"),
        ("user_data", "%%", "server.user_data"), ("epoch", nil, "server.epoch"),
        ("metadata", .array([]), "server.metadata"),
    ]

    @Test(arguments: wrong)
    func namesWhatIsWrong(name: String, value: JSONValue, path: String) throws {
        let error = #expect(throws: FormError.self) { try Fixture.server([name: value]) }
        #expect(error?.path == path)
    }

    @Test func refusesDriversItDoesNotKnow() throws {
        guard case .object(var volume) = Fixture.volume else { return }
        volume["connection"] = ["driver": "rbd"]
        #expect(throws: FormError.self) { try Fixture.server(["volumes": [.object(volume)]]) }
    }

    @Test func base64RoundTrip() {
        let random = SeededRandom(seed: 7)
        for length in 0..<64 {
            let bytes = random.bytes(length)
            #expect(Base64.decode(Base64.encode(bytes)) == bytes)
        }
        #expect(Base64.decode("abc") == nil)
        #expect(Base64.decode("a=bc") == nil)
    }

    @Test func recordSurvivesItsFile() throws {
        var record = ServerRecord(serverID: Fixture.serverID)
        #expect(record.accept(try Fixture.server(["epoch": 3, "generation": 4])) == .accepted)
        record.pluggedPorts = [.init(id: Fixture.portID, tap: "tapx", networkID: Fixture.networkID)]
        record.lastOperationID = "op"
        record.appliedPower = .running
        let text = String(decoding: record.document.encoded, as: UTF8.self)
        #expect(try ServerRecord(document: JSONValue.parse(text)) == record)
    }

    @Test func oldVoicesAreRefused() throws {
        var record = ServerRecord(serverID: Fixture.serverID)
        #expect(record.accept(try Fixture.server(["epoch": 3, "generation": 4])) == .accepted)
        #expect(record.accept(try Fixture.server(["epoch": 2, "generation": 9])) == .staleEpoch(highest: 3))
        #expect(record.accept(try Fixture.server(["epoch": 4, "generation": 3])) == .staleGeneration(current: 4))
        #expect(record.accept(try Fixture.server(["epoch": 3, "generation": 4])) == .accepted)
        #expect(record.accept(try Fixture.server(["epoch": 3, "generation": 5, "power": "absent"])) == .accepted)
        record.goneSince = Timestamp(seconds: 1)
        #expect(record.accept(try Fixture.server(["epoch": 3, "generation": 4])) == .staleGeneration(current: 5))
        #expect(record.accept(try Fixture.server(["epoch": 3, "generation": 5])) == .staleGeneration(current: 5))
        #expect(record.accept(try Fixture.server(["epoch": 3, "generation": 6])) == .accepted)
    }

    @Test func readsTheMessages() throws {
        let sync: JSONValue = [
            "type": "sync", "host": "h", "servers": [Fixture.document(), ["id": "broken"]],
        ]
        guard case .sync(let servers, let unreadable) = try PlaneMessage.decode(sync) else {
            Issue.record("not a sync")
            return
        }
        #expect(servers.count == 1)
        #expect(unreadable.count == 1)
        #expect(throws: FormError.self) { try PlaneMessage.decode(["type": "destroy_all"]) }
    }
}
