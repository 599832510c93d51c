import BareMetalCore
import JSON
import Kernel

/// Boot mode, secure boot and virtual media (DSP0268: ComputerSystem, SecureBoot, VirtualMedia).
extension RedfishHardware {
    // MARK: boot mode

    private static let modes: [(mode: BootMode, name: String)] = [(.bios, "Legacy"), (.uefi, "UEFI")]

    private static func mode(_ system: JSONObject) -> BootMode? {
        let word = system["Boot"]?["BootSourceOverrideMode"]?.stringValue
        return modes.first { $0.name == word }?.mode
    }

    func bootMode(of node: Node) async throws -> BootMode? { RedfishHardware.mode(try await machine(node).system) }

    func setBootMode(of node: Node, _ mode: BootMode) async throws {
        let (controller, path, system) = try await machine(node)
        guard RedfishHardware.mode(system) != mode, let name = RedfishHardware.modes.first(where: { $0.mode == mode })?.name else { return }
        let allowed = system["Boot"]?["BootSourceOverrideMode@Redfish.AllowableValues"]?.arrayValue?.compactMap(\.stringValue)
        guard allowed?.contains(name) != false else {
            throw HardwareFailure(
                description:
                    "The controller does not have the boot mode \(name), only \((allowed ?? []).prefix(8).joined(separator: ", ")).")
        }
        try await controller.patch(path, ["Boot": ["BootSourceOverrideMode": .string(name)]])
    }

    // MARK: secure boot

    private func secureBoot(_ controller: RedfishController, _ system: JSONObject) async throws -> (path: String, isOn: Bool?)? {
        guard let path = RedfishHardware.link(system["SecureBoot"]) else { return nil }
        do {
            return (path, try await controller.get(path)["SecureBootEnable"]?.boolValue)
        } catch let failure as HardwareFailure where [404, 405, 501].contains(failure.status) {
            // Some controllers link to it for machines that do not have it.
            return nil
        }
    }

    func secureBoot(of node: Node) async throws -> Bool? {
        let (controller, _, system) = try await machine(node)
        return try await secureBoot(controller, system)?.isOn
    }

    func setSecureBoot(of node: Node, _ isOn: Bool) async throws {
        let (controller, _, system) = try await machine(node)
        guard let state = try await secureBoot(controller, system) else {
            guard isOn else { return }
            throw HardwareFailure(description: "The machine has no secure boot that its controller could switch.")
        }
        guard !isOn || RedfishHardware.mode(system) != .bios else { throw HardwareFailure.secureBootNeedsUEFI }
        if state.isOn != isOn { try await controller.patch(state.path, ["SecureBootEnable": .bool(isOn)]) }
    }

    // MARK: virtual media

    /// A drive, as the controller describes it.
    private struct Slot {
        let path: String
        let drive: MediaDrive
        let insert: String?
        let eject: String?

        init(_ path: String, _ document: JSONObject) {
            self.path = path
            let image = document["Image"]?.stringValue.flatMap { $0.isEmpty ? nil : $0 }
            let isInserted = document["Inserted"]?.boolValue ?? (image != nil)
            drive = MediaDrive(
                types: (document["MediaTypes"]?.arrayValue ?? []).prefix(16).compactMap(\.stringValue),
                image: isInserted ? image ?? "" : nil)
            let actions = document["Actions"]
            insert = actions?["#VirtualMedia.InsertMedia"]?["target"]?.stringValue
            eject = actions?["#VirtualMedia.EjectMedia"]?["target"]?.stringValue
        }
    }

    /// The drives of the machine. Newer controllers have them at the machine, older ones at the manager.
    private func slots(_ controller: RedfishController, _ system: JSONObject) async throws -> [Slot] {
        var collections = [RedfishHardware.link(system["VirtualMedia"])].compactMap { $0 }
        if collections.isEmpty {
            for manager in (system["Links"]?["ManagedBy"]?.arrayValue ?? []).prefix(4).compactMap(RedfishHardware.link) {
                if let path = RedfishHardware.link(try await controller.get(manager)["VirtualMedia"]) { collections.append(path) }
            }
        }
        var slots: [Slot] = []
        for collection in collections {
            let members = try await controller.get(collection)["Members"]?.arrayValue ?? []
            for path in members.prefix(16).compactMap(RedfishHardware.link) { slots.append(Slot(path, try await controller.get(path))) }
        }
        return slots
    }

    func media(of node: Node) async throws -> [MediaDrive] {
        let (controller, _, system) = try await machine(node)
        return try await slots(controller, system).map(\.drive)
    }

    func insertMedia(of node: Node, _ device: MediaDevice, url: String) async throws {
        let (controller, _, system) = try await machine(node)
        let slots = try await slots(controller, system).filter { $0.drive.isDrive(for: device) }
        guard let slot = slots.first else {
            throw HardwareFailure(description: "The machine has no drive of the kind \(device.rawValue) for virtual media.")
        }
        // An image that is still there from an earlier start may be another version of what is at this URL now.
        for slot in slots where slot.drive.image != nil { try await empty(controller, slot) }
        guard let target = slot.insert else {
            return try await controller.patch(slot.path, ["Image": .string(url), "Inserted": true])
        }
        try await controller.post(target, ["Image": .string(url), "Inserted": true, "WriteProtected": true])
    }

    func ejectMedia(of node: Node, _ devices: Set<MediaDevice>) async throws {
        let (controller, _, system) = try await machine(node)
        for slot in try await slots(controller, system) where slot.drive.image != nil {
            if devices.contains(where: slot.drive.isDrive(for:)) { try await empty(controller, slot) }
        }
    }

    private func empty(_ controller: RedfishController, _ slot: Slot) async throws {
        guard let target = slot.eject else {
            return try await controller.patch(slot.path, ["Image": .null, "Inserted": false])
        }
        try await controller.post(target, [:])
    }
}
