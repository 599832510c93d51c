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
    /// The properties that are credentials. They are stored sealed and never shown.
    package var secrets: Set<String> { Set(properties.map(\.name).filter(NodeRules.isSecret)) }
    /// Members that say to whom the credentials are sent, and how. When one changes, the credentials must be given again: who may change
    /// them does not have to know the credentials.
    package var destination: Set<String> { Set(properties.map(\.name)).subtracting(secrets).subtracting(["redfish_system_id"]) }

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

    /// Machines whose controller speaks Redfish (DMTF DSP0266).
    package static let redfish = HardwareType(
        name: "redfish",
        interfaces: [
            .bios: ["no-bios"], .boot: ["no-boot"], .console: ["no-console"], .deploy: ["no-deploy"], .firmware: ["no-firmware"],
            .inspect: ["redfish", "no-inspect"], .management: ["redfish"], .network: ["noop"], .power: ["redfish"], .raid: ["no-raid"],
            .rescue: ["no-rescue"], .storage: ["noop"], .vendor: ["no-vendor"],
        ],
        properties: [
            ("redfish_address", "The URL of the controller: https://HOST or https://HOST:PORT. Required."),
            ("redfish_system_id", "The path of the machine: /redfish/v1/Systems/1. Required if the controller has more than one."),
            ("redfish_username", "The user of the controller. Optional."),
            ("redfish_password", "The user's password. Optional."),
            (
                "redfish_verify_ca",
                """
                Whether the controller's certificate is verified: true (the default), false, or the name of a file with authorities in \
                the operator's directory of certificates. Optional.
                """
            ),
            ("redfish_auth_type", "How to sign on: session, basic or auto (the default: session if there are any). Optional."),
        ])

    /// Machines whose controller speaks IPMI 2.0, by `ipmitool`.
    package static let ipmi = HardwareType(
        name: "ipmi",
        interfaces: [
            .bios: ["no-bios"], .boot: ["no-boot"], .console: ["no-console"], .deploy: ["no-deploy"], .firmware: ["no-firmware"],
            .inspect: ["no-inspect"], .management: ["ipmitool"], .network: ["noop"], .power: ["ipmitool"], .raid: ["no-raid"],
            .rescue: ["no-rescue"], .storage: ["noop"], .vendor: ["no-vendor"],
        ],
        properties: [
            ("ipmi_address", "The IP address or host name of the controller. Required."),
            ("ipmi_port", "Its UDP port; 623 by default. Optional."), ("ipmi_username", "The user of the controller. Optional."),
            ("ipmi_password", "The user's password, up to 20 bytes as IPMI 2.0 has it. Optional."),
            ("ipmi_priv_level", "The privilege level: ADMINISTRATOR (the default), OPERATOR, USER or CALLBACK. Optional."),
            ("ipmi_cipher_suite", "The number of the cipher suite, 3 or 17; what the controller offers by default. Optional."),
        ])

    package static let all = [fake, redfish, ipmi]

    /// The types that the operator has enabled, in the order of `all`.
    ///
    /// - Throws: 400 naming the setting, for unknown names and for none.
    package static func enabled(_ names: [String]) throws -> [HardwareType] {
        let known = all.map(\.name)
        if let unknown = names.first(where: { !known.contains($0) }) {
            throw ResourceError.badRequest(
                "bare_metal.hardware_types has no type '\(unknown.prefix(64))'; there are \(known.joined(separator: ", ")).")
        }
        guard !names.isEmpty else { throw ResourceError.badRequest("bare_metal.hardware_types must name at least one type.") }
        return all.filter { names.contains($0.name) }
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

/// How a bond uses its interfaces, as Linux names its modes.
package enum BondMode: String, Sendable, Hashable, CaseIterable {
    case balanceRR = "balance-rr"
    case activeBackup = "active-backup"
    case balanceXOR = "balance-xor"
    case broadcast
    case lacp = "802.3ad"
    case balanceTLB = "balance-tlb"
    case balanceALB = "balance-alb"
}
