import BareMetalCore
import Database
import JSON
import Kernel
import ServiceCatalog
import ServiceKit
import Workflow

/// The workflows of nodes. A process may die at any point, so each step first checks the node's state and continues from there.
struct NodeWorkflows: Sendable {
    static let service = CloudService.bareMetal.section
    /// The time limit of a hardware step. Erasing large disks takes hours.
    static let longest: Duration = .seconds(24 * 3600)
    /// A request may allow the operating system a day to shut down; the machine then needs time to start.
    private static let powerMax: Duration = .seconds(25 * 3600)
    static let holdPoll: Duration = .seconds(60)

    let surroundings: ServiceSurroundings
    let hardware: HardwareFleet
    let agents: AgentCalls
    /// The image with the deploy ramdisk for nodes that name none.
    let deployISO: String?
    var database: Database { surroundings.database }
    var ambient: Ambient { surroundings.ambient }

    var definitions: [WorkflowDefinition] {
        [
            verify.definition, inspect.definition, clean.definition, deploy.definition, undeploy.definition, adopt.definition,
            rescue.definition, unrescue.definition, service.definition, power.definition, bootSettings.definition,
            agentInspect.definition, agentClean.definition, agentDeploy.definition, agentUndeploy.definition,
        ]
    }

    // MARK: frames

    struct Nothing: Codable, Sendable {}

    struct Steps: Codable, Sendable {
        let steps: [NodeRules.Step]
        let isManual: Bool
        /// The number of completed steps.
        var ended: Int

        init(steps: [NodeRules.Step], isManual: Bool) {
            self.steps = steps
            self.isManual = isManual
            ended = 0
        }
    }

    struct Deploy: Codable, Sendable {
        let steps: [NodeRules.Step]
        let isRebuild: Bool
        var ended: Int

        init(steps: [NodeRules.Step], isRebuild: Bool) {
            self.steps = steps
            self.isRebuild = isRebuild
            ended = 0
        }
    }

    struct Power: Codable, Sendable {
        let target: NodePower.Target
        let timeout: Int?
        let user: String
    }

    /// The steps of automated cleaning; empty if the node has automated cleaning disabled.
    func automatedSteps(_ node: Node) throws -> [NodeRules.Step] {
        node.cleansAutomatically == false ? [] : try hardware.driver(of: node).usualSteps(for: .clean)
    }

    /// The entry in the history after automated cleaning.
    private static func cleaned(_ frame: Steps) -> String {
        frame.steps.isEmpty
            ? "The node is available. Nothing was erased: it has automated cleaning disabled, or its driver has no steps for it."
            : "The node is clean and available."
    }

    // MARK: common pieces

    /// The node if it is in one of `states`; nil if another request has ended the work.
    func node(_ context: StepContext, in states: Set<ProvisionState>) async throws -> Node? {
        let id = context.subjectID
        guard let node = try await database.read({ try NodeStore.node($0, id) }), states.contains(node.state) else { return nil }
        return node
    }

    /// Runs an operation of the hardware; its error message becomes the node's `last_error`.
    func working<Value: Sendable>(_ node: Node, _ body: (any HardwareDriver) async throws -> Value) async throws -> Value {
        do { return try await body(try hardware.driver(of: node)) } catch let failure as HardwareFailure {
            // Temporary failure: the engine retries the step until its deadline.
            if failure.isTemporary { throw ResourceError(.unavailable, failure.description) }
            throw StepFailure(failure.description)
        } catch let error as ResourceError where error.code == .badRequest {
            throw StepFailure(error.message)
        }
    }

    /// Completes the work: moves the node to the next state and records the result.
    func publish(_ event: ProvisionState.Event, _ words: String, power: NodePower? = nil) -> @Sendable (inout StepContext) -> Void {
        let ambient = ambient
        return { context in
            let (id, now) = (context.subjectID, context.now)
            context.commit { connection in
                guard try NodeStore.move(connection, id, event, at: now) else { return }
                if let power { try NodeStore.recordPower(connection, id, power, at: now) }
                try NodeStore.endSteps(connection, id)
                try NodeStore.record(connection, id, "provisioning", words, isError: false, ambient: ambient)
            }
        }
    }

    /// Ends failed work and records the reason in the node.
    func fail(_ words: String, keepsOutOfService: Bool = false) -> @Sendable (StepContext, StepFailure) async throws -> Void {
        let (database, ambient) = (database, ambient)
        return { context, failure in
            let (id, text) = (context.subjectID, "\(words): \(failure.message)")
            let now = ambient.now
            try await database.write { connection in
                guard try NodeStore.move(connection, id, .fail, error: text, at: now) else { return }
                if keepsOutOfService { try NodeStore.keepOutOfService(connection, id, fault: "clean failure", reason: text) }
                try NodeStore.record(connection, id, "provisioning", text, isError: true, ambient: ambient)
            }
        }
    }

    /// Runs the next of `steps`.
    ///
    /// - Returns: nil if all steps are completed; otherwise how to continue, which is `done` if another request has ended the work.
    private func advance(
        _ context: StepContext, _ steps: [NodeRules.Step], _ ended: inout Int, in states: Set<ProvisionState>,
        held: (hold: ProvisionState, wait: ProvisionState), column: NodeStore.StepColumn
    ) async throws -> StepResult? {
        guard let node = try await node(context, in: states.union([held.hold, held.wait])) else { return .done }
        // A hold has no time limit; an operator ends it.
        if node.state == held.hold { return .progress(NodeWorkflows.holdPoll) }
        let (id, now) = (context.subjectID, context.now)
        if node.state == held.wait {
            // An operator has ended the hold, which completes its step.
            _ = try await database.write { try NodeStore.move($0, id, .resume, target: node.target, at: now) }
            ended += 1
            return .wait(.zero)
        }
        guard ended < steps.count else { return nil }
        let step = steps[ended]
        try await database.write { try NodeStore.showStep($0, id, column, step) }
        if step.step == HardwareStep.hold {
            _ = try await database.write { try NodeStore.move($0, id, .hold, target: node.target, at: now) }
            return .progress(NodeWorkflows.holdPoll)
        }
        try await working(node) { try await $0.run(step, of: node) }
        ended += 1
        return .wait(.zero)
    }

    // MARK: workflows

    /// Checks that the controller can be reached with the node's settings.
    var verify: Workflow<Nothing> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_verify",
            steps: [
                .init("ask the controller", deadline: .seconds(120)) { context, _ in
                    guard let node = try await node(context, in: [.verifying]) else { return .done }
                    let (power, boot) = try await working(node) { driver in
                        if let problem = driver.problems(of: node).values.min() { throw HardwareFailure(description: problem) }
                        return (try await driver.power(of: node), try await driver.bootState(of: node))
                    }
                    let (id, now) = (context.subjectID, context.now)
                    context.commit { try NodeStore.recordBoot($0, id, boot, at: now) }
                    publish(.done, "The controller has answered: \(power.rawValue).", power: power)(&context)
                    return .next
                }
            ],
            failed: { context, _, failure in try await fail("The node could not be verified")(context, failure) })
    }

    var adopt: Workflow<Nothing> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_adopt",
            steps: [
                .init("ask the controller", deadline: .seconds(300)) { context, _ in
                    guard let node = try await node(context, in: [.adopting]) else { return .done }
                    let power = try await working(node) { try await $0.power(of: node) }
                    publish(.done, "The node was adopted as it is.", power: power)(&context)
                    return .next
                }
            ],
            failed: { context, _, failure in try await fail("The node could not be adopted")(context, failure) })
    }

    var inspect: Workflow<Nothing> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_inspect",
            steps: [
                .init("inspect", deadline: .seconds(3600)) { context, _ in
                    guard let node = try await node(context, in: [.inspecting]) else { return .done }
                    let (id, now) = (context.subjectID, context.now)
                    try await database.write { try NodeStore.beginInspection($0, id, at: now) }
                    let inventory = try await working(node) { try await $0.inspect(node) }
                    context.commit { try NodeStore.endInspection($0, id, inventory, at: now) }
                    publish(.done, "The node was inspected.")(&context)
                    return .next
                }
            ],
            failed: { context, _, failure in try await fail("The inspection has failed")(context, failure) })
    }

    var clean: Workflow<Steps> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_clean",
            steps: [
                .init("clean", deadline: NodeWorkflows.longest) { context, frame in
                    try await advance(
                        context, frame.steps, &frame.ended, in: [.cleaning], held: (.cleanHold, .cleanWait), column: .clean) ?? .next
                },
                .init("publish") { context, frame in
                    let words = frame.isManual ? "The cleaning steps have ended." : NodeWorkflows.cleaned(frame)
                    publish(frame.isManual ? .doneManually : .done, words)(&context)
                    return .next
                },
            ],
            failed: { context, frame, failure in
                try await fail("Cleaning has failed", keepsOutOfService: true)(context, failure)
            })
    }

    var service: Workflow<Steps> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_service",
            steps: [
                .init("service", deadline: NodeWorkflows.longest) { context, frame in
                    try await advance(
                        context, frame.steps, &frame.ended, in: [.servicing], held: (.serviceHold, .serviceWait), column: .service) ?? .next
                },
                .init("publish") { context, _ in
                    publish(.done, "The service steps have ended.")(&context)
                    return .next
                },
            ],
            failed: { context, _, failure in try await fail("Servicing has failed")(context, failure) })
    }

    var deploy: Workflow<Deploy> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_deploy",
            steps: [
                .init("deploy", deadline: NodeWorkflows.longest) { context, frame in
                    guard let node = try await node(context, in: [.deploying, .deployHold, .deployWait]) else { return .done }
                    let steps = try hardware.driver(of: node).deploySteps(frame.steps)
                    return try await advance(
                        context, steps, &frame.ended, in: [.deploying], held: (.deployHold, .deployWait), column: .deploy) ?? .next
                },
                .init("boot", deadline: .seconds(600)) { context, _ in
                    guard let node = try await node(context, in: [.deploying]) else { return .done }
                    try await working(node) { try await $0.setPower(of: node, .on) }
                    publish(.done, "The node was deployed.", power: .on)(&context)
                    return .next
                },
            ],
            failed: { context, _, failure in try await fail("The deployment has failed")(context, failure) })
    }

    /// Ends the node's instance. Its data may still be on the disks.
    func release<Frame: Codable & Sendable>() -> Workflow<Frame>.Step {
        .init("power off", deadline: .seconds(600)) { context, _ in
            guard let node = try await node(context, in: [.deleting]) else { return .skip }
            // With `disable_power_off`, restart instead of powering off.
            let target: NodePower.Target = node.disablesPowerOff ? .reboot : .off
            try await working(node) { try await $0.setPower(of: node, target) }
            let (id, now) = (context.subjectID, context.now)
            context.commit { connection in
                guard try NodeStore.move(connection, id, .cleanUp, target: .available, at: now) else { return }
                try NodeStore.recordPower(connection, id, target.result, at: now)
                try NodeStore.forgetInstance(connection, id, at: now)
            }
            return .next
        }
    }

    /// Removes the node's instance and cleans the node for the next one.
    var undeploy: Workflow<Steps> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_undeploy",
            steps: [
                release(),
                .init("clean", deadline: NodeWorkflows.longest) { context, frame in
                    try await advance(
                        context, frame.steps, &frame.ended, in: [.cleaning], held: (.cleanHold, .cleanWait), column: .clean) ?? .next
                },
                .init("publish") { context, frame in
                    publish(.done, NodeWorkflows.cleaned(frame))(&context)
                    return .next
                },
            ],
            failed: { context, _, failure in
                try await fail("The node could not be undeployed", keepsOutOfService: true)(context, failure)
            })
    }

    var rescue: Workflow<Nothing> { rescueWorkflow("node_rescue", "rescue", in: .rescuing, "The node is in rescue mode.") }
    var unrescue: Workflow<Nothing> { rescueWorkflow("node_unrescue", "unrescue", in: .unrescuing, "The node is out of rescue mode.") }

    private func rescueWorkflow(_ kind: String, _ step: String, in state: ProvisionState, _ words: String) -> Workflow<Nothing> {
        Workflow(
            service: NodeWorkflows.service, kind: kind,
            steps: [
                .init("restart", deadline: .seconds(3600)) { context, _ in
                    guard let node = try await node(context, in: [state]) else { return .done }
                    try await working(node) { driver in
                        try await driver.run(.init(interface: "rescue", step: step), of: node)
                        try await driver.setPower(of: node, .reboot)
                    }
                    publish(.done, words, power: .on)(&context)
                    return .next
                }
            ],
            failed: { context, _, failure in try await fail("The \(step) has failed")(context, failure) })
    }

    var power: Workflow<Power> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_power",
            steps: [
                .init("switch", deadline: NodeWorkflows.powerMax) { context, frame in
                    let id = context.subjectID
                    guard let node = try await database.read({ try NodeStore.node($0, id) }) else { return .done }
                    try await working(node) { try await $0.setPower(of: node, frame.target, timeout: frame.timeout) }
                    let (now, ambient, target, user) = (context.now, ambient, frame.target, frame.user)
                    context.commit { connection in
                        try NodeStore.recordPower(connection, id, target.result, at: now)
                        try NodeStore.record(
                            connection, id, "power", "The power was changed: \(target.rawValue).", isError: false, user: user,
                            ambient: ambient)
                    }
                    return .next
                }
            ],
            failed: { context, frame, failure in
                let (id, now) = (context.subjectID, ambient.now)
                let text = "The power could not be changed (\(frame.target.rawValue)): \(failure.message)"
                try await database.write { connection in
                    try NodeStore.recordPower(connection, id, nil, error: text, at: now)
                    try NodeStore.record(connection, id, "power", text, isError: true, user: frame.user, ambient: ambient)
                }
            })
    }
}
