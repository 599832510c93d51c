import ArgumentParser
import BareMetalCore
import Client
import JSON
import Kernel
import ServiceCatalog

/// Commands for the power, the boot device, maintenance and the history of nodes.
extension BareMetalNodes {
    struct Power: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "power", abstract: "Switch nodes on and off.", subcommands: [On.self, Off.self, Reboot.self])
    }

    /// Options and behaviour that the power commands share.
    protocol PowerVerb: APICommand {
        var nodes: [String] { get }
        var waiting: WaitOptions { get }
        var options: PowerOptions { get }
        var target: NodePower.Target { get }
    }

    struct PowerOptions: ParsableArguments {
        @Option(help: ArgumentHelp("Time limit for the power change.", valueName: "seconds")) var powerTimeout: Int?
    }

    struct On: PowerVerb {
        static let configuration = CommandConfiguration(commandName: "on", abstract: "Switch nodes on.")
        @Argument(help: ArgumentHelp("Names or ids.", valueName: "node")) var nodes: [String]
        @OptionGroup var options: PowerOptions
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions
        var target: NodePower.Target { .on }
    }

    struct Off: PowerVerb {
        static let configuration = CommandConfiguration(commandName: "off", abstract: "Switch nodes off.")
        @Argument(help: ArgumentHelp("Names or ids.", valueName: "node")) var nodes: [String]
        @Flag(help: "Let the operating system shut down.") var soft = false
        @OptionGroup var options: PowerOptions
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions
        var target: NodePower.Target { soft ? .softOff : .off }
    }

    struct Reboot: PowerVerb {
        static let configuration = CommandConfiguration(commandName: "reboot", abstract: "Restart nodes.")
        @Argument(help: ArgumentHelp("Names or ids.", valueName: "node")) var nodes: [String]
        @Flag(help: "Let the operating system shut down.") var soft = false
        @OptionGroup var options: PowerOptions
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions
        var target: NodePower.Target { soft ? .softReboot : .reboot }
    }

    /// A node has a target power state exactly while its power changes.
    fileprivate static let powerRule = ProgressRule(
        field: "power_state", created: [], failed: [],
        detail: { $0["target_power_state"]?.stringValue.map { "changing to \($0)" } ?? "" })

    struct Maintenance: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "maintenance", abstract: "Set or clear maintenance mode.", subcommands: [Set.self, Unset.self])

        struct Set: APICommand {
            static let configuration = CommandConfiguration(commandName: "set", abstract: "Put nodes into maintenance mode.")
            @Argument(help: ArgumentHelp("Names or ids.", valueName: "node")) var nodes: [String]
            @Option(help: "Reason.") var reason: String?
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                var body = JSONObject()
                body.put("reason", reason)
                try await BareMetalNodes.each(nodes, api, .put, "maintenance", .object(body))
            }
        }

        struct Unset: APICommand {
            static let configuration = CommandConfiguration(commandName: "unset", abstract: "Take nodes out of maintenance mode.")
            @Argument(help: ArgumentHelp("Names or ids.", valueName: "node")) var nodes: [String]
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws { try await BareMetalNodes.each(nodes, api, .delete, "maintenance", nil) }
        }
    }

    struct BootDevices: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "boot-device", abstract: "Boot devices of nodes.",
            subcommands: [ShowDevice.self, ListDevices.self, SetDevice.self])

        struct ShowDevice: APICommand {
            static let configuration = CommandConfiguration(commandName: "show", abstract: "Show a node's boot device.")
            @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
            @OptionGroup(title: "Output") var output: OutputOptions
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                let answer = try await BareMetalNodes.look(api, node, "management/boot_device")
                print(try output.object(answer, fields: nil), terminator: "")
            }
        }

        struct ListDevices: APICommand {
            static let configuration = CommandConfiguration(commandName: "list", abstract: "List the boot devices that a node supports.")
            @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
            @OptionGroup(title: "Output") var output: OutputOptions
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                let answer = try await BareMetalNodes.look(api, node, "management/boot_device/supported")
                let devices = answer["supported_boot_devices"]?.arrayValue ?? []
                print(try output.list(devices.map { ["device": $0] }, columns: [OutputColumn("Device", "device")]), terminator: "")
            }
        }

        struct SetDevice: APICommand {
            static let configuration = CommandConfiguration(commandName: "set", abstract: "Set a node's boot device.")
            @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
            @Argument(help: "pxe, disk, cdrom or another device of `boot-device list`.") var device: String
            @Flag(help: "Use the device for all boots, not only for the next one.") var persistent = false
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                let body: JSONValue = ["boot_device": .string(device), "persistent": .bool(persistent)]
                try await BareMetalNodes.each([node], api, .put, "management/boot_device", body)
            }
        }
    }

    struct Traits: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "trait", abstract: "Traits that allocations request.",
            subcommands: [ListTraits.self, AddTraits.self, RemoveTraits.self])

        struct ListTraits: APICommand {
            static let configuration = CommandConfiguration(commandName: "list", abstract: "List a node's traits.")
            @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
            @OptionGroup(title: "Output") var output: OutputOptions
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                let traits = try await BareMetalNodes.look(api, node, "traits")["traits"]?.arrayValue ?? []
                print(try output.list(traits.map { ["trait": $0] }, columns: [OutputColumn("Trait", "trait")]), terminator: "")
            }
        }

        struct AddTraits: APICommand {
            static let configuration = CommandConfiguration(commandName: "add", abstract: "Add traits to a node.")
            @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
            @Argument(help: ArgumentHelp("Traits, such as CUSTOM_GPU.", valueName: "trait")) var traits: [String]
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                for trait in traits { try await BareMetalNodes.each([node], api, .put, "traits/\(trait)", nil) }
            }
        }

        struct RemoveTraits: APICommand {
            static let configuration = CommandConfiguration(commandName: "remove", abstract: "Remove traits from a node.")
            @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
            @Argument(help: ArgumentHelp("Traits.", valueName: "trait")) var traits: [String]
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                for trait in traits { try await BareMetalNodes.each([node], api, .delete, "traits/\(trait)", nil) }
            }
        }
    }

    struct History: APICommand {
        static let configuration = CommandConfiguration(commandName: "history", abstract: "List the events of a node.")
        @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let columns = [
                OutputColumn("Time", "created_at"), OutputColumn("Severity", "severity"), OutputColumn("Event", "event"),
                OutputColumn("User", "user"),
            ]
            print(try output.list(try await BareMetalNodes.history(of: node, api), columns: columns), terminator: "")
        }
    }

    struct Validate: APICommand {
        static let configuration = CommandConfiguration(commandName: "validate", abstract: "Check a node's settings.")
        @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let found = try await BareMetalNodes.look(api, node, "validate").objectValue?.members ?? []
            let rows: [JSONValue] = found.sorted { $0.name < $1.name }.map { interface in
                [
                    "interface": .string(interface.name), "result": interface.value["result"] ?? .null,
                    "reason": interface.value["reason"] ?? .null,
                ]
            }
            let columns = ["Interface", "Result", "Reason"].map { OutputColumn($0, $0.lowercased()) }
            print(try output.list(rows, columns: columns), terminator: "")
        }
    }

    /// Explains a node's history and the possible next actions.
    struct Why: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "why", abstract: "Explain a node's state, its history and the possible next actions.")
        @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        private static let eventsMax = 12

        func execute(_ api: CloudAPI) async throws {
            let object = try await api.get(kind, id: node)
            print(Why.text(object, history: try await BareMetalNodes.history(of: node, api)), terminator: "")
        }

        static func text(_ node: JSONValue, history: [JSONValue]) -> String {
            func word(_ name: String) -> String? { node[name]?.stringValue.flatMap { $0.isEmpty ? nil : $0 } }
            let title = kind.title(node)
            let state = word("provision_state") ?? "unknown"
            var lines = ["Node \(title) is \(state)" + (word("target_provision_state").map { ", on the way to \($0)." } ?? ".")]
            lines.append(
                "Its power state is \(word("power_state") ?? "unknown")"
                    + (word("target_power_state").map { ", changing to \($0)." } ?? "."))
            if node["maintenance"] == true {
                lines.append("It is in maintenance" + (word("maintenance_reason").map { ": \($0)" } ?? "."))
            }
            if node["retired"] == true { lines.append("It is retired" + (word("retired_reason").map { ": \($0)" } ?? ".")) }
            if let instance = word("instance_uuid") { lines.append("It has the instance \(instance).") }
            if let error = word("last_error") { lines.append("The last error: \(error)") }
            if word("reservation") != nil { lines.append("A workflow on the node is in progress.") }
            let events = history.suffix(eventsMax)
            if !events.isEmpty { lines += ["", "History:"] }
            lines += events.map { event in
                let mark = event["severity"]?.stringValue == "ERROR" ? "! " : "  "
                return "\(mark)\(event["created_at"]?.stringValue?.prefix(19) ?? "")  \(event["event"]?.stringValue ?? "")"
            }
            let verbs = ProvisionState(rawValue: state).map(next) ?? []
            if !verbs.isEmpty, word("reservation") == nil {
                lines += ["", "Possible next actions:"] + verbs.map { "  osctl baremetal node \($0) \(title)" }
            }
            return lines.joined(separator: "\n") + "\n"
        }

        /// The commands that are possible in a state.
        private static func next(_ state: ProvisionState) -> [String] {
            ProvisionState.Event.allCases.filter { $0.isVerb && state.after($0) != nil }
                .map { $0 == .delete ? "undeploy" : $0.rawValue }
        }
    }

    // MARK: requests

    static func look(_ api: CloudAPI, _ node: String, _ path: RESTPath) async throws -> JSONValue {
        try await api.client.get(.bareMetal, kind.path(id: node) + "/" + path, microversion: kind.microversion)
    }

    fileprivate static func history(of node: String, _ api: CloudAPI) async throws -> [JSONValue] {
        try await api.client.list(
            service: .bareMetal, path: kind.path(id: node) + "/history", key: "history", microversion: kind.microversion)
    }

    /// Sends the same request for each node.
    static func each(_ nodes: [String], _ api: CloudAPI, _ method: RESTMethod, _ path: RESTPath, _ body: JSONValue?) async throws {
        let failures = await Several.run(nodes, api) { node in
            _ = try await api.client.request(
                service: .bareMetal, method: method, path: kind.path(id: node) + "/" + path, body: body, microversion: kind.microversion)
        }
        if failures > 0 { throw ExitCode(1) }
    }
}

extension BareMetalNodes.PowerVerb {
    func execute(_ api: CloudAPI) async throws {
        var body: JSONObject = ["target": .string(target.rawValue)]
        body.put("timeout", options.powerTimeout)
        let (request, kind) = (JSONValue.object(body), BareMetalNodes.kind)
        var accepted: [String] = []
        let failures = await Several.run(nodes, api) { node in
            _ = try await api.client.request(
                service: .bareMetal, method: .put, path: kind.path(id: node) + "/states/power", body: request,
                microversion: kind.microversion)
            accepted.append(node)
        }
        if waiting.wait { for node in accepted { try await settle(node, api) } }
        if failures > 0 { throw ExitCode(1) }
    }

    /// Waits until the power has changed.
    private func settle(_ id: String, _ api: CloudAPI) async throws {
        let (kind, rule, goal) = (BareMetalNodes.kind, BareMetalNodes.powerRule, target.result.rawValue)
        let node = try await Waiter(api, limit: waiting.timeout).poll(kind, id, id, rule) { object, state in
            guard let object else { throw CommandFailure("The node \(id) has disappeared.", hint: "See: \(kind.listCommand)") }
            guard rule.detail(object).isEmpty else { return false }
            if let error = object["last_error"]?.stringValue {
                throw CommandFailure("The node \(kind.title(object)) is \(state): \(error)", hint: "See: \(kind.commandText) why \(id)")
            }
            return state == goal
        }
        print("The power state of node \(node.map(kind.title) ?? id) is \(goal).")
    }
}
