import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// The states of a node: power, provisioning, and boot device.
struct NodeStateRoutes: Sendable {
    let bareMetal: BareMetal
    private var database: Database { bareMetal.database }

    var resource: Resource {
        let (states, management) = (NodeRoutes.one + "/states", NodeRoutes.one + "/management")
        return Resource(
            "node-state",
            routes: [
                Route(
                    .get, states, action: "baremetal:node:get_states", rule: NodePolicy.nodeReader, answer: .one(.nodeStates),
                    "Show the states of a node", handler: show),
                Route(
                    .put, states + "/power", action: "baremetal:node:set_power_state", rule: NodePolicy.nodeMember,
                    body: .json(NodeStateRoutes.power), status: 202, "Change the power state", handler: setPower),
                Route(
                    .put, states + "/provision", action: "baremetal:node:set_provision_state", rule: NodePolicy.nodeUser,
                    body: .json(NodeStateRoutes.provision), status: 202, "Change the provision state", handler: setProvision),
                Route(
                    .get, management + "/boot_device", action: "baremetal:node:get_boot_device", rule: NodePolicy.owner,
                    answer: .form(.object([.required("boot_device", .nullable(.anyText)), .required("persistent", .nullable(.boolean))])),
                    "Show a node's boot device", handler: showBootDevice),
                Route(
                    .put, management + "/boot_device", action: "baremetal:node:set_boot_device", rule: NodePolicy.owner,
                    body: .json(NodeStateRoutes.bootDevice), status: 204, "Set a node's boot device", handler: setBootDevice),
                Route(
                    .get, management + "/boot_device/supported", action: "baremetal:node:get_boot_device", rule: NodePolicy.owner,
                    answer: .form(.object([.required("supported_boot_devices", .many(.anyText))])),
                    "List the boot devices that a node supports"
                ) { context in
                    let node = try await database.read { try bareMetal.node($0, context).value }
                    let devices = try bareMetal.hardware.driver(of: node).bootDevices
                    return .json(200, ["supported_boot_devices": JSONValue(devices.map(\.rawValue))])
                },
            ])
    }

    private static let power = BodySchema.object([
        .init("target", .enumeration(NodePower.Target.allCases.map(\.rawValue)), required: true),
        .init("timeout", .nullable(.integer(min: 1, max: 86400)), versions: .minor(27)),
    ])

    private static let stepMembers: [BodySchema.Property] = [
        .init("interface", .enumeration(HardwareInterface.allCases.map(\.rawValue)), required: true),
        .init("step", .string(min: 1, max: 255, format: nil), required: true), .init("args", .object([], additional: .allowed)),
    ]
    /// Steps of cleaning and servicing run in the order of the request.
    private static let step = BodySchema.object(stepMembers)
    /// Steps of deploying run among those of the driver, by priority.
    private static let deployStep = BodySchema.object(
        stepMembers + [.init("priority", .integer(min: 0, max: Int(Int32.max)), required: true)])

    private static let provision = BodySchema.object([
        .init("target", .string(min: 1, max: 64, format: nil), required: true),
        .init("clean_steps", .nullable(.array(step, min: 1, max: BareMetalLimits.stepsMax)), versions: .minor(15)),
        .init("deploy_steps", .nullable(.array(deployStep, min: 1, max: BareMetalLimits.stepsMax)), versions: .minor(69)),
        .init("service_steps", .nullable(.array(step, min: 1, max: BareMetalLimits.stepsMax)), versions: .minor(87)),
        .init("rescue_password", .nullable(.string(min: 1, max: 255, format: nil)), versions: .minor(38)),
        .init("configdrive", .nullable(.any)),
        .init("disable_ramdisk", .nullable(.boolean), versions: .minor(70)),
    ])

    private static let bootDevice = BodySchema.object([
        .init("boot_device", .enumeration(BootDevice.allCases.map(\.rawValue)), required: true),
        .init("persistent", .nullable(.boolean)),
    ])

    private func show(_ context: RequestContext) async throws -> Response {
        try await database.read { connection in
            let node = try bareMetal.node(connection, context)
            let id = node.value.id
            return try ResourceKind.nodeStates.one(connection, context, where: "t.id = \(id)", id: "\(id)")
        }
    }

    // MARK: power

    private func setPower(_ context: RequestContext) async throws -> Response {
        guard let target = NodePower.Target(rawValue: context.body["target"]?.stringValue ?? "") else {
            throw ResourceError.badRequest("The request needs a target.")
        }
        guard !target.isSoft || context.version(atLeast: 1, 27) else { throw NodeRoutes.notAcceptable(27, "the target \(target.rawValue)") }
        let timeout = context.body["timeout"]?.intValue
        return try await context.write(database) { connection in
            let node = try bareMetal.node(connection, context, isLocked: true)
            try node.value(for: "baremetal:node:set_power_state")
            try bareMetal.requireIdle(connection, node.value)
            // A machine must not be powered off while it is cleaned or deployed.
            guard !node.value.state.isWorking else {
                throw ResourceError.conflict(
                    "The power of node \(node.value.id) cannot be changed while it is in state \(node.value.state.rawValue).")
            }
            if node.value.disablesPowerOff, target.result == .off {
                throw ResourceError.badRequest("Node \(node.value.id) has disable_power_off set, so it cannot be powered off.")
            }
            try NodeStore.requestPower(connection, node, target, at: context.ambient.now)
            try Workflows.start(
                connection, bareMetal.workflows.power, subject: node.value.id.description,
                frame: .init(target: target, timeout: timeout, user: node.caller.userID), requestID: context.requestID,
                ambient: context.ambient)
            return Change(
                .empty(202, headers: ["location": "\(context.publicURL)/v1/nodes/\(context.parameter("node"))/states"]), "node",
                node.value.id.description, content: ["target_power_state": .string(target.rawValue)])
        }
    }

    // MARK: provisioning

    private func setProvision(_ context: RequestContext) async throws -> Response {
        let body = context.body.objectValue ?? [:]
        let word = body["target"]?.stringValue ?? ""
        guard let event = ProvisionState.Event(target: word) else {
            throw ResourceError.badRequest("The requested action \"\(word.prefix(64))\" could not be understood.")
        }
        if let since = NodeStateRoutes.since[word], !context.version(atLeast: 1, since) {
            throw NodeRoutes.notAcceptable(since, "the target \(word)")
        }
        let steps = try NodeStateRoutes.steps(body, event)
        return try await context.write(database) { connection in
            let node = try bareMetal.node(connection, context, isLocked: true)
            try NodeTransition(bareMetal: bareMetal, context: context, node: node, event: event, word: word, steps: steps, body: body)
                .begin(connection)
            return Change(
                .empty(202, headers: ["location": "\(context.publicURL)/v1/nodes/\(context.parameter("node"))/states"]), "node",
                node.value.id.description, content: ["target": .string(word)])
        }
    }

    /// The minor version that introduced each target.
    private static let since = [
        "manage": 4, "provide": 4, "inspect": 6, "abort": 13, "clean": 15, "adopt": 17, "rescue": 38, "unrescue": 38, "deploy": 73,
        "undeploy": 73, "unhold": 85, "service": 87,
    ]

    /// The steps that a request names for its target.
    ///
    /// - Throws: 400 for steps of another target.
    private static func steps(_ body: JSONObject, _ event: ProvisionState.Event) throws -> [NodeRules.Step] {
        let places: [(name: String, events: Set<ProvisionState.Event>)] = [
            ("clean_steps", [.clean]), ("deploy_steps", [.deploy, .rebuild]), ("service_steps", [.service]),
        ]
        for (name, events) in places where body[name]?.arrayValue != nil && !events.contains(event) {
            let words = events.map(\.rawValue).sorted().joined(separator: " or ")
            throw ResourceError.badRequest(
                "\"\(name)\" is only valid when setting target provision state to \(words)."
            )
        }
        if body["rescue_password"]?.stringValue != nil, event != .rescue {
            throw ResourceError.badRequest("\"rescue_password\" is only valid when setting target provision state to rescue.")
        }
        if try NodeRules.configDrive(body["configdrive"]) != nil, event != .deploy, event != .rebuild {
            throw ResourceError.badRequest("Adding a config drive is only supported when setting provision state to active or rebuild.")
        }
        if body["disable_ramdisk"]?.boolValue == true, event != .clean {
            throw ResourceError.badRequest("\"disable_ramdisk\" is only valid when setting target provision state to clean.")
        }
        let named = places.first { $0.events.contains(event) }.flatMap { body[$0.name]?.arrayValue } ?? []
        return named.map {
            NodeRules.Step(
                interface: $0["interface"]?.stringValue ?? "", step: $0["step"]?.stringValue ?? "", args: $0["args"]?.objectValue,
                priority: $0["priority"]?.intValue)
        }
    }

    // MARK: boot device

    private func showBootDevice(_ context: RequestContext) async throws -> Response {
        let node = try await database.read { try bareMetal.node($0, context).value }
        let boot = try await bareMetal.hardware.asked(node) { try await $0.bootDevice(of: node) }
        return .json(
            200, ["boot_device": JSONValue(boot?.device.rawValue), "persistent": boot.map { .bool($0.isPersistent) } ?? .null])
    }

    private func setBootDevice(_ context: RequestContext) async throws -> Response {
        guard let device = BootDevice(rawValue: context.body["boot_device"]?.stringValue ?? "") else {
            throw ResourceError.badRequest("The request needs a boot_device.")
        }
        let isPersistent = context.body["persistent"]?.boolValue ?? false
        let (database, hardware) = (database, bareMetal.hardware)
        // The only effect is a call to the controller, which a repeated request with the same key can safely make again.
        return try await context.write(database) { connection in
            let node = try bareMetal.node(connection, context, isLocked: true)
            try bareMetal.requireIdle(connection, node.value)
            guard try hardware.driver(of: node.value).bootDevices.contains(device) else {
                throw ResourceError.badRequest("Invalid input for boot_device. Value: '\(device.rawValue)'. The node cannot boot from it.")
            }
            let id = try node.value(for: "baremetal:node:set_boot_device").id.description
            let work: JSONValue = ["device": .string(device.rawValue)]
            return BegunWork(work, "node", id, content: work)
        } finish: { _ in
            let node = try await database.read { try bareMetal.node($0, context).value }
            try await hardware.asked(node) { try await $0.setBootDevice(of: node, device, isPersistent: isPersistent) }
            return .empty(204)
        }
    }
}
