import BareMetalCore
import Database
import JSON
import Kernel
import Workflow

/// What a ramdisk is started for: the states of the node in work, and while the agent is waited for.
enum RamdiskUse: Sendable {
    case inspect, clean, deploy

    var busy: ProvisionState {
        switch self {
        case .inspect: .inspecting
        case .clean: .cleaning
        case .deploy: .deploying
        }
    }

    var wait: ProvisionState {
        switch self {
        case .inspect: .inspectWait
        case .clean: .cleanWait
        case .deploy: .deployWait
        }
    }

    var held: ProvisionState? { self == .clean ? .cleanHold : nil }
    var states: Set<ProvisionState> { Set([busy, wait, held].compactMap { $0 }) }
}

/// Starting the ramdisk with the agent, talking to the agent, and leaving it.
extension NodeWorkflows {
    /// The work of a node with its agent.
    struct AgentWork: Codable, Sendable {
        /// The steps that a request names; in automated cleaning those that the agent lists.
        var steps: [NodeRules.Step]
        let isManual: Bool
        /// How many have ended.
        var ended = 0
        /// Whether the agent has listed its steps.
        var isListed = false
        /// The versions of the agent's hardware managers, which it compares.
        var versions = JSONObject()
        /// The id of the command that runs.
        var command: String?
        /// The id of the last command that has ended. Later ones are this workflow's, even if it died before it recorded them.
        var last: String?

        init(steps: [NodeRules.Step] = [], isManual: Bool = false) {
            self.steps = steps
            self.isManual = isManual
        }
    }

    /// How often an agent is asked whether a command has ended.
    static let commandPoll: Duration = .seconds(5)
    /// How often a workflow looks whether an agent has called. A call wakes it.
    private static let callPoll: Duration = .seconds(10)

    /// - Throws: 400 where neither the node nor the operator names an image with a ramdisk, or the service cannot keep tokens.
    func ramdisk(of node: Node) throws -> String {
        guard agents.secrets.keys != nil else {
            throw ResourceError.badRequest(
                "Node \(node.id) cannot start a ramdisk: the operator has not set bare_metal.credential_keys_file, for agents' tokens."
            )
        }
        try hardware.require(.virtualMedia, of: node)
        if let own = node.driverInfo["deploy_iso"], own != .null {
            try NodeRules.requireImageURL(own.stringValue ?? own.description, "driver_info/deploy_iso")
            return own.stringValue ?? ""
        }
        guard let deployISO else {
            throw ResourceError.badRequest(
                """
                Node \(node.id) has no deploy ramdisk: set driver_info/deploy_iso to the URL of its image, or let the operator set \
                bare_metal.deploy_iso.
                """)
        }
        return deployISO
    }

    // MARK: starting

    /// Starts the machine with the ramdisk. Each attempt expects a new agent.
    func startRamdisk(_ use: RamdiskUse) -> Workflow<AgentWork>.Step {
        .init("start the ramdisk", deadline: .seconds(900)) { context, _ in
            guard let node = try await node(context, in: use.states) else { return try await abandon(context) }
            let (id, now) = (context.subjectID, context.now)
            let image: String
            do { image = try ramdisk(of: node) } catch let error as ResourceError { throw StepFailure(error.message) }
            try await working(node) { driver in
                if !node.disablesPowerOff { try await driver.setPower(of: node, .off) }
                try await driver.insertMedia(of: node, .cdrom, url: image)
                try await driver.setBootDevice(of: node, .cdrom, isPersistent: false)
            }
            try await database.write { connection in
                try AgentStore.expect(connection, node.id, at: now)
                if use == .inspect { try NodeStore.beginInspection(connection, id, at: now) }
                _ = try NodeStore.move(connection, id, .wait, target: node.target, at: now)
            }
            try await working(node) { try await $0.setPower(of: node, node.disablesPowerOff ? .reboot : .on) }
            let ambient = ambient
            context.commit { connection in
                try NodeStore.recordPower(connection, id, .on, at: now)
                try NodeStore.record(
                    connection, id, "agent", "The machine was started with the deploy ramdisk.", isError: false, ambient: ambient)
            }
            return .next
        }
    }

    func awaitAgent(_ use: RamdiskUse) -> Workflow<AgentWork>.Step {
        .init("wait for the agent", deadline: .seconds(agents.rules.callbackTimeout + 600)) { context, _ in
            guard let node = try await node(context, in: use.states) else { return try await abandon(context) }
            guard node.state == use.wait else { return .next }
            try await working(node) { driver in
                guard try await agent(of: node)?.callbackURL == nil else { return }
                do { try await driver.letAgentCall(of: node, agents) } catch let error as ResourceError {
                    throw HardwareFailure(description: "The agent was refused: \(error.message)")
                }
            }
            guard let agent = try await agent(of: node) else { throw StepFailure("The node waits for no agent any more.") }
            guard agent.callbackURL != nil else {
                let seconds = Int((context.now.microseconds - agent.expectedAt.microseconds) / 1_000_000)
                guard seconds < agents.rules.callbackTimeout else {
                    let stage =
                        agent.token == nil
                        ? "did not ask for its node: the machine has not started the image, or does not reach this service"
                        : "asked for its node, and has not called since"
                    throw StepFailure("The agent has not called \(seconds) seconds after the machine was started. It \(stage).")
                }
                return .wait(NodeWorkflows.callPoll)
            }
            let (id, now) = (context.subjectID, context.now)
            context.commit { _ = try NodeStore.move($0, id, .resume, target: node.target, at: now) }
            return .next
        }
    }

    private func agent(of node: Node) async throws -> Agent? { try await database.read { try AgentStore.find($0, of: node.id) } }

    // MARK: commands

    /// The node and its ports, as agents want them.
    private func described(_ node: Node) async throws -> JSONObject {
        try await database.read { connection in
            let hints = try NodeStore.instanceInfo(connection, of: node.id)["root_device"]
            let properties = try NodeStore.properties(connection, of: node.id)
            let ports = try PortStore.addresses(connection, of: node.id)
            return [
                "node": [
                    "uuid": .string(node.id.description), "properties": .object(properties),
                    "instance_info": hints.map { ["root_device": $0] } ?? [:], "driver_info": [:], "driver_internal_info": [:],
                    "provision_state": .string(node.state.rawValue), "raid_config": [:], "target_raid_config": [:],
                ], "ports": .array(ports.map { ["address": .string($0)] }),
            ]
        }
    }

    /// Runs `body` with the node's agent. An agent that cannot be reached is asked again, as long as it calls.
    ///
    /// - Returns: nil if the agent has to be asked again.
    private func talking<Value: Sendable>(_ node: Node, _ body: (any AgentChannel) async throws -> Value) async throws -> Value? {
        guard let agent = try await agent(of: node) else { throw StepFailure("The node's agent was dismissed.") }
        do {
            return try await body(try hardware.driver(of: node).channel(to: agent, of: node))
        } catch let failure as HardwareFailure {
            guard failure.isTemporary else { throw StepFailure(failure.description) }
            let seconds = Int((ambient.now.microseconds - (agent.heartbeatAt ?? agent.expectedAt).microseconds) / 1_000_000)
            guard seconds <= agents.rules.heartbeatTimeout else {
                throw StepFailure("The agent has been silent for \(seconds) seconds. \(failure.description)")
            }
            return nil
        } catch let error as ResourceError where error.code == .badRequest {
            throw StepFailure(error.message)
        }
    }

    /// Runs a command that ends at once.
    ///
    /// - Parameters:
    ///   - describes: whether the command takes the node and its ports.
    ///   - words: what it does, for error messages.
    /// - Returns: its result; nil if the agent has to be asked again.
    func ask(_ node: Node, _ name: String, describes: Bool = false, words: String) async throws -> JSONValue? {
        let parameters = try await describes ? described(node) : [:]
        let outcome = try await talking(node) { channel in
            try await channel.run(name, parameters, waits: true).outcome(of: words)
        }
        return outcome ?? nil
    }

    /// Runs a command that takes long, over several runs of a step. The agent runs it once, whenever this process dies.
    ///
    /// - Returns: its result; nil while it runs.
    func command(
        _ node: Node, _ frame: inout AgentWork, _ name: String, _ parameters: JSONObject, words: String
    ) async throws -> JSONValue? {
        let short = name.split(separator: ".").last.map { String($0) } ?? name
        let (known, last) = (frame.command, frame.last)
        let found = try await talking(node) { channel -> AgentCommand in
            let all = try await channel.commands()
            if let known {
                guard let command = all.first(where: { $0.id == known }) else {
                    throw HardwareFailure(description: "The agent has lost \(words): its machine has started again.")
                }
                return command
            }
            let new = last.flatMap { id in all.firstIndex { $0.id == id } }.map { all[($0 + 1)...] } ?? all[...]
            if let command = new.last(where: { $0.name == short }) { return command }
            return try await channel.run(name, parameters, waits: false)
        }
        guard let found else { return nil }
        frame.command = found.id
        let result: JSONValue?
        do { result = try found.outcome(of: words) } catch let failure as HardwareFailure { throw StepFailure(failure.description) }
        guard let result else { return nil }
        frame.last = found.id
        frame.command = nil
        return result
    }

    /// The parameters of a step of the agent.
    func parameters(_ node: Node, _ step: NodeRules.Step, _ frame: AgentWork) async throws -> JSONObject {
        var all = try await described(node)
        var document: JSONObject = ["interface": .string(step.interface), "step": .string(step.step), "args": .object(step.args ?? [:])]
        document["priority"] = step.priority.map { JSONValue($0) }
        all["step"] = .object(document)
        all["clean_version"] = .object(frame.versions)
        return all
    }

    // MARK: leaving

    /// Switches the machine off and takes the ramdisk out. Its agent may do nothing any more.
    func leaveRamdisk(_ use: RamdiskUse) -> Workflow<AgentWork>.Step {
        .init("leave the ramdisk", deadline: .seconds(600)) { context, _ in
            guard let node = try await node(context, in: use.states) else { return try await abandon(context) }
            try await working(node) { try await leave(node, $0) }
            let (id, now) = (context.subjectID, context.now)
            context.commit { connection in
                try AgentStore.forget(connection, node.id)
                try NodeStore.recordPower(connection, id, node.disablesPowerOff ? .on : .off, at: now)
            }
            return .next
        }
    }

    private func leave(_ node: Node, _ driver: any HardwareDriver) async throws {
        if !node.disablesPowerOff { try await driver.setPower(of: node, .off) }
        try await driver.ejectMedia(of: node, [.cdrom])
        // The machine boots from its disk, which may be empty.
        if node.disablesPowerOff { try await driver.setPower(of: node, .reboot) }
    }

    /// Ends work that a request has aborted: the machine does not go on with it.
    func abandon(_ context: StepContext) async throws -> StepResult {
        try await dismiss(context)
        return .done
    }

    /// Dismisses the agent, and leaves the ramdisk if the controller lets it.
    func dismiss(_ context: StepContext) async throws {
        let id = context.subjectID
        // Work whose end was recorded has not failed, whatever happened to the workflow afterwards.
        guard let node = try await database.read({ try NodeStore.node($0, id) }), node.state.isFailed else { return }
        try await database.write { try AgentStore.forget($0, node.id) }
        let (now, ambient) = (ambient.now, ambient)
        do {
            try await leave(node, try hardware.driver(of: node))
            try await database.write { try NodeStore.recordPower($0, id, node.disablesPowerOff ? .on : .off, at: now) }
        } catch let failure as HardwareFailure {
            let text = "The machine could not be switched off, and may still run the deploy ramdisk: \(failure.description)"
            try await database.write { try NodeStore.record($0, id, "agent", text, isError: true, ambient: ambient) }
        }
    }
}
