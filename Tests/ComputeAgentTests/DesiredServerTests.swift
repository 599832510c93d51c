import Contracts
import JSON
import Kernel
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

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

    private static func port(_ name: String, _ value: JSONValue) -> JSONValue {
        var port = Fixture.port.objectValue ?? [:]
        port[name] = value
        return .object(port)
    }

    private static let wrong: [(String, JSONValue, String)] = [
        ("power", "sleeping", "server.power"), ("vcpus", 0, "server.vcpus"), ("vcpus", "1", "server.vcpus"),
        ("id", "x", "server.id"), ("ports", .array([port("id", "x")]), "server.ports[0].id"),
        ("ports", .array([port("mac_address", nil)]), "server.ports[0].mac_address"),
        ("volumes", nil, "server.volumes"),
        ("user_data", "%%", "server.user_data"), ("epoch", nil, "server.epoch"),
        ("metadata", .array([]), "server.metadata"),
    ]

    @Test(arguments: wrong)
    func errorsNameTheWrongField(name: String, value: JSONValue, path: String) throws {
        let error = #expect(throws: FormError.self) { try Fixture.server([name: value]) }
        #expect(error?.path == path)
    }

    /// Files and devices of a server are named after its id, those of an image after the image's id.
    @Test(
        "S14: what becomes a name on the host is an id", arguments: ["../../etc", "/etc/passwd", "a/b", ".", "..", "x y", "-rf", "a\u{0}"])
    func s14IdsAreNoPaths(_ text: String) throws {
        let evil = JSONValue.string(text)
        var image = Fixture.document()["image"]?.objectValue ?? [:]
        image["id"] = evil
        var port = Fixture.port.objectValue ?? [:]
        port["id"] = evil
        var network = Fixture.port.objectValue ?? [:]
        network["network_id"] = evil
        for changes in [["id": evil], ["image": .object(image)], ["ports": [.object(port)]], ["ports": [.object(network)]]] as [JSONObject]
        {
            #expect(throws: FormError.self, "\(changes)") { try Fixture.server(changes) }
        }
        // The hash is part of a cached image's name.
        var hash = Fixture.document()["image"]?.objectValue ?? [:]
        hash["os_hash_value"] = evil
        hash["checksum"] = evil
        if let server = try? Fixture.server(["image": .object(hash)]), let desired = server.image {
            let name = ImageCache.key(desired).dropFirst(desired.id.count)
            #expect(name.allSatisfy { $0 == "-" || $0.isHexDigit }, "\(name)")
        }
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
        var record = LocalServerRecord(serverID: Fixture.serverID)
        #expect(record.accept(try Fixture.server(["epoch": 3, "generation": 4])) == .accepted)
        record.pluggedPorts = [.init(id: Fixture.portID, tap: "tapx", networkID: Fixture.networkID)]
        record.lastOperationID = "op"
        record.appliedPower = .running
        let text = String(decoding: record.document.encoded, as: UTF8.self)
        #expect(try LocalServerRecord(document: JSONValue.parse(text)) == record)
    }

    /// Two tenants' networks may have the same addresses; a request identifies the guest only by its network and address.
    @Test("S6 S15: the guest that requests metadata is identified only by network and address") func s15MetadataKnowsTheGuest() throws {
        let directory = MetadataDirectory()
        let other = "22222222-2222-3333-4444-555555555555"
        let network = "cccccccc-0000-0000-0000-000000000002"
        var port = Fixture.port.objectValue ?? [:]
        port["id"] = "bbbbbbbb-0000-0000-0000-000000000002"
        port["network_id"] = .string(network)
        directory.set(Fixture.serverID, try Fixture.server())
        directory.set(other, try Fixture.server(["id": .string(other), "project_id": "q", "ports": [.object(port)]]))
        func asks(_ network: String, _ address: String) -> String? { directory.server(network: network, address: address)?.id }
        #expect(asks(Fixture.networkID, "10.0.0.5") == Fixture.serverID)
        #expect(asks(network, "10.0.0.5") == other)
        #expect(asks(network, "10.0.0.6") == nil)
        #expect(asks("cccccccc-0000-0000-0000-000000000003", "10.0.0.5") == nil)
        directory.set(other, nil)
        #expect(asks(network, "10.0.0.5") == nil)
        #expect(asks(Fixture.networkID, "10.0.0.5") == Fixture.serverID)
    }

    @Test func oldVoicesAreRefused() throws {
        var record = LocalServerRecord(serverID: Fixture.serverID)
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

    /// A report is about a generation. One that cannot be read is not reported as generation 0.
    @Test func unreadableMessagesAreReported() throws {
        let error = FormError(path: "server.power", problem: "is \"frozen\"")
        func report(_ changes: JSONObject, record: LocalServerRecord? = nil) throws -> ObservedReport? {
            var document = try #require(Fixture.document().objectValue)
            for member in changes.members { document[member.name] = member.value }
            return UnreadableServer(document: .object(document), error: error).report(host: "h", record: record)
        }
        let whole = try #require(try report(["generation": 4, "epoch": 3]))
        #expect(whole.serverID == Fixture.serverID && whole.generation == 4 && whole.epoch == 3 && whole.power == .absent)
        #expect(whole.state == .failed && whole.permanent && whole.error?.contains("frozen") == true)
        for generation: JSONValue in [nil, "4", 0, -1] { #expect(try report(["generation": generation, "epoch": 3]) == nil) }
        #expect(try report(["id": "x", "generation": 4, "epoch": 3]) == nil)
        #expect(try report(["generation": 4, "epoch": "3"]) == nil)
        // The server that the host has runs on.
        var record = LocalServerRecord(serverID: Fixture.serverID)
        (record.highestEpoch, record.appliedPower) = (7, .running)
        let known = try #require(try report(["generation": 4, "epoch": nil], record: record))
        #expect(known.epoch == 7 && known.power == .running)
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
        #expect(unreadable.map(\.document) == [["id": "broken"]])
        #expect(throws: FormError.self) { try PlaneMessage.decode(["type": "destroy_all"]) }
    }
}
