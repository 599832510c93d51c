import BareMetalCore
import Cryptography
import Database
import JSON
import Kernel

/// The agents of fake machines: they run in this process, call when the node's workflow waits for them, and do nothing to nothing, with
/// the delays and failures of their machine.
extension FakeHardware {
    func letAgentCall(of node: Node, _ calls: AgentCalls) async throws {
        guard !failing(node).contains(Operation.agent.rawValue), try await power(of: node) == .on,
            try await media(of: node).contains(where: { $0.isDrive(for: .cdrom) && $0.image != nil })
        else { return }
        var token = try await calls.lookUp(id: node.id, addresses: []).token
        // A token is handed out once. The machine remembers its own.
        if let sealed = try await database.read({ try AgentStore.find($0, of: node.id) })?.token {
            token = try secrets.open(agentToken: sealed, of: node.id).exposed
        }
        try await calls.beat(
            node.id.description, .init(url: FakeHardware.agentURL(calls.rules), token: token, version: "1.0.0"))
    }

    /// An address that the rules allow. Nothing is sent to it.
    private static func agentURL(_ rules: AgentRules) -> String {
        let address = rules.networks.first.map { $0.version == .v6 ? "[\($0.last)]" : "\($0.last)" } ?? "192.0.2.1"
        return "https://\(address):9999"
    }

    func channel(to agent: Agent, of node: Node) throws -> any AgentChannel { FakeAgentChannel(hardware: self, node: node) }

    /// The commands of an agent end with the power of its machine.
    func forgetCommands(of node: Node) async throws {
        try await database.write { try $0.execute("DELETE FROM bare_metal_fake_agents WHERE node_id = \(node.id)") }
    }
}

/// The command API of a fake machine's agent. Commands that agents run in the background have ended at the second look.
private struct FakeAgentChannel: AgentChannel {
    let hardware: FakeHardware
    let node: Node

    private static let background: Set<String> = ["execute_clean_step", "prepare_image"]

    func commands() async throws -> [AgentCommand] {
        let running = try await stored().last { $0["command_status"] == "RUNNING" && $0["seen"] == true }
        if let running { try await end(running) }
        let all = try await stored()
        try await change { commands in
            commands.map { command in
                var command = command
                command["seen"] = true
                return command
            }
        }
        return try all.map { try AgentCommand(.object($0)) }
    }

    func run(_ name: String, _ parameters: JSONObject, waits: Bool) async throws -> AgentCommand {
        if let last = try await stored().last, last["command_status"] == "RUNNING" {
            throw HardwareFailure(description: "Agent is busy executing \(last["command_name"] ?? .null).", isTemporary: true)
        }
        let short = name.split(separator: ".").last.map { String($0) } ?? name
        let command: JSONObject = [
            "id": .string(hardware.ambient.newUUID().description), "command_name": .string(short), "command_status": "RUNNING",
            "command_error": nil, "command_result": nil, "parameters": .object(parameters), "seen": false,
        ]
        try await change { $0 + [command] }
        if !FakeAgentChannel.background.contains(short) { try await end(command) }
        guard let now = try await stored().first(where: { $0["id"] == command["id"] }) else {
            throw HardwareFailure(description: "The machine was switched off.", isTemporary: true)
        }
        return try AgentCommand(.object(now))
    }

    /// Does what a command asks for, and records its outcome.
    private func end(_ command: JSONObject) async throws {
        let parameters = command["parameters"]
        var ended = command
        do {
            ended["command_result"] = try await hardware.obey(
                command["command_name"]?.stringValue ?? "", parameters?.objectValue ?? [:], of: node)
            ended["command_status"] = "SUCCEEDED"
        } catch let failure as HardwareFailure {
            ended["command_status"] = "FAILED"
            ended["command_error"] = ["type": "CommandExecutionError", "code": 500, "message": .string(failure.description)]
        }
        let result = ended
        try await change { commands in commands.map { $0["id"] == result["id"] ? result : $0 } }
    }

    private func stored() async throws -> [JSONObject] {
        let id = node.id
        return try await hardware.database.read { try FakeAgentChannel.stored($0, id) }
    }

    private static func stored(_ connection: Connection, _ id: UUID128) throws -> [JSONObject] {
        let row = try connection.query(
            "SELECT jsonb_build_object('commands', commands) AS commands FROM bare_metal_fake_agents WHERE node_id = \(id)"
        ).first
        return try row?.object("commands")["commands"]?.arrayValue?.compactMap(\.objectValue) ?? []
    }

    private func change(_ body: @escaping @Sendable ([JSONObject]) -> [JSONObject]) async throws {
        let id = node.id
        try await hardware.database.write { connection in
            let commands = JSONValue.array(body(try FakeAgentChannel.stored(connection, id)).map { .object($0) })
            try connection.execute(
                """
                INSERT INTO bare_metal_fake_agents (node_id, commands) SELECT id, \(commands)::jsonb FROM bare_metal_nodes WHERE id = \(id)
                ON CONFLICT (node_id) DO UPDATE SET commands = EXCLUDED.commands
                """)
        }
    }
}

extension FakeHardware {
    /// What the agent of a fake machine does for a command.
    fileprivate func obey(_ name: String, _ parameters: JSONObject, of node: Node) async throws -> JSONValue {
        switch name {
        case "get_clean_steps":
            func step(_ name: String, _ priority: Int) -> JSONValue {
                ["step": .string(name), "priority": JSONValue(priority), "interface": "deploy", "reboot_requested": false]
            }
            return [
                "clean_steps": [
                    "FakeHardwareManager": [step("erase_devices", 10), step("erase_devices_metadata", 99), step("burnin_cpu", 0)]
                ],
                "hardware_manager_version": ["FakeHardwareManager": "1"],
            ]
        case "get_deploy_steps": return ["deploy_steps": [:], "hardware_manager_version": ["FakeHardwareManager": "1"]]
        case "execute_clean_step":
            try await pretend(.clean, node)
            if parameters["step"]?["step"]?.stringValue?.hasPrefix("erase") == true { try await rememberDrive(nil, node) }
            return ["clean_result": nil, "clean_step": parameters["step"] ?? .null]
        case "prepare_image":
            if failing(node).contains(Operation.image.rawValue) {
                throw HardwareFailure(description: "Image failed to verify against its checksum.")
            }
            try await pretend(.deploy, node)
            try await rememberDrive(parameters["configdrive"]?.stringValue.flatMap { Base64.decode($0) }, node)
            return ["result": "prepare_image: image written to device /dev/fake0"]
        case "get_hardware_info":
            try await pretend(.inspect, node)
            return inventory.document["inventory"] ?? .null
        case "sync": return ["result": "sync: "]
        default: throw HardwareFailure(description: "Unknown command: \(name)")
        }
    }
}
