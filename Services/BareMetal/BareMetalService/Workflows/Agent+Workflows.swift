import BareMetalCore
import Database
import JSON
import Kernel
import Workflow

/// The work that an agent in the node's ramdisk does.
extension NodeWorkflows {
    var agentClean: Workflow<AgentWork> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_agent_clean", steps: cleaning,
            failed: { context, _, failure in
                try await fail("Cleaning has failed", keepsOutOfService: true)(context, failure)
                try await dismiss(context)
            })
    }

    /// Removes the node's instance, and cleans the node for the next one.
    var agentUndeploy: Workflow<AgentWork> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_agent_undeploy", steps: [release()] + cleaning,
            failed: { context, _, failure in
                try await fail("The node could not be undeployed", keepsOutOfService: true)(context, failure)
                try await dismiss(context)
            })
    }

    private var cleaning: [Workflow<AgentWork>.Step] {
        [
            startRamdisk(.clean), awaitAgent(.clean),
            .init("clean", deadline: NodeWorkflows.longest) { context, frame in
                guard let node = try await node(context, in: RamdiskUse.clean.states) else { return try await abandon(context) }
                return try await cleanFurther(context, node, &frame)
            },
            leaveRamdisk(.clean),
            .init("publish") { context, frame in
                let names = frame.steps.map { "\($0.interface).\($0.step)" }.joined(separator: ", ")
                publish(
                    frame.isManual ? .doneManually : .done,
                    frame.isManual ? "The cleaning steps have ended: \(names)." : "The node is clean (\(names)) and available.")(&context)
                return .next
            },
        ]
    }

    /// Goes on with the agent's steps by one.
    private func cleanFurther(_ context: StepContext, _ node: Node, _ frame: inout AgentWork) async throws -> StepResult {
        let (id, now) = (context.subjectID, context.now)
        // A hold has no time limit; an operator ends it.
        if node.state == .cleanHold { return .progress(NodeWorkflows.holdPoll) }
        if node.state == .cleanWait {
            // The hold has ended: its step is done.
            _ = try await database.write { try NodeStore.move($0, id, .resume, target: node.target, at: now) }
            frame.ended += 1
            return .wait(.zero)
        }
        guard frame.isListed else {
            guard let answer = try await ask(node, "clean.get_clean_steps", describes: true, words: "the list of its cleaning steps") else {
                return .wait(NodeWorkflows.commandPoll)
            }
            let listed = AgentSteps(answer)
            frame.steps = try frame.isManual ? listed.checked(frame.steps) : listed.automated()
            frame.versions = listed.versions
            frame.isListed = true
            return .wait(.zero)
        }
        guard frame.ended < frame.steps.count else { return .next }
        let step = frame.steps[frame.ended]
        try await database.write { try NodeStore.showStep($0, id, .clean, step) }
        if step.step == HardwareStep.hold {
            _ = try await database.write { try NodeStore.move($0, id, .hold, target: node.target, at: now) }
            return .progress(NodeWorkflows.holdPoll)
        }
        let words = "the step \(step.interface).\(step.step)"
        let parameters = try await parameters(node, step, frame)
        guard try await command(node, &frame, "clean.execute_clean_step", parameters, words: words) != nil else {
            return .wait(NodeWorkflows.commandPoll)
        }
        frame.ended += 1
        return .wait(.zero)
    }

    // MARK: deploying

    /// Writes an image to the node's disk, and starts it.
    var agentDeploy: Workflow<AgentWork> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_agent_deploy",
            steps: [
                startRamdisk(.deploy), awaitAgent(.deploy),
                .init("write the image", deadline: NodeWorkflows.longest) { context, frame in
                    guard let node = try await node(context, in: RamdiskUse.deploy.states) else { return try await abandon(context) }
                    return try await writeImage(context, node, &frame)
                },
                .init("start the instance", deadline: .seconds(900)) { context, _ in
                    guard let node = try await node(context, in: RamdiskUse.deploy.states) else { return try await abandon(context) }
                    try await working(node) { driver in
                        if !node.disablesPowerOff { try await driver.setPower(of: node, .off) }
                        try await driver.ejectMedia(of: node, [.cdrom])
                        try await driver.setBootDevice(of: node, .disk, isPersistent: true)
                        try await driver.setPower(of: node, node.disablesPowerOff ? .reboot : .on)
                    }
                    context.commit { try AgentStore.forget($0, node.id) }
                    publish(.done, "The node was deployed.", power: .on)(&context)
                    return .next
                },
            ],
            failed: { context, _, failure in
                try await fail("The deployment has failed")(context, failure)
                try await dismiss(context)
            })
    }

    private func writeImage(_ context: StepContext, _ node: Node, _ frame: inout AgentWork) async throws -> StepResult {
        guard frame.isListed else {
            // The agent finds the disk by the hints of the node that this command brings.
            guard try await ask(node, "deploy.get_deploy_steps", describes: true, words: "the list of its deploy steps") != nil else {
                return .wait(NodeWorkflows.commandPoll)
            }
            frame.isListed = true
            return .wait(.zero)
        }
        // `ended` counts the image, and then the flush of the disk's caches.
        if frame.ended == 0 {
            let (info, sealed) = try await database.read {
                (try NodeStore.instanceInfo($0, of: node.id), try ConfigDriveStore.find($0, of: node.id))
            }
            let image: DeployImage
            do { image = try DeployImage(info) } catch let error as ResourceError { throw StepFailure(error.message) }
            let drive = try sealed.map { try agents.secrets.open(configDrive: $0, of: node.id) }
            let id = context.subjectID
            try await database.write { try NodeStore.showStep($0, id, .deploy, .init(interface: "deploy", step: "write_image")) }
            let parameters: JSONObject = ["image_info": .object(image.document(node: node.id)), "configdrive": JSONValue(drive)]
            guard try await command(node, &frame, "standby.prepare_image", parameters, words: "writing the image \(image.url)") != nil
            else {
                return .wait(NodeWorkflows.commandPoll)
            }
            frame.ended = 1
            return .wait(.zero)
        }
        guard try await ask(node, "standby.sync", words: "flushing the disks' caches") != nil else {
            return .wait(NodeWorkflows.commandPoll)
        }
        return .next
    }

    // MARK: inspecting

    var agentInspect: Workflow<AgentWork> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_agent_inspect",
            steps: [
                startRamdisk(.inspect), awaitAgent(.inspect),
                .init("take the inventory", deadline: .seconds(1800)) { context, _ in
                    guard let node = try await node(context, in: RamdiskUse.inspect.states) else { return try await abandon(context) }
                    guard let answer = try await ask(node, "poll.get_hardware_info", words: "its inventory") else {
                        return .wait(NodeWorkflows.commandPoll)
                    }
                    guard let inventory = HardwareInventory(agent: answer) else {
                        throw StepFailure("The agent's inventory has no CPUs, memory or network interfaces.")
                    }
                    let (id, now) = (context.subjectID, context.now)
                    context.commit { try NodeStore.endInspection($0, id, inventory, at: now) }
                    return .next
                },
                leaveRamdisk(.inspect),
                .init("publish") { context, _ in
                    publish(.done, "The node was inspected by its agent.")(&context)
                    return .next
                },
            ],
            failed: { context, _, failure in
                try await fail("The inspection has failed")(context, failure)
                try await dismiss(context)
            })
    }
}

/// The steps that an agent lists.
struct AgentSteps {
    /// With `reboot_requested` for those that need a restart afterwards.
    private let steps: [(step: NodeRules.Step, needsRestart: Bool)]
    /// The versions of its hardware managers.
    let versions: JSONObject

    /// - Parameter answer: the result of `clean.get_clean_steps`.
    init(_ answer: JSONValue) {
        let managers = answer["clean_steps"]?.objectValue?.members ?? []
        steps = managers.flatMap { $0.value.arrayValue ?? [] }.prefix(BareMetalLimits.agentStepsMax).compactMap {
            item -> (step: NodeRules.Step, needsRestart: Bool)? in
            guard let step = item["step"]?.stringValue, let interface = item["interface"]?.stringValue else { return nil }
            return (
                step: NodeRules.Step(interface: interface, step: step, priority: item["priority"]?.intValue ?? 0),
                needsRestart: item["reboot_requested"]?.boolValue ?? false
            )
        }
        versions = answer["hardware_manager_version"]?.objectValue ?? [:]
    }

    /// The steps of automated cleaning: those with a priority, highest first.
    ///
    /// - Throws: `StepFailure` if there are none, because the node would not be clean.
    func automated() throws -> [NodeRules.Step] {
        let found = steps.filter { ($0.step.priority ?? 0) > 0 }
            .sorted { ($0.step.priority ?? 0, $1.step.step) > ($1.step.priority ?? 0, $0.step.step) }
        guard !found.isEmpty else { throw StepFailure("The agent has no step of automated cleaning: nothing would be erased.") }
        return try found.map(usable)
    }

    /// The steps that a request names.
    ///
    /// - Throws: `StepFailure` naming the first that the agent does not have, before any of them has run.
    func checked(_ requested: [NodeRules.Step]) throws -> [NodeRules.Step] {
        for wanted in requested where wanted.step != HardwareStep.hold {
            guard let known = steps.first(where: { $0.step.interface == wanted.interface && $0.step.step == wanted.step }) else {
                let names = steps.map { "\($0.step.interface).\($0.step.step)" }.joined(separator: ", ")
                throw StepFailure(
                    "The agent has no step \(wanted.interface).\(wanted.step), only \(HardwareFailure.plain(names, max: 1000)).")
            }
            _ = try usable(known)
        }
        return requested
    }

    private func usable(_ item: (step: NodeRules.Step, needsRestart: Bool)) throws -> NodeRules.Step {
        guard !item.needsRestart else {
            throw StepFailure(
                "The agent's step \(item.step.interface).\(item.step.step) needs a restart of the machine, which is not supported.")
        }
        return item.step
    }
}

extension HardwareInventory {
    /// What an agent has found; nil if it says nothing of CPUs, memory and network interfaces.
    init?(agent answer: JSONValue) {
        guard let found = HardwareInventory.plain(answer).objectValue, let interfaces = found["interfaces"]?.arrayValue,
            let cpus = found["cpu"]?["count"]?.intValue, cpus > 0, let memory = found["memory"]?["physical_mb"]?.intValue, memory > 0
        else { return nil }
        var properties: JSONObject = ["cpus": JSONValue(cpus), "memory_mb": JSONValue(memory)]
        properties["cpu_arch"] = found["cpu"]?["architecture"]
        // As for an inspection by the controller: one less than the smallest disk that can hold a system.
        let sizes = (found["disks"]?.arrayValue ?? []).compactMap { $0["size"]?.intValue }.filter { $0 >= 4 << 30 }
        properties["local_gb"] = sizes.min().map { JSONValue($0 >> 30 - 1) }
        var inventory = found
        inventory["interfaces"] = .array(interfaces)
        self.init(properties: properties, document: ["inventory": .object(inventory), "plugin_data": [:]])
    }

    /// Without control characters, which the database does not store or which could write to a terminal.
    private static func plain(_ value: JSONValue) -> JSONValue {
        switch value {
        case .string(let text): .string(HardwareFailure.plain(text, max: 65_536))
        case .array(let items): .array(items.map(plain))
        case .object(let object): .object(JSONObject(object.members.map { (HardwareFailure.plain($0.name, max: 255), plain($0.value)) }))
        default: value
        }
    }
}
