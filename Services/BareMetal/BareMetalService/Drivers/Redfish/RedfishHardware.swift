import BareMetalCore
import JSON
import Kernel

/// Machines whose controller supports Redfish.
struct RedfishHardware: HardwareDriver {
    let secrets: NodeSecrets
    /// The directory with the operator's certificate authorities.
    let certificates: String?
    let ambient: Ambient
    let wait: PowerWait
    let sessions = RedfishSessions()

    let type = HardwareType.redfish
    let bootDevices: [BootDevice] = [.pxe, .disk, .cdrom, .bios, .uefihttp]
    let abilities = Set(HardwareAbility.allCases)
    let steps: [HardwareStep] = []

    // MARK: the controller

    private func controller(of node: Node) throws -> RedfishController {
        RedfishController(
            settings: try RedfishSettings(
                node.driverInfo, secrets: secrets.open(node.sealedSecrets, of: node.id), certificates: certificates),
            sessions: sessions, ambient: ambient)
    }

    /// The controller, and the path and state of the machine.
    func machine(_ node: Node) async throws -> (controller: RedfishController, path: String, system: JSONObject) {
        let controller = try controller(of: node)
        if let path = controller.settings.system { return (controller, path, try await controller.get(path)) }
        let root = try await controller.get(RedfishController.root)
        let systems = try await controller.get(RedfishHardware.link(root["Systems"]) ?? "/redfish/v1/Systems")
        let members = systems["Members"]?.arrayValue?.compactMap(RedfishHardware.link) ?? []
        guard members.count == 1 else {
            throw HardwareFailure(
                description: """
                    The controller \(controller.settings.address) has \(members.count) machines\(members.isEmpty ? "" : ": "
                    )\(members.prefix(16).joined(separator: ", ")). Name one in redfish_system_id.
                    """)
        }
        return (controller, members[0], try await controller.get(members[0]))
    }

    static func link(_ value: JSONValue?) -> String? { value?["@odata.id"]?.stringValue }

    func problems(of node: Node) -> [HardwareInterface: String] {
        do {
            _ = try controller(of: node)
            return [:]
        } catch let failure as HardwareFailure {
            return [.power: failure.description, .management: failure.description, .inspect: failure.description]
        } catch {
            return [.power: "The credentials of the node cannot be read: \(error)"]
        }
    }

    // MARK: power

    func power(of node: Node) async throws -> NodePower { RedfishHardware.power(try await machine(node).system) }

    private static func power(_ system: JSONObject) -> NodePower {
        switch system["PowerState"]?.stringValue {
        case "On", "PoweringOff": .on
        case "Off", "PoweringOn": .off
        default: .error
        }
    }

    func setPower(of node: Node, _ target: NodePower.Target, timeout: Int?) async throws {
        let (controller, path, system) = try await machine(node)
        let isOn = RedfishHardware.power(system) == .on
        let reset = Reset(system, path)
        func ask(_ kinds: [String], until wanted: NodePower) async throws {
            try await controller.post(reset.target, ["ResetType": .string(try reset.choose(kinds))])
            try await wait.until(wanted, for: target, timeout) { RedfishHardware.power(try await controller.get(path)) }
        }
        switch target {
        case .on:
            if !isOn { try await ask(Reset.on, until: .on) }
        case .off:
            if isOn { try await ask(Reset.off, until: .off) }
        case .softOff:
            if isOn { try await ask(Reset.softOff, until: .off) }
        case .reboot where isOn && reset.has(Reset.restart): try await ask(Reset.restart, until: .on)
        case .softReboot where isOn && reset.has(Reset.softRestart): try await ask(Reset.softRestart, until: .on)
        case .reboot, .softReboot:
            if isOn { try await ask(target.isSoft ? Reset.softOff : Reset.off, until: .off) }
            try await ask(Reset.on, until: .on)
        }
    }

    /// The action that changes the power, and the reset types that the controller supports.
    private struct Reset {
        static let on = ["On", "ForceOn"]
        static let off = ["ForceOff"]
        static let softOff = ["GracefulShutdown"]
        static let restart = ["ForceRestart", "PowerCycle"]
        static let softRestart = ["GracefulRestart"]

        let target: String
        /// Nil if the controller does not list them.
        let kinds: [String]?

        init(_ system: JSONObject, _ path: String) {
            let action = system["Actions"]?["#ComputerSystem.Reset"]
            target = action?["target"]?.stringValue ?? path + "/Actions/ComputerSystem.Reset"
            kinds = action?["ResetType@Redfish.AllowableValues"]?.arrayValue?.compactMap(\.stringValue)
        }

        func has(_ wanted: [String]) -> Bool { kinds.map { wanted.contains(where: $0.contains) } ?? true }

        func choose(_ wanted: [String]) throws -> String {
            guard let kinds else { return wanted[0] }
            guard let kind = wanted.first(where: kinds.contains) else {
                throw HardwareFailure(
                    description: """
                        The controller supports none of the reset types \(wanted.joined(separator: ", ")), only \
                        \(kinds.prefix(16).joined(separator: ", ")).
                        """)
            }
            return kind
        }
    }

    // MARK: boot device

    private static let devices: [(device: BootDevice, name: String)] = [
        (.pxe, "Pxe"), (.disk, "Hdd"), (.cdrom, "Cd"), (.bios, "BiosSetup"), (.uefihttp, "UefiHttp"), (.floppy, "Floppy"),
    ]

    func bootDevice(of node: Node) async throws -> BootOverride? {
        let boot = try await machine(node).system["Boot"]
        let word = boot?["BootSourceOverrideTarget"]?.stringValue
        let mode = boot?["BootSourceOverrideEnabled"]?.stringValue
        guard mode != "Disabled", let device = RedfishHardware.devices.first(where: { $0.name == word })?.device else { return nil }
        return BootOverride(device: device, isPersistent: mode == "Continuous")
    }

    func setBootDevice(of node: Node, _ device: BootDevice, isPersistent: Bool) async throws {
        guard let name = RedfishHardware.devices.first(where: { $0.device == device })?.name else {
            throw HardwareFailure(description: "A machine with Redfish cannot boot from \(device.rawValue).")
        }
        let (controller, path, system) = try await machine(node)
        let allowed = system["Boot"]?["BootSourceOverrideTarget@Redfish.AllowableValues"]?.arrayValue?.compactMap(\.stringValue)
        guard allowed?.contains(name) != false else {
            throw HardwareFailure(
                description: "The controller cannot boot from \(name), only from \((allowed ?? []).prefix(16).joined(separator: ", ")).")
        }
        try await controller.patch(
            path,
            [
                "Boot": [
                    "BootSourceOverrideTarget": .string(name), "BootSourceOverrideEnabled": isPersistent ? "Continuous" : "Once",
                ]
            ])
    }

    // MARK: inspection

    func inspect(_ node: Node) async throws -> HardwareInventory {
        let (controller, _, system) = try await machine(node)
        let memory = system["MemorySummary"]?["TotalSystemMemoryGiB"]?.doubleValue.map { Int($0 * 1024) }
        let processors = system["ProcessorSummary"]
        let cpus = processors?["LogicalProcessorCount"]?.intValue ?? processors?["Count"]?.intValue
        let architecture = try await architecture(controller, system)
        let disks = try await disks(controller, system)
        let interfaces = try await interfaces(controller, system)
        var properties = JSONObject()
        properties["cpus"] = cpus.map { JSONValue($0) }
        properties["memory_mb"] = memory.map { JSONValue($0) }
        properties["cpu_arch"] = architecture.map { .string($0) }
        // As in Ironic: the size of the smallest disk of at least 4 GiB, less 1 GiB for partitioning.
        let sizes = disks.compactMap { $0["size"]?.intValue }.filter { $0 >= 4 << 30 }
        properties["local_gb"] = sizes.min().map { JSONValue($0 >> 30 - 1) }
        return HardwareInventory(
            properties: properties,
            document: [
                "inventory": [
                    "cpu": ["architecture": JSONValue(architecture), "count": cpus.map { JSONValue($0) } ?? .null],
                    "memory": ["physical_mb": memory.map { JSONValue($0) } ?? .null], "disks": .array(disks),
                    "interfaces": .array(interfaces),
                    "system_vendor": [
                        "manufacturer": system["Manufacturer"] ?? .null, "product_name": system["Model"] ?? .null,
                        "serial_number": system["SerialNumber"] ?? .null,
                    ],
                ], "plugin_data": [:],
            ])
    }

    /// The members of a collection that the machine links to; none if the controller does not have the collection or returns an error,
    /// so that the inspection reports the rest.
    private func members(_ controller: RedfishController, _ link: JSONValue?) async throws -> [JSONObject] {
        guard let path = RedfishHardware.link(link) else { return [] }
        do {
            var found: [JSONObject] = []
            let paths = try await controller.get(path)["Members"]?.arrayValue?.compactMap(RedfishHardware.link) ?? []
            for path in paths.prefix(64) { found.append(try await controller.get(path)) }
            return found
        } catch let failure as HardwareFailure where failure.status != nil {
            return []
        }
    }

    private func architecture(_ controller: RedfishController, _ system: JSONObject) async throws -> String? {
        for processor in try await members(controller, system["Processors"]) {
            switch (processor["ProcessorArchitecture"]?.stringValue, processor["InstructionSet"]?.stringValue) {
            case (_, "x86-64"), ("x86", _): return "x86_64"
            case (_, "ARM-A64"), ("ARM", _): return "aarch64"
            default: continue
            }
        }
        return nil
    }

    private func disks(_ controller: RedfishController, _ system: JSONObject) async throws -> [JSONValue] {
        var disks: [JSONValue] = []
        for storage in try await members(controller, system["SimpleStorage"]) {
            for device in storage["Devices"]?.arrayValue ?? [] {
                guard let size = device["CapacityBytes"]?.intValue, size > 0 else { continue }
                disks.append(["name": device["Name"] ?? .null, "size": JSONValue(size), "model": device["Model"] ?? .null])
            }
        }
        return disks
    }

    private func interfaces(_ controller: RedfishController, _ system: JSONObject) async throws -> [JSONValue] {
        try await members(controller, system["EthernetInterfaces"]).compactMap { interface in
            let text = (interface["PermanentMACAddress"] ?? interface["MACAddress"])?.stringValue
            guard let address = text.flatMap({ MACAddress($0) }) else { return nil }
            return [
                "name": interface["Id"] ?? .null, "mac_address": .string(address.description),
                "has_carrier": .bool(interface["LinkStatus"]?.stringValue == "LinkUp"),
            ]
        }
    }

    func run(_ step: NodeRules.Step, of node: Node) async throws { try await runReserved(step, of: node) }
}
