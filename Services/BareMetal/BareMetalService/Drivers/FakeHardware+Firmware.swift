import BareMetalCore
import Database
import JSON
import Kernel

/// The firmware and the drives of fake machines.
extension FakeHardware {
    private struct Firmware {
        var mode = BootMode.uefi
        var isSecure = false
        var media = JSONObject()
    }

    private func firmware(_ connection: Connection, of node: Node) throws -> Firmware {
        let rows = try connection.query(
            "SELECT boot_mode, secure_boot, media FROM bare_metal_fake_firmware WHERE node_id = \(node.id)")
        guard let row = rows.first else { return Firmware() }
        return Firmware(
            mode: BootMode(rawValue: try row.string("boot_mode")) ?? .uefi, isSecure: try row.bool("secure_boot"),
            media: try row.object("media"))
    }

    private func change(_ node: Node, _ body: @escaping @Sendable (inout Firmware) throws -> Void) async throws {
        try await pretend(.management, node)
        try await database.write { connection in
            var new = try firmware(connection, of: node)
            try body(&new)
            try connection.execute(
                """
                INSERT INTO bare_metal_fake_firmware (node_id, boot_mode, secure_boot, media)
                SELECT id, \(new.mode.rawValue), \(new.isSecure), \(new.media)::jsonb FROM bare_metal_nodes WHERE id = \(node.id)
                ON CONFLICT (node_id) DO UPDATE
                SET boot_mode = EXCLUDED.boot_mode, secure_boot = EXCLUDED.secure_boot, media = EXCLUDED.media
                """)
        }
    }

    private func firmware(of node: Node) async throws -> Firmware {
        try await pretend(.management, node)
        return try await database.read { try firmware($0, of: node) }
    }

    func bootMode(of node: Node) async throws -> BootMode? { try await firmware(of: node).mode }

    func setBootMode(of node: Node, _ mode: BootMode) async throws {
        try await change(node) { firmware in
            firmware.mode = mode
            if mode == .bios { firmware.isSecure = false }
        }
    }

    func secureBoot(of node: Node) async throws -> Bool? { try await firmware(of: node).isSecure }

    func setSecureBoot(of node: Node, _ isOn: Bool) async throws {
        try await change(node) { firmware in
            guard !isOn || firmware.mode == .uefi else { throw HardwareFailure.secureBootNeedsUEFI }
            firmware.isSecure = isOn
        }
    }

    func media(of node: Node) async throws -> [MediaDrive] {
        let media = try await firmware(of: node).media
        return MediaDevice.allCases.map {
            MediaDrive(types: MediaDrive.types(of: $0), image: media[$0.rawValue]?.stringValue)
        }
    }

    func insertMedia(of node: Node, _ device: MediaDevice, url: String) async throws {
        try await change(node) { $0.media[device.rawValue] = .string(url) }
    }

    func ejectMedia(of node: Node, _ devices: Set<MediaDevice>) async throws {
        try await change(node) { firmware in
            for device in devices { firmware.media[device.rawValue] = nil }
        }
    }
}
