import BareMetalCore
import Commands
import Glibc
import JSON
import Kernel

/// Machines whose controller supports IPMI 2.0, through `ipmitool`. Arguments are passed as an array, and the password through a pipe, so
/// it does not appear in the process list.
struct IPMIHardware: HardwareDriver {
    let secrets: NodeSecrets
    let wait: PowerWait
    var tool = "/usr/bin/ipmitool"

    let type = HardwareType.ipmi
    let bootDevices: [BootDevice] = [.pxe, .disk, .cdrom, .bios, .safe]
    let steps: [HardwareStep] = []

    private let threads = WorkerThreads(name: "ipmitool", count: 8)
    private static let timeout: Duration = .seconds(60)

    /// The members `ipmi_…` of `driver_info`.
    struct Settings: Sendable {
        let arguments: [String]
        let password: Secret<String>?

        /// - Throws: `HardwareFailure` naming the member.
        init(_ info: JSONObject, _ secrets: [String: Secret<String>]) throws(HardwareFailure) {
            func text(_ name: String, max: Int, _ characters: String, _ allowed: (UInt8) -> Bool) throws(HardwareFailure) -> String? {
                guard let value = info[name], value != .null else { return nil }
                // `ipmitool` would interpret a value that begins with a dash as an option.
                guard let text = value.stringValue, !text.isEmpty, text.utf8.count <= max, !text.hasPrefix("-"),
                    text.utf8.allSatisfy(allowed)
                else {
                    throw HardwareFailure(
                        description: """
                            \(name) must have 1 to \(max) characters, only \(characters), and must not begin with a dash; it is \
                            \(value.description.prefix(64)).
                            """)
                }
                return text
            }
            func number(_ name: String, _ range: ClosedRange<Int>) throws(HardwareFailure) -> Int? {
                guard let value = info[name], value != .null else { return nil }
                guard let number = value.intValue ?? value.stringValue.flatMap({ Int($0) }), range.contains(number) else {
                    throw HardwareFailure(
                        description: "\(name) must be from \(range.lowerBound) to \(range.upperBound), not \(value.description.prefix(64))."
                    )
                }
                return number
            }
            let hostCharacters = "letters, digits and . - : _"
            func isHost(_ byte: UInt8) -> Bool {
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"):
                    true
                default: ".-:_".utf8.contains(byte)
                }
            }
            guard let address = try text("ipmi_address", max: 255, hostCharacters, isHost) else {
                throw HardwareFailure(description: "ipmi_address is required.")
            }
            let level = try text("ipmi_priv_level", max: 16, hostCharacters, isHost) ?? "ADMINISTRATOR"
            guard ["ADMINISTRATOR", "OPERATOR", "USER", "CALLBACK"].contains(level) else {
                throw HardwareFailure(
                    description: "ipmi_priv_level must be ADMINISTRATOR, OPERATOR, USER or CALLBACK, not \(level.prefix(64)).")
            }
            var words = ["-I", "lanplus", "-H", address, "-p", String(try number("ipmi_port", 1...65535) ?? 623), "-L", level]
            // IPMI 2.0, table 22-30: names have at most 16 bytes, passwords at most 20.
            if let user = try text("ipmi_username", max: 16, "printable ASCII without spaces", { (0x21...0x7e).contains($0) }) {
                words += ["-U", user]
            }
            if let suite = try number("ipmi_cipher_suite", 0...17) { words += ["-C", String(suite)] }
            password = secrets["ipmi_password"]
            if let password {
                guard password.exposed.utf8.count <= 20 else {
                    throw HardwareFailure(description: "ipmi_password must be at most 20 bytes.")
                }
                words += ["-f", "/dev/fd/3"]
            }
            // Few retries for each message, because the workflow retries its step.
            arguments = words + ["-R", "3", "-N", "2"]
        }
    }

    private func settings(_ node: Node) throws -> Settings {
        try Settings(node.driverInfo, secrets.open(node.sealedSecrets, of: node.id))
    }

    func problems(of node: Node) -> [HardwareInterface: String] {
        do {
            _ = try settings(node)
            return [:]
        } catch let failure as HardwareFailure {
            return [.power: failure.description, .management: failure.description]
        } catch {
            return [.power: "The credentials of the node cannot be read: \(error)"]
        }
    }

    // MARK: ipmitool

    private func run(_ node: Node, _ words: [String]) async throws -> String {
        let settings = try settings(node)
        let command = Command(
            [tool] + settings.arguments + words, input: settings.password.map { Array($0.exposed.utf8) + [UInt8(ascii: "\n")] })
        let outcome: Command.Outcome
        do {
            outcome = try await withTaskCancellationHandler {
                try await threads.run { try command.outcome(timeout: IPMIHardware.timeout) }
            } onCancel: {
                command.cancel()
            }
        } catch let error as CommandError {
            throw HardwareFailure(description: "\(tool) cannot be run: \(error.output)")
        }
        guard outcome.status == 0 else {
            let text = HardwareFailure.plain(outcome.output, max: 300)
            let ending = outcome.status.map { "status \($0)" } ?? "time limit exceeded"
            throw HardwareFailure(
                description: "ipmitool \(words.joined(separator: " ")) has failed (\(ending)): \(text)", isTemporary: true)
        }
        return outcome.output
    }

    // MARK: power

    func power(of node: Node) async throws -> NodePower {
        let text = try await run(node, ["power", "status"]).lowercased()
        if text.contains("chassis power is on") { return .on }
        return text.contains("chassis power is off") ? .off : .error
    }

    func setPower(of node: Node, _ target: NodePower.Target, timeout: Int?) async throws {
        let isOn = try await power(of: node) == .on
        func ask(_ word: String, until wanted: NodePower) async throws {
            _ = try await run(node, ["power", word])
            try await wait.until(wanted, for: target, timeout) { try await power(of: node) }
        }
        switch target {
        case .on:
            if !isOn { try await ask("on", until: .on) }
        case .off:
            if isOn { try await ask("off", until: .off) }
        case .softOff:
            if isOn { try await ask("soft", until: .off) }
        case .reboot, .softReboot:
            // Off and on again: after a reset, the firmware may still use the boot device that it read before the change.
            if isOn { try await ask(target.isSoft ? "soft" : "off", until: .off) }
            try await ask("on", until: .on)
        }
    }

    // MARK: boot device

    /// The device names of `ipmitool`, in arguments and in output.
    private static let devices: [(device: BootDevice, word: String, shown: String)] = [
        (.pxe, "pxe", "force pxe"), (.disk, "disk", "force boot from default hard-drive"), (.cdrom, "cdrom", "force boot from cd/dvd"),
        (.bios, "bios", "force boot into bios setup"), (.safe, "safe", "force boot from default hard-drive, request safe-mode"),
    ]

    func bootDevice(of node: Node) async throws -> BootOverride? {
        let lines = try await run(node, ["chassis", "bootparam", "get", "5"]).lowercased().split(separator: "\n")
            .map { $0.drop { $0 == " " || $0 == "-" } }
        guard let selector = lines.first(where: { $0.hasPrefix("boot device selector") })?.split(separator: ":", maxSplits: 1).last
        else { return nil }
        let shown = selector.drop { $0 == " " }
        // The longest name that matches, because some names are prefixes of others.
        let device = IPMIHardware.devices.filter { shown.hasPrefix($0.shown) }.max { $0.shown.count < $1.shown.count }?.device
        return device.map { BootOverride(device: $0, isPersistent: lines.contains { $0.contains("options apply to all future boots") }) }
    }

    func setBootDevice(of node: Node, _ device: BootDevice, isPersistent: Bool) async throws {
        guard let word = IPMIHardware.devices.first(where: { $0.device == device })?.word else {
            throw HardwareFailure(description: "A machine with IPMI cannot boot from \(device.rawValue).")
        }
        _ = try await run(node, ["chassis", "bootdev", word] + (isPersistent ? ["options=persistent"] : []))
    }

    func inspect(_ node: Node) async throws -> HardwareInventory {
        throw HardwareFailure(description: "IPMI does not support inspection.")
    }

    func run(_ step: NodeRules.Step, of node: Node) async throws { try await runReserved(step, of: node) }
}
