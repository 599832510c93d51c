import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// A change of the provision state that a client requests.
struct NodeTransition {
    let bareMetal: BareMetal
    let context: RequestContext
    let node: Authorized<Node>
    let event: ProvisionState.Event
    /// The event, as the request names it.
    let word: String
    let steps: [NodeRules.Step]
    let body: JSONObject

    /// Moves the node and starts its work, in the transaction of the request.
    ///
    /// - Throws: 400 if the state does not allow the change, 409 while other work is in progress.
    func begin(_ connection: Connection) throws {
        let node = try self.node.value(for: "baremetal:node:set_provision_state")
        let now = context.ambient.now
        guard let next = node.state.after(event) else {
            try bareMetal.requireIdle(connection, node)
            throw ResourceError.badRequest(
                """
                The requested action "\(word)" can not be performed on node "\(node.id)" while it is in state "\(node.state.rawValue)".
                """)
        }
        try requireUsable(node)
        if startsRamdisk(node) { try requireRamdisk(connection, node) }
        let drive = try NodeRules.configDrive(body["configdrive"]).map { try bareMetal.secrets.seal(configDrive: $0, of: node.id) }
        // `abort` and `unhold` are about the work in progress; all other changes require that there is none.
        if event != .abort, event != .unhold { try bareMetal.requireIdle(connection, node) }
        try NodeStore.begin(connection, self.node, event, target: event == .clean ? .manageable : nil, at: now)
        if let drive { try ConfigDriveStore.keep(connection, self.node, drive) }
        try NodeStore.record(
            connection, self.node, "\(node.state.rawValue) → \(next.rawValue): \(word)", ambient: context.ambient)
        let workflows = bareMetal.workflows
        switch event {
        case .manage where next == .verifying: try start(connection, workflows.verify, .init())
        case .inspect where node.isInspectedByAgent: try start(connection, workflows.agentInspect, .init())
        case .inspect: try start(connection, workflows.inspect, .init())
        case .provide where startsRamdisk(node): try start(connection, workflows.agentClean, .init())
        case .provide: try start(connection, workflows.clean, .init(steps: try workflows.automatedSteps(node), isManual: false))
        case .clean where startsRamdisk(node): try start(connection, workflows.agentClean, .init(steps: steps, isManual: true))
        case .clean: try start(connection, workflows.clean, .init(steps: steps, isManual: true))
        case .adopt: try start(connection, workflows.adopt, .init())
        case .deploy where node.usesAgent, .rebuild where node.usesAgent: try start(connection, workflows.agentDeploy, .init())
        case .deploy, .rebuild: try start(connection, workflows.deploy, .init(steps: steps, isRebuild: event == .rebuild))
        case .delete where startsRamdisk(node): try start(connection, workflows.agentUndeploy, .init())
        case .delete: try start(connection, workflows.undeploy, .init(steps: try workflows.automatedSteps(node), isManual: false))
        case .rescue: try start(connection, workflows.rescue, .init())
        case .unrescue: try start(connection, workflows.unrescue, .init())
        case .service: try start(connection, workflows.service, .init(steps: steps, isManual: true))
        case .abort, .unhold: Workflows.wake(connection, service: NodeWorkflows.service, subject: node.id.description)
        default: break
        }
    }

    /// Whether the work that the request asks for needs the agent in the node's ramdisk.
    private func startsRamdisk(_ node: Node) -> Bool {
        switch event {
        case .provide, .delete: node.usesAgent && node.cleansAutomatically != false
        case .clean: node.usesAgent && body["disable_ramdisk"]?.boolValue != true
        case .deploy, .rebuild: node.usesAgent
        case .inspect: node.isInspectedByAgent
        default: false
        }
    }

    private func start<Frame>(_ connection: Connection, _ workflow: Workflow<Frame>, _ frame: Frame) throws {
        let id = try node.value(for: "baremetal:node:set_provision_state").id
        try Workflows.start(
            connection, workflow, subject: id.description, frame: frame, requestID: context.requestID, ambient: context.ambient)
    }

    private func requireUsable(_ node: Node) throws {
        switch event {
        case .deploy, .rebuild:
            guard !node.isInMaintenance else {
                throw ResourceError.badRequest(
                    "The provisioning operation can't be performed on node \(node.id) because it's in maintenance mode.")
            }
            guard event != .rebuild || !node.isProtected else { throw protected(node) }
            guard node.interfaces[.deploy] != "no-deploy" else { throw unsupported(node, .deploy) }
        case .delete: guard !node.isProtected else { throw protected(node) }
        case .provide:
            guard !node.isRetired else {
                throw ResourceError.conflict("Node \(node.id) is retired; it cannot be made available.")
            }
        case .clean, .service:
            guard !steps.isEmpty else {
                throw ResourceError.badRequest("\"\(event.rawValue)_steps\" is required when setting target provision state to \(word).")
            }
            if !startsRamdisk(node) { try bareMetal.hardware.driver(of: node).require(steps, for: event, of: node) }
        case .rescue:
            guard node.interfaces[.rescue] != "no-rescue" else { throw unsupported(node, .rescue) }
            guard body["rescue_password"]?.stringValue?.allSatisfy(\.isWhitespace) == false else {
                throw ResourceError.badRequest("A non-empty \"rescue_password\" is required when setting target provision state to rescue.")
            }
        case .inspect: guard node.interfaces[.inspect] != "no-inspect" else { throw unsupported(node, .inspect) }
        default: break
        }
        if event == .deploy || event == .rebuild, !steps.isEmpty, !node.usesAgent {
            try bareMetal.hardware.driver(of: node).require(steps, for: event, of: node)
        }
    }

    /// - Throws: 400 for what the ramdisk's agent would lack.
    private func requireRamdisk(_ connection: Connection, _ node: Node) throws {
        _ = try bareMetal.workflows.ramdisk(of: node)
        switch event {
        case .deploy, .rebuild:
            guard steps.isEmpty else {
                throw ResourceError.badRequest("Node \(node.id) has the deploy_interface direct, which takes no deploy_steps.")
            }
            let info = try NodeStore.instanceInfo(connection, of: node.id)
            _ = try DeployImage(info)
            try RootDevice.require(info["root_device"])
            try RootDevice.require(try NodeStore.properties(connection, of: node.id)["root_device"])
        case .clean:
            // The agent says which steps it has when it runs.
            if let step = steps.first(where: { HardwareStep.reserved.contains($0.step) && $0.step != HardwareStep.hold }) {
                throw ResourceError.badRequest(
                    "Invalid clean step \(step.interface).\(step.step): the agent would lose its work, because it restarts the machine.")
            }
        default: break
        }
    }

    private func protected(_ node: Node) -> ResourceError {
        .forbidden("Node \(node.id) is protected and cannot be undeployed, rebuilt or deleted.")
    }

    private func unsupported(_ node: Node, _ interface: HardwareInterface) -> ResourceError {
        .badRequest("Driver \(node.driver) does not support \(interface.rawValue) (disabled or not implemented) for node \(node.id).")
    }
}
