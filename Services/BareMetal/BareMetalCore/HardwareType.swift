package import Kernel

/// One group of functions of a node's hardware. For each, the node names an implementation (`power_interface: fake`).
package enum HardwareInterface: String, Sendable, Hashable, CaseIterable {
    case bios, boot, console, deploy, firmware, inspect, management, network, power, raid, rescue, storage, vendor

    /// The member of a node that names the implementation.
    package var member: String { rawValue + "_interface" }

    /// The first version of the API with the member.
    package var since: Microversion {
        switch self {
        case .network: Microversion(1, 20)
        case .storage: Microversion(1, 33)
        case .rescue: Microversion(1, 38)
        case .bios: Microversion(1, 40)
        case .firmware: Microversion(1, 86)
        case .boot, .console, .deploy, .inspect, .management, .power, .raid, .vendor: Microversion(1, 31)
        }
    }
}

/// A kind of hardware: which implementations its nodes can have, and what its controllers need to know.
package struct HardwareType: Sendable {
    /// The `driver` of its nodes: `redfish`.
    package let name: String
    /// For each interface the implementations, the default first.
    package let interfaces: [HardwareInterface: [String]]
    /// The members of `driver_info`: name and meaning.
    package let properties: [(name: String, meaning: String)]

    /// The default implementation of an interface.
    package func usual(_ interface: HardwareInterface) -> String { interfaces[interface]?.first ?? "no-\(interface.rawValue)" }

    /// The implementations of a new node.
    ///
    /// - Parameter chosen: what the request names.
    /// - Throws: 400 for an implementation that this type does not have.
    package func complete(_ chosen: [HardwareInterface: String]) throws -> [HardwareInterface: String] {
        var result: [HardwareInterface: String] = [:]
        for interface in HardwareInterface.allCases {
            let name = chosen[interface] ?? usual(interface)
            let known = interfaces[interface] ?? []
            guard known.contains(name) else {
                throw ResourceError.badRequest(
                    """
                    Could not find the following interface in the '\(interface.rawValue)' interfaces of hardware type \(self.name): \
                    \(name.prefix(64)). Valid interfaces are \(known.joined(separator: ", ")).
                    """)
            }
            result[interface] = name
        }
        return result
    }

    /// Hardware that exists in the database only: for tests, rehearsals and a first look at the API.
    package static let fake = HardwareType(
        name: "fake-hardware",
        interfaces: [
            .bios: ["no-bios"], .boot: ["fake"], .console: ["no-console"], .deploy: ["fake"], .firmware: ["no-firmware"],
            .inspect: ["fake", "no-inspect"], .management: ["fake"], .network: ["noop"], .power: ["fake"], .raid: ["no-raid"],
            .rescue: ["fake", "no-rescue"], .storage: ["noop"], .vendor: ["no-vendor"],
        ],
        properties: [
            ("fake_delay", "Seconds that each operation takes; 0 by default. Optional."),
            (
                "fake_failing",
                "Operations that fail, as a list or a text with commas: power, management, inspect, deploy, clean, rescue. Optional."
            ),
            ("fake_failure", "The words of these failures. Optional."),
        ])

    package static let all = [fake]

    /// - Throws: 400 for an unknown name.
    package static func named(_ name: String) throws -> HardwareType {
        guard let type = all.first(where: { $0.name == name }) else {
            throw ResourceError.badRequest(
                """
                No valid host was found. Reason: No conductor service registered which supports driver \(name.prefix(64)); there are \
                \(all.map(\.name).joined(separator: ", ")).
                """)
        }
        return type
    }
}

/// The devices that a node can boot from.
package enum BootDevice: String, Sendable, Hashable, CaseIterable {
    case pxe, disk, cdrom, bios, safe, wanboot, floppy
    case iscsiBoot = "iscsiboot"
    case uefihttp
}

/// How a node's firmware starts an operating system.
package enum BootMode: String, Sendable, Hashable, CaseIterable {
    case bios, uefi
}
