import BareMetalCore
import JSON
import Kernel
import Synchronization
import TestKit
import Testing
import WebAPI

/// An agent in a ramdisk, as ironic-python-agent behaves: it looks its node up, calls, and obeys commands over HTTP.
final class EmulatedAgent: Sendable {
    struct State {
        /// What the look-up has given; nil before it.
        var token: String?
        var node = ""
        var commands: [JSONObject] = []
        /// How often a command in the background is seen running before it ends.
        var looks = 1
        /// Error messages of commands, by name.
        var failures: [String: String] = [:]
        /// The names and parameters of what it was given.
        var given: [(name: String, parameters: JSONObject)] = []
        /// Answers nothing.
        var isSilent = false
        var steps: [JSONValue] = [
            ["step": "erase_devices", "priority": 10, "interface": "deploy", "reboot_requested": false],
            ["step": "erase_devices_metadata", "priority": 99, "interface": "deploy", "reboot_requested": false],
            ["step": "burnin_cpu", "priority": 0, "interface": "deploy", "reboot_requested": false],
            ["step": "update", "priority": 0, "interface": "firmware", "reboot_requested": true],
        ]
        var inventory: JSONValue = [
            "cpu": ["architecture": "x86_64", "count": 16, "model_name": "Fast\u{0}"],
            "memory": ["physical_mb": 65536, "total": 68719476736],
            "disks": [["name": "/dev/sda", "size": 480103981056], ["name": "/dev/sdb", "size": 1048576]],
            "interfaces": [["name": "eth0", "mac_address": "52:54:00:00:00:01", "has_carrier": true]],
        ]
    }

    let state = Mutex(State())
    private let handler = Mutex<StubServer?>(nil)
    var url: String { handler.withLock { $0?.url ?? "" } }

    init() throws {
        let server = try StubServer { [self] in answer($0) }
        handler.withLock { $0 = server }
    }

    func stop() { handler.withLock { $0 }?.stop() }

    var names: [String] { state.withLock { $0.given.map(\.name) } }
    func parameters(_ name: String) -> JSONObject { state.withLock { $0.given.last { $0.name == name }?.parameters ?? [:] } }

    // MARK: calls to the service

    /// Looks its node up.
    @discardableResult
    func lookUp(_ cloud: NodeFixture, _ query: String) async throws -> NodeFixture.Answer {
        let answer = try await cloud.call("GET", "/v1/lookup?" + query, as: "", version: "1.62")
        state.withLock { state in
            state.node = answer.json["node"]?["uuid"]?.stringValue ?? ""
            if let token = answer.json["config"]?["agent_token"]?.stringValue, token != "******" { state.token = token }
        }
        return answer
    }

    @discardableResult
    func call(_ cloud: NodeFixture, _ changes: JSONObject = [:]) async throws -> NodeFixture.Answer {
        let (token, node) = state.withLock { ($0.token, $0.node) }
        var body: JSONObject = ["callback_url": .string(url), "agent_version": "13.0.0", "agent_token": JSONValue(token)]
        for member in changes.members { body[member.name] = member.value == .null ? nil : member.value }
        return try await cloud.call("POST", "/v1/heartbeat/\(node)", .object(body), as: "", version: "1.68")
    }

    /// Begins after a start of its machine: without commands and token.
    func start(_ cloud: NodeFixture, _ query: String) async throws {
        state.withLock { state in
            state.token = nil
            state.commands = []
        }
        #expect(try await lookUp(cloud, query).status == 200)
        let answer = try await call(cloud)
        #expect(answer.status == 202, "\(answer.json)")
    }

    // MARK: its command API

    private func answer(_ request: StubServer.Request) -> StubServer.Answer {
        state.withLock { state in
            guard !state.isSilent else { return .dropped }
            guard let token = state.token, request.query.contains("agent_token=" + token) else {
                return .json(401, ["faultcode": "Client", "faultstring": "Token invalid."])
            }
            guard request.path == "/v1/commands/" else { return .json(404, ["faultstring": "Not found"]) }
            if request.method == "GET" {
                for index in state.commands.indices {
                    var command = state.commands[index]
                    EmulatedAgent.look(&command, state)
                    state.commands[index] = command
                }
                return .json(200, ["commands": .array(state.commands.map { .object($0) })])
            }
            if state.commands.last?["command_status"] == "RUNNING" {
                return .json(409, ["faultcode": "Client", "faultstring": "Agent is busy"])
            }
            let name = request.json["name"]?.stringValue ?? ""
            state.given.append((name, request.json["params"]?.objectValue ?? [:]))
            let short = String(name.split(separator: ".").last ?? "")
            var command: JSONObject = [
                "id": .string("c\(state.commands.count)"), "command_name": .string(short), "command_status": "RUNNING",
                "command_error": nil, "command_result": nil, "looks": JSONValue(state.looks),
            ]
            if !["execute_clean_step", "prepare_image"].contains(short) { EmulatedAgent.end(&command, state) }
            state.commands.append(command)
            return .json(200, .object(command))
        }
    }

    private static func look(_ command: inout JSONObject, _ state: State) {
        guard command["command_status"] == "RUNNING" else { return }
        let left = command["looks"]?.intValue ?? 0
        if left > 0 { command["looks"] = JSONValue(left - 1) } else { end(&command, state) }
    }

    private static func end(_ command: inout JSONObject, _ state: State) {
        let name = command["command_name"]?.stringValue ?? ""
        if let failure = state.failures[name] {
            command["command_status"] = "FAILED"
            command["command_error"] = [
                "type": "CommandExecutionError", "code": 500, "message": "Command failed", "details": .string(failure),
            ]
            return
        }
        command["command_status"] = "SUCCEEDED"
        command["command_result"] =
            switch name {
            case "get_clean_steps":
                ["clean_steps": ["GenericHardwareManager": .array(state.steps)], "hardware_manager_version": ["generic": "1.2"]]
            case "get_deploy_steps": ["deploy_steps": ["GenericHardwareManager": []], "hardware_manager_version": ["generic": "1.2"]]
            case "get_hardware_info": state.inventory
            default: ["result": .string("\(name): done")]
            }
    }
}
