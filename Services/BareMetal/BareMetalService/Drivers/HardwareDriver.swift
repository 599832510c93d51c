import BareMetalCore
import JSON
import Kernel
import ServiceKit

/// A controller's error, with a message for the node's `last_error`.
struct HardwareFailure: Error, Sendable, CustomStringConvertible {
    let description: String
    /// Whether the failure is temporary.
    var isTemporary = false
    /// The HTTP status of the controller's response; nil if there was none.
    var status: Int?

    static let secureBootNeedsUEFI = HardwareFailure(
        description: "Secure boot needs the boot mode uefi, and the machine's is bios.")

    /// The controller's message, truncated and without control characters, which could manipulate an operator's terminal.
    static func plain(_ text: String, max: Int) -> String {
        String(text.unicodeScalars.map { $0.properties.generalCategory == .control ? " " : String($0) }.joined().prefix(max))
    }
}

/// The machines of a hardware type. All calls may be repeated: a process can die after the effect and before it is recorded.
protocol HardwareDriver: Sendable {
    var type: HardwareType { get }
    /// The devices that the machines can boot from.
    var bootDevices: [BootDevice] { get }
    /// The steps of cleaning, deploying and servicing.
    var steps: [HardwareStep] { get }

    /// Missing or invalid settings of a node, by the interface that needs them.
    func problems(of node: Node) -> [HardwareInterface: String]
    /// - Throws: `HardwareFailure`, like the functions below.
    func power(of node: Node) async throws -> NodePower
    /// Returns when the power has changed.
    ///
    /// - Parameter timeout: seconds that an operating system may take to shut down; nil for the driver's own limit.
    func setPower(of node: Node, _ target: NodePower.Target, timeout: Int?) async throws
    /// Nil if the controller does not report it.
    func bootDevice(of node: Node) async throws -> BootOverride?
    func setBootDevice(of node: Node, _ device: BootDevice, isPersistent: Bool) async throws
    /// What the machines' controllers can do beyond power, boot devices and inspection. The functions below are only called for what
    /// is named here.
    var abilities: Set<HardwareAbility> { get }
    /// Nil if the controller does not say.
    func bootMode(of node: Node) async throws -> BootMode?
    /// The mode counts from the next start of the machine on.
    func setBootMode(of node: Node, _ mode: BootMode) async throws
    /// Nil if the machine has no secure boot.
    func secureBoot(of node: Node) async throws -> Bool?
    /// The setting counts from the next start of the machine on.
    func setSecureBoot(of node: Node, _ isOn: Bool) async throws
    /// The drives of the machine for virtual media.
    func media(of node: Node) async throws -> [MediaDrive]
    /// Presents the image at a URL, which the controller fetches, in the machine's drive of this kind, in place of another image.
    func insertMedia(of node: Node, _ device: MediaDevice, url: String) async throws
    /// Empties the machine's drives of these kinds.
    func ejectMedia(of node: Node, _ devices: Set<MediaDevice>) async throws
    /// The machine's components and properties.
    func inspect(_ node: Node) async throws -> HardwareInventory
    func run(_ step: NodeRules.Step, of node: Node) async throws

    /// Lets the agent in a machine's ramdisk call, for machines that exist in the database only. The agents of others call by themselves.
    func letAgentCall(of node: Node, _ calls: AgentCalls) async throws
    /// The command API of an agent that has called.
    func channel(to agent: Agent, of node: Node) throws -> any AgentChannel
    var secrets: NodeSecrets { get }
}

/// Machines whose agents are reached over the network.
extension HardwareDriver {
    func letAgentCall(of node: Node, _ calls: AgentCalls) async throws {}

    func channel(to agent: Agent, of node: Node) throws -> any AgentChannel {
        guard let url = agent.callbackURL, let token = agent.token else {
            throw HardwareFailure(description: "The agent has not called yet.")
        }
        return HTTPAgentChannel(url: url, token: try secrets.open(agentToken: token, of: node.id), certificate: agent.certificate)
    }
}

/// The device that a node boots from, for the next boot only or for all.
struct BootOverride: Sendable, Hashable {
    let device: BootDevice
    let isPersistent: Bool
}

/// Functions that not all controllers have.
enum HardwareAbility: String, Sendable, Hashable, CaseIterable {
    case bootMode = "boot modes"
    case secureBoot = "secure boot"
    case virtualMedia = "virtual media"
}

/// How a machine starts, as its controller shows it; nil for what it does not show.
struct BootState: Sendable, Hashable {
    var mode: BootMode?
    var isSecure: Bool?
}

extension HardwareDriver {
    /// Controllers that fail at a question which not all of them know can do everything else.
    func bootState(of node: Node) async throws -> BootState {
        var state = BootState()
        do { state.mode = try await bootMode(of: node) } catch is HardwareFailure {}
        do { state.isSecure = try await secureBoot(of: node) } catch is HardwareFailure {}
        return state
    }
}

/// A drive of a machine in which its controller can present an image.
struct MediaDrive: Sendable, Hashable {
    /// As Redfish names them: `CD`, `DVD`, `Floppy`, `USBStick`.
    let types: [String]
    /// The URL of the image; nil for an empty drive.
    let image: String?

    /// Whether the drive is one of this kind.
    func isDrive(for device: MediaDevice) -> Bool { !Set(types).isDisjoint(with: MediaDrive.types(of: device)) }

    static func types(of device: MediaDevice) -> [String] {
        switch device {
        case .cdrom: ["CD", "DVD"]
        case .floppy: ["Floppy"]
        case .disk: ["USBStick"]
        }
    }
}

/// Hardware without these functions.
extension HardwareDriver {
    var abilities: Set<HardwareAbility> { [] }
    func bootMode(of node: Node) async throws -> BootMode? { nil }
    func setBootMode(of node: Node, _ mode: BootMode) async throws { throw without(.bootMode) }
    func secureBoot(of node: Node) async throws -> Bool? { nil }
    func setSecureBoot(of node: Node, _ isOn: Bool) async throws { throw without(.secureBoot) }
    func media(of node: Node) async throws -> [MediaDrive] { throw without(.virtualMedia) }
    func insertMedia(of node: Node, _ device: MediaDevice, url: String) async throws { throw without(.virtualMedia) }
    func ejectMedia(of node: Node, _ devices: Set<MediaDevice>) async throws { throw without(.virtualMedia) }

    private func without(_ ability: HardwareAbility) -> HardwareFailure {
        HardwareFailure(description: "Hardware of the type \(type.name) has no \(ability.rawValue).")
    }
}

/// The result of an inspection.
struct HardwareInventory: Sendable {
    /// For the node's `properties`.
    let properties: JSONObject
    /// The inventory in the format of ironic-python-agent.
    let document: JSONObject
}

/// Waits until a machine's power has changed.
struct PowerWait: Sendable {
    let ambient: Ambient
    /// The interval between two polls.
    var poll: Duration = .seconds(1)

    /// The time limits in seconds for a hard power change, and for a shutdown of the operating system.
    private static let (hardMax, softMax) = (90, 600)

    /// - Parameter timeout: seconds; nil for the usual limit.
    /// - Throws: `HardwareFailure` if the power has not changed by then.
    func until(_ wanted: NodePower, for target: NodePower.Target, _ timeout: Int?, _ look: () async throws -> NodePower) async throws {
        let seconds = timeout ?? (target.isSoft ? PowerWait.softMax : PowerWait.hardMax)
        let end = ambient.time.monotonicNanoseconds() + UInt64(seconds) * 1_000_000_000
        while true {
            do { if try await look() == wanted { return } } catch let failure as HardwareFailure where failure.isTemporary {
                // Controllers are often busy while they change the power.
                guard ambient.time.monotonicNanoseconds() < end else { throw failure }
            }
            guard ambient.time.monotonicNanoseconds() < end else {
                throw HardwareFailure(
                    description: "The machine did not reach the state \(wanted.rawValue) within \(seconds) seconds.")
            }
            try await ambient.time.sleep(for: poll)
        }
    }
}

/// A step that a hardware type supports.
struct HardwareStep: Sendable {
    enum Use: Sendable, Hashable { case clean, deploy, service, rescue }

    let interface: HardwareInterface
    let name: String
    let uses: Set<Use>
    /// The order in automated cleaning and in deploying, highest first; 0 for steps that only run on request.
    let priority: Int

    /// Steps that every hardware type supports.
    static let hold = "hold"
    static let reserved = [hold, "power_on", "power_off", "reboot"]
}

extension HardwareDriver {
    func setPower(of node: Node, _ target: NodePower.Target) async throws { try await setPower(of: node, target, timeout: nil) }

    /// - Throws: 400 for a step that these machines do not have.
    func require(_ steps: [NodeRules.Step], for event: ProvisionState.Event, of node: Node) throws {
        if let step = steps.first(where: { $0.args?.isEmpty == false }) {
            throw ResourceError.badRequest("Invalid step \(step.interface).\(step.step.prefix(64)): it takes no arguments.")
        }
        let use: HardwareStep.Use = event == .clean ? .clean : event == .service ? .service : .deploy
        for step in steps where !HardwareStep.reserved.contains(step.step) {
            let isKnown = self.steps.contains { $0.interface.rawValue == step.interface && $0.name == step.step && $0.uses.contains(use) }
            guard isKnown else {
                let known = self.steps.filter { $0.uses.contains(use) }.map { "\($0.interface.rawValue).\($0.name)" }
                throw ResourceError.badRequest(
                    """
                    Invalid \(use) step \(step.interface).\(step.step.prefix(64)): node \(node.id) does not support it. It has \
                    \((known + HardwareStep.reserved).joined(separator: ", ")).
                    """)
            }
        }
    }

    /// The steps of a deployment: those of the driver and those of the request, highest priority first. A step of the request replaces
    /// the driver's step of the same name; with priority 0, it removes that step.
    func deploySteps(_ requested: [NodeRules.Step]) -> [NodeRules.Step] {
        let named = Set(requested.map { [$0.interface, $0.step] })
        let all = usualSteps(for: .deploy).filter { !named.contains([$0.interface, $0.step]) } + requested.filter { $0.priority != 0 }
        return all.enumerated().sorted { ($0.element.priority ?? 0, $1.offset) > ($1.element.priority ?? 0, $0.offset) }.map(\.element)
    }

    /// Runs a power step, which every hardware type supports.
    func runReserved(_ step: NodeRules.Step, of node: Node) async throws {
        switch step.step {
        case "power_on": try await setPower(of: node, .on)
        case "power_off": try await setPower(of: node, .off)
        case "reboot": try await setPower(of: node, .reboot)
        default:
            throw HardwareFailure(
                description: "Hardware of the type \(type.name) has no step \(step.interface).\(step.step.prefix(64)).")
        }
    }

    /// The steps of a use that run automatically, highest priority first.
    func usualSteps(for use: HardwareStep.Use) -> [NodeRules.Step] {
        steps.filter { $0.uses.contains(use) && $0.priority > 0 }.sorted { ($0.priority, $1.name) > ($1.priority, $0.name) }
            .map { NodeRules.Step(interface: $0.interface.rawValue, step: $0.name, priority: $0.priority) }
    }
}

/// The drivers of the enabled hardware types.
struct HardwareFleet: Sendable {
    private let drivers: [String: any HardwareDriver]
    /// The types that the operator has enabled.
    let types: [HardwareType]

    init(_ surroundings: ServiceSurroundings, _ secrets: NodeSecrets, _ options: BareMetalOptions) {
        let (database, ambient) = (surroundings.database, surroundings.ambient)
        let drivers: [any HardwareDriver] = [
            FakeHardware(database: database, secrets: secrets, ambient: ambient),
            RedfishHardware(
                secrets: secrets, certificates: options.certificatesDirectory, ambient: ambient, wait: PowerWait(ambient: ambient)),
            IPMIHardware(secrets: secrets, wait: PowerWait(ambient: ambient)),
        ]
        types = options.hardwareTypes
        let enabled = Set(types.map(\.name))
        self.drivers = Dictionary(uniqueKeysWithValues: drivers.filter { enabled.contains($0.type.name) }.map { ($0.type.name, $0) })
    }

    /// - Throws: 400 if the node has a hardware type that the operator has not enabled.
    func driver(of node: Node) throws -> any HardwareDriver {
        guard let driver = drivers[node.driver] else {
            throw ResourceError.badRequest(
                "Node \(node.id) has the driver \(node.driver), which is not enabled in this cloud (bare_metal.hardware_types).")
        }
        return driver
    }

    /// - Throws: 400 where the node's hardware does not have a function.
    func require(_ ability: HardwareAbility, of node: Node) throws {
        guard try driver(of: node).abilities.contains(ability) else {
            throw ResourceError.badRequest(
                "Driver \(node.driver) does not support \(ability.rawValue) (disabled or not implemented) for node \(node.id).")
        }
    }

    /// - Throws: 400 for a name that is unknown or not enabled.
    func type(named name: String) throws -> HardwareType {
        guard let type = types.first(where: { $0.name == name }) else {
            throw ResourceError.badRequest(
                """
                No valid host was found. Reason: No conductor service registered which supports driver \(name.prefix(64)); there are \
                \(types.map(\.name).joined(separator: ", ")).
                """)
        }
        return type
    }

    /// Runs an operation for a request that waits for the result.
    ///
    /// - Throws: 503 with the controller's error message.
    func asked<Value: Sendable>(_ node: Node, _ body: (any HardwareDriver) async throws -> Value) async throws -> Value {
        do { return try await body(try driver(of: node)) } catch let failure as HardwareFailure {
            throw ResourceError(
                .unavailable, "The request to the controller of node \(node.id) has failed: \(failure.description)", retryAfter: 5)
        }
    }
}
