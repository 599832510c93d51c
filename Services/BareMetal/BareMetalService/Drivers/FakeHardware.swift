import BareMetalCore
import Cryptography
import Database
import JSON
import Kernel

/// Simulated machines that exist only in the database. Their delays and failures are set in the node's `driver_info`.
struct FakeHardware: HardwareDriver {
    let database: Database
    let secrets: NodeSecrets
    let ambient: Ambient

    let type = HardwareType.fake
    let bootDevices: [BootDevice] = [.pxe, .disk, .cdrom, .bios, .safe]
    let abilities = Set(HardwareAbility.allCases)

    let steps = [
        HardwareStep(interface: .deploy, name: "erase_devices_metadata", uses: [.clean], priority: 99),
        HardwareStep(interface: .deploy, name: "erase_devices", uses: [.clean], priority: 0),
        HardwareStep(interface: .deploy, name: "deploy", uses: [.deploy], priority: 100),
        HardwareStep(interface: .management, name: "update_firmware", uses: [.clean, .service], priority: 0),
        HardwareStep(interface: .rescue, name: "rescue", uses: [.rescue], priority: 0),
        HardwareStep(interface: .rescue, name: "unrescue", uses: [.rescue], priority: 0),
    ]

    /// The longest delay of an operation, in seconds.
    private static let delayMax = 3600.0

    func problems(of node: Node) -> [HardwareInterface: String] {
        if let delay = node.driverInfo["fake_delay"], !(0...FakeHardware.delayMax).contains(delay.doubleValue ?? -1) {
            return [
                .power:
                    "fake_delay must be a number of seconds from 0 to \(Int(FakeHardware.delayMax)), not \(delay.description.prefix(64))."
            ]
        }
        let unknown = failing(node).subtracting(Operation.allCases.map(\.rawValue)).sorted()
        guard unknown.isEmpty else {
            let known = Operation.allCases.map(\.rawValue).joined(separator: ", ")
            return [.power: "fake_failing names the unknown operation \(unknown[0].prefix(64)). The operations are \(known)."]
        }
        return [:]
    }

    enum Operation: String, CaseIterable { case power, management, inspect, deploy, clean, rescue, agent, image }

    func failing(_ node: Node) -> Set<String> {
        let names: [String] =
            switch node.driverInfo["fake_failing"] {
            case .string(let text)?: text.split(separator: ",").map { $0.filter { !$0.isWhitespace } }
            case .array(let list)?: list.compactMap(\.stringValue)
            default: []
            }
        return Set(names)
    }

    /// Waits for the configured delay, and fails if the node is configured to fail.
    func pretend(_ operation: Operation, _ node: Node) async throws {
        let delay = min(max(node.driverInfo["fake_delay"]?.doubleValue ?? 0, 0), FakeHardware.delayMax)
        if delay > 0 { try await ambient.time.sleep(for: .milliseconds(Int(delay * 1000))) }
        if failing(node).contains(operation.rawValue) {
            throw HardwareFailure(
                description: node.driverInfo["fake_failure"]?.stringValue ?? "The fake \(operation.rawValue) operation fails.")
        }
    }

    func power(of node: Node) async throws -> NodePower {
        try await pretend(.power, node)
        let isOn = try await database.read { connection in
            try connection.query("SELECT is_on FROM bare_metal_fake_machines WHERE node_id = \(node.id)").first?.bool("is_on")
        }
        return isOn == true ? .on : .off
    }

    func setPower(of node: Node, _ target: NodePower.Target, timeout: Int?) async throws {
        try await pretend(.power, node)
        let isOn = target.result == .on
        try await database.write { connection in
            try connection.execute(
                """
                INSERT INTO bare_metal_fake_machines (node_id, is_on) SELECT id, \(isOn) FROM bare_metal_nodes WHERE id = \(node.id)
                ON CONFLICT (node_id) DO UPDATE SET is_on = EXCLUDED.is_on
                """)
        }
        if target != .on { try await forgetCommands(of: node) }
    }

    func bootDevice(of node: Node) async throws -> BootOverride? {
        try await pretend(.management, node)
        return try await database.read { connection in
            guard
                let row = try connection.query(
                    "SELECT boot_device, is_persistent FROM bare_metal_fake_machines WHERE node_id = \(node.id)"
                ).first, let device = BootDevice(rawValue: try row.string("boot_device"))
            else { return BootOverride(device: .disk, isPersistent: true) }
            return BootOverride(device: device, isPersistent: try row.bool("is_persistent"))
        }
    }

    func setBootDevice(of node: Node, _ device: BootDevice, isPersistent: Bool) async throws {
        try await pretend(.management, node)
        try await database.write { connection in
            try connection.execute(
                """
                INSERT INTO bare_metal_fake_machines (node_id, boot_device, is_persistent)
                SELECT id, \(device.rawValue), \(isPersistent) FROM bare_metal_nodes WHERE id = \(node.id)
                ON CONFLICT (node_id) DO UPDATE SET boot_device = EXCLUDED.boot_device, is_persistent = EXCLUDED.is_persistent
                """)
        }
    }

    private func configDrive(of node: Node) async throws -> [UInt8]? {
        guard let sealed = try await database.read({ try ConfigDriveStore.find($0, of: node.id) }) else { return nil }
        return Base64.decode(try secrets.open(configDrive: sealed, of: node.id))
    }

    /// Simulates writing a config drive to the machine's disk. Only the hash is stored.
    func rememberDrive(_ drive: [UInt8]?, _ node: Node) async throws {
        let hash = drive.map { Hexadecimal.encode(HashAlgorithm.sha256.hash($0)) }
        try await database.write { connection in
            try connection.execute(
                """
                INSERT INTO bare_metal_fake_machines (node_id, config_drive_sha256)
                SELECT id, \(hash) FROM bare_metal_nodes WHERE id = \(node.id)
                ON CONFLICT (node_id) DO UPDATE SET config_drive_sha256 = EXCLUDED.config_drive_sha256
                """)
        }
    }

    func inspect(_ node: Node) async throws -> HardwareInventory {
        try await pretend(.inspect, node)
        return inventory
    }

    var inventory: HardwareInventory {
        HardwareInventory(
            properties: ["cpu_arch": "x86_64", "cpus": 4, "memory_mb": 8192, "local_gb": 20],
            document: [
                "inventory": [
                    "cpu": ["architecture": "x86_64", "count": 4], "memory": ["physical_mb": 8192],
                    "disks": [["name": "/dev/fake0", "size": 21_474_836_480]], "interfaces": [],
                ], "plugin_data": [:],
            ])
    }

    func run(_ step: NodeRules.Step, of node: Node) async throws {
        switch step.step {
        case "power_on", "power_off", "reboot": try await runReserved(step, of: node)
        case "deploy":
            try await pretend(.deploy, node)
            try await rememberDrive(try await configDrive(of: node), node)
        case "rescue", "unrescue": try await pretend(.rescue, node)
        case "erase_devices", "erase_devices_metadata":
            try await pretend(.clean, node)
            try await rememberDrive(nil, node)
        default: try await pretend(.clean, node)
        }
    }
}
