@testable import BareMetalService
import BareMetalCore
import Cryptography
import Database
import JSON
import Kernel
import Schema
import ServiceCatalog
import ServiceKit
import TestKit
import Testing
import WebAPI
import Workflow

/// The Bare Metal API with a private database.
struct NodeFixture: Sendable {
    let module: ServiceModule
    let database: Database
    let time: ManualTime
    let options: BareMetalOptions
    var api: API { module.api }

    static func with(hardware: [HardwareType] = HardwareType.all, _ body: (NodeFixture) async throws -> Void) async throws {
        try await TestDatabase.with { test in
            let time = ManualTime()
            let surroundings = ServiceSurroundings.test(
                test.database, .bareMetal, ambient: Ambient(time: time, random: SeededRandom(seed: 11)))
            let keys = try CredentialKeys(file: CredentialKeys.generate(keyID: "n1", random: [UInt8](repeating: 5, count: 32)))
            let options = BareMetalOptions(
                credentialKeys: keys, hardwareTypes: hardware,
                agents: try AgentRules(
                    networks: ["127.0.0.0/8"], requiresTLS: false, heartbeatTimeout: .seconds(300), callbackTimeout: .seconds(1800)),
                deployISO: "http://images.example/ramdisk.iso")
            try await body(
                NodeFixture(
                    module: try BareMetalModule.make(surroundings, options), database: test.database, time: time, options: options))
        }
    }

    struct Answer: Sendable {
        let status: Int
        let headers: Headers
        let json: JSONValue

        /// Ironic's errors are a JSON document inside a string.
        var fault: String {
            guard let text = json["error_message"]?.stringValue, let document = try? JSONValue.parse(Array(text.utf8)) else { return "" }
            return document["faultstring"]?.stringValue ?? ""
        }
    }

    @discardableResult
    func call(
        _ method: String, _ target: String, _ body: JSONValue? = nil, as token: String = "admin", version: String = "1.96"
    ) async throws -> Answer {
        time.advance(by: .milliseconds(1))
        let response = await api.respond(
            to: try IncomingRequest(
                method, target, headers: ["x-auth-token": token, "x-openstack-ironic-api-version": version], body: body?.encoded ?? []))
        let bytes = response.bytes ?? []
        return Answer(status: response.status, headers: response.headers, json: bytes.isEmpty ? .null : try JSONValue.parse(bytes))
    }

    var fleet: HardwareFleet { BareMetal(module.surroundings, options).hardware }
    func pollPower() async throws { try await BareMetalModule.pollPower(module.surroundings, options) }

    /// Enrolls a node.
    func enroll(_ name: String, _ changes: JSONObject = [:]) async throws -> String {
        var body: JSONObject = ["name": .string(name), "driver": "fake-hardware"]
        for member in changes.members { body[member.name] = member.value }
        let answer = try await call("POST", "/v1/nodes", .object(body))
        #expect(answer.status == 201, "\(answer.json)")
        return try #require(answer.json["uuid"]?.stringValue, "\(answer.json)")
    }

    /// The node as drivers get it.
    func record(_ id: String) async throws -> Node {
        try #require(try await database.read { try NodeStore.node($0, id) })
    }

    func node(_ ident: String) async throws -> JSONValue { try await call("GET", "/v1/nodes/\(ident)").json }
    func state(_ ident: String) async throws -> String? { try await node(ident)["provision_state"]?.stringValue }

    /// Requests a provision state.
    @discardableResult
    func provision(_ ident: String, _ target: String, _ more: JSONObject = [:], as token: String = "admin") async throws -> Answer {
        var body: JSONObject = ["target": .string(target)]
        for member in more.members { body[member.name] = member.value }
        return try await call("PUT", "/v1/nodes/\(ident)/states/provision", .object(body), as: token)
    }

    /// Runs all workflows to their end.
    func settle(_ changed: [WorkflowDefinition] = []) async throws { try await module.engine(replacing: changed).drain() }

    /// Runs workflows that may wait for a request.
    func work() async {
        // It throws after its maximum number of rounds, which happens while a node is on hold.
        try? await module.engine().drain(roundsMax: 30)
    }

    /// A node that is available to tenants.
    func available(_ name: String, _ changes: JSONObject = [:]) async throws -> String {
        let id = try await enroll(name, changes)
        for target in ["manage", "provide"] {
            #expect(try await provision(id, target).status == 202)
            try await settle()
        }
        #expect(try await state(id) == "available")
        return id
    }

    func patch(_ ident: String, _ op: String, _ path: String, _ value: JSONValue = .null, as token: String = "admin") async throws -> Answer
    {
        var operation: JSONObject = ["op": .string(op), "path": .string(path)]
        if op != "remove" { operation["value"] = value }
        return try await call("PATCH", "/v1/nodes/\(ident)", [.object(operation)], as: token)
    }
}
