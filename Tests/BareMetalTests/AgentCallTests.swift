import BareMetalCore
import Cryptography
import Database
import JSON
import Kernel
import Synchronization
import TestKit
import Testing
import WebAPI

@testable import BareMetalService

/// Look-up and heartbeat of agents.
@Suite struct AgentCallTests {
    private static let address = "52:54:00:00:00:01"

    /// A node that waits for its agent, which the test plays.
    private static func with(_ body: (NodeFixture, _ node: String, EmulatedAgent) async throws -> Void) async throws {
        let agent = try EmulatedAgent()
        defer { agent.stop() }
        try await NodeFixture.with { cloud in
            let id = try await cloud.enroll("one", ["deploy_interface": "direct", "driver_info": ["fake_failing": "agent"]])
            #expect(try await cloud.call("POST", "/v1/ports", ["node_uuid": .string(id), "address": .string(address)]).status == 201)
            #expect(try await cloud.provision(id, "manage").status == 202)
            try await cloud.settle()
            try await body(cloud, id, agent)
        }
    }

    private static func waiting(_ cloud: NodeFixture, _ id: String) async throws {
        #expect(try await cloud.provision(id, "provide").status == 202)
        await cloud.work()
        #expect(try await cloud.state(id) == "clean wait")
    }

    @Test func anAgentFindsItsNode() async throws {
        try await AgentCallTests.with { cloud, id, agent in
            #expect(try await agent.lookUp(cloud, "addresses=" + AgentCallTests.address).status == 404)
            try await AgentCallTests.waiting(cloud, id)
            // Without a token of Identity, and with addresses of other kinds of interfaces.
            let answer = try await agent.lookUp(cloud, "addresses=80:00:02:48:fe:80:00:00,52:54:00:00:00:99,52-54-00-00-00-01")
            #expect(answer.status == 200 && answer.json["node"]?["uuid"] == .string(id), "\(answer.json)")
            #expect(answer.json["config"]?["heartbeat_timeout"] == 300)
            let token = answer.json["config"]?["agent_token"]?.stringValue ?? ""
            #expect(token.utf8.count == 64)
            #expect(
                try await cloud.call("GET", "/v1/lookup?node_uuid=\(id)", as: "", version: "1.61").json["config"]?["agent_token"] == nil)
            for query in ["", "?addresses=", "?addresses=x", "?node_uuid=x", "?node=\(id)"] {
                #expect(try await cloud.call("GET", "/v1/lookup" + query, as: "").status == 400, "\(query)")
            }
            #expect(try await cloud.call("GET", "/v1/lookup?addresses=52:54:00:00:00:99", as: "").status == 404)
            #expect(try await cloud.call("GET", "/v1/lookup?node_uuid=\(id)", as: "", version: "1.21").status == 404)
        }
    }

    @Test("S22: the token of an agent is handed out once, and another agent cannot take the node over")
    func s22AgentsCannotBeTakenOver() async throws {
        try await AgentCallTests.with { cloud, id, agent in
            try await AgentCallTests.waiting(cloud, id)
            #expect(try await agent.lookUp(cloud, "node_uuid=\(id)").status == 200)
            let thief = try EmulatedAgent()
            defer { thief.stop() }
            let second = try await thief.lookUp(cloud, "node_uuid=\(id)")
            #expect(second.json["config"]?["agent_token"] == "******", "\(second.json)")
            for token in [.null, "******", "x", .string(String(repeating: "0", count: 64))] as [JSONValue] {
                let answer = try await thief.call(cloud, ["agent_token": token])
                #expect(answer.status == 400 && answer.fault.contains("token"), "\(answer.json)")
            }
            #expect(try await agent.call(cloud).status == 202)
            // Neither does the agent move.
            let token = agent.state.withLock { $0.token }
            let moved = try await thief.call(cloud, ["agent_token": JSONValue(token)])
            #expect(moved.status == 400 && moved.fault.contains("callback_url"), "\(moved.json)")
            #expect(try await agent.call(cloud).status == 202)
            // When its work is done, it may do nothing any more.
            try await cloud.settle()
            #expect(try await cloud.state(id) == "available")
            #expect(try await agent.call(cloud).status == 404)
        }
    }

    @Test("S17: tokens of agents are stored sealed, and are in no record")
    func s17TokensAreSealed() async throws {
        try await AgentCallTests.with { cloud, id, agent in
            try await AgentCallTests.waiting(cloud, id)
            try await agent.start(cloud, "node_uuid=\(id)")
            let token = try #require(agent.state.withLock { $0.token })
            let stored = try await cloud.database.read { connection in
                try ["bare_metal_agents", "bare_metal_nodes", "bare_metal_node_history", "workflows", "audit_records"].map { table in
                    try connection.query("SELECT coalesce(string_agg(r::text, ' '), '') AS words FROM \(raw: table) r")[0].string("words")
                }
            }
            for text in stored { #expect(!text.contains(token) && !text.contains(Hexadecimal.encode(Array(token.utf8)))) }
            #expect(try await cloud.node(id).description.contains(token) == false)
        }
    }

    @Test func callsAreChecked() async throws {
        try await AgentCallTests.with { cloud, id, agent in
            try await AgentCallTests.waiting(cloud, id)
            try await agent.lookUp(cloud, "node_uuid=\(id)")
            let refused: [(String, JSONValue)] = [
                ("callback_url", "ftp://127.0.0.1:9999"), ("callback_url", "https://192.0.2.7:9999"),
                ("callback_url", "https://agent.example:9999"),
                ("callback_url", "https://127.0.0.1:9999/x"), ("callback_url", "https://127.0.0.1:0"),
                ("callback_url", "https://u:p@127.0.0.1"),
                ("callback_url", .null), ("agent_version", .null), ("agent_version", "new"), ("agent_version", "1.0;x"),
                ("agent_verify_ca", "x"), ("agent_verify_ca", "-----BEGIN CERTIFICATE-----\n\u{1}\n-----END CERTIFICATE-----"),
                ("agent_status", "end"), ("nonsense", 1),
            ]
            for (name, value) in refused {
                let answer = try await agent.call(cloud, [name: value])
                #expect(answer.status == 400, "\(name) = \(value): \(answer.json)")
            }
            #expect(try await cloud.call("POST", "/v1/heartbeat/absent", ["callback_url": "http://127.0.0.1:1"], as: "").status == 400)
            let body: JSONValue = ["callback_url": "http://127.0.0.1:1", "agent_version": "1.0", "agent_token": "x"]
            #expect(try await cloud.call("POST", "/v1/heartbeat/absent", body, as: "").status == 404)
            #expect(try await agent.call(cloud).status == 202)
        }
    }

    @Test("S13: agents are where the operator's networks are, and use TLS")
    func s13AddressesOfAgentsAreChecked() throws {
        let usual = try AgentRules(heartbeatTimeout: .seconds(300), callbackTimeout: .seconds(1800))
        #expect(try usual.callbackURL("https://192.0.2.7:9999/") == "https://192.0.2.7:9999")
        #expect(try usual.callbackURL("https://[2001:db8::7]:9999") == "https://[2001:db8::7]:9999")
        for url in [
            "http://192.0.2.7:9999", "https://127.0.0.1:9999", "https://169.254.169.254", "https://[::1]:1", "https://[fe80::1]:1",
            "https://0.0.0.0:1", "https://224.0.0.1", "https://localhost:1", "https://192.0.2.7:x", "https://192.0.2.7:70000",
            "https://192.0.2.7/v1", "https://192.0.2.7?x", "https://a@192.0.2.7", "https://192.0.2.7:1:2", "https://[192.0.2.7", "https://",
            "https://2001:db8::7",
        ] {
            #expect(throws: ResourceError.self, "\(url)") { try usual.callbackURL(url) }
        }
        let narrow = try AgentRules(networks: ["198.51.100.0/24"], heartbeatTimeout: .seconds(300), callbackTimeout: .seconds(1800))
        #expect(throws: ResourceError.self) { try narrow.callbackURL("https://192.0.2.7:9999") }
        #expect(try narrow.callbackURL("https://198.51.100.7:9999") == "https://198.51.100.7:9999")
        for networks in [["x"], ["198.51.100.0/33"]] {
            #expect(throws: ResourceError.self) {
                try AgentRules(networks: networks, heartbeatTimeout: .seconds(300), callbackTimeout: .seconds(1800))
            }
        }
        #expect(throws: ResourceError.self) { try AgentRules(heartbeatTimeout: .seconds(1), callbackTimeout: .seconds(1800)) }
        #expect(throws: ResourceError.self) { try AgentRules(heartbeatTimeout: .seconds(300), callbackTimeout: .seconds(1)) }
    }

    @Test("S24: images without a strong checksum are not deployed")
    func s24ImagesNeedAChecksum() throws {
        let (sha256, sha512) = (String(repeating: "a", count: 64), String(repeating: "B", count: 128))
        let good: JSONObject = [
            "image_source": "https://images.example/debian.qcow2", "image_os_hash_algo": "sha256", "image_os_hash_value": .string(sha256),
        ]
        func image(_ changes: JSONObject) throws -> DeployImage {
            var info = good
            for member in changes.members { info[member.name] = member.value == .null ? nil : member.value }
            return try DeployImage(info)
        }
        #expect(try image(["image_disk_format": "raw"]).document(node: UUID128(high: 1, low: 2))["stream_raw_images"] == true)
        #expect(try image([:]).hashValue == sha256)
        let plain: JSONObject = ["image_os_hash_algo": .null, "image_os_hash_value": .null]
        var both = plain
        both["image_checksum"] = .string(sha512)
        #expect(try image(both).hashAlgorithm == "sha512" && image(both).hashValue == sha512.lowercased())
        var weak = plain
        weak["image_checksum"] = .string(String(repeating: "a", count: 32))
        let refused: [JSONObject] = [
            plain, weak, ["image_os_hash_algo": "md5"], ["image_os_hash_value": .null], ["image_os_hash_algo": .null],
            ["image_os_hash_value": .string(String(repeating: "x", count: 64))], ["image_os_hash_algo": "sha512"],
            ["image_source": .null], ["image_source": "5e8f3a1c-0000-4000-8000-000000000001"], ["image_source": "file:///etc/shadow"],
            ["image_disk_format": "vmdk"], ["image_type": "partition"], ["kernel": "http://h/k"], ["image_source": 7],
        ]
        for changes in refused { #expect(throws: ResourceError.self, "\(changes)") { try image(changes) } }
    }

    @Test func rootDeviceHintsAreChecked() throws {
        for good in [nil, .null, ["serial": "A1"], ["size": 480, "rotational": false], ["size": ">= 100"], ["name": "s== /dev/sda"]]
            as [JSONValue?]
        {
            try RootDevice.require(good)
        }
        for bad in ["sda", ["disk": "sda"], ["serial": 7], ["size": -1], ["serial": ""], ["wwn": true]] as [JSONValue] {
            #expect(throws: ResourceError.self, "\(bad)") { try RootDevice.require(bad) }
        }
    }
}
