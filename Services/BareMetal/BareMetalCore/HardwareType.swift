package import Kernel

/// A group of functions of a node's hardware. For each interface the node names an implementation (`power_interface: fake`).
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

/// A hardware type: the implementations that its nodes can have, and the members of their `driver_info`.
package struct HardwareType: Sendable {
    /// The `driver` of its nodes: `redfish`.
    package let name: String
    /// The implementations of each interface, the default first.
    package let interfaces: [HardwareInterface: [String]]
    /// The members of `driver_info`: name and meaning.
    package let properties: [(name: String, meaning: String)]
    /// The properties that are credentials. They are stored sealed and never shown.
    package var secrets: Set<String> { Set(properties.map(\.name).filter(NodeRules.isSecret)) }
    /// Members that determine where and how credentials are sent. Changing one requires the credentials again, because the caller need not
    /// know them and could otherwise have them sent to another machine.
    package var destination: Set<String> {
        Set(properties.map(\.name)).subtracting(secrets).subtracting(["redfish_system_id", "deploy_iso"])
    }

    /// The default implementation of an interface.
    package func usual(_ interface: HardwareInterface) -> String { interfaces[interface]?.first ?? "no-\(interface.rawValue)" }

    /// The implementations of a new node.
    ///
    /// - Parameter chosen: the implementations that the request names.
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
        let needsRamdisk = [HardwareInterface.deploy, .inspect].first { result[$0] == "direct" || result[$0] == "agent" }
        if let needsRamdisk, result[.boot] == "no-boot" {
            throw ResourceError.badRequest(
                """
                The \(needsRamdisk.member) \(result[needsRamdisk] ?? "") starts a ramdisk; it needs a boot_interface other than no-boot: \
                \((interfaces[.boot] ?? []).filter { $0 != "no-boot" }.joined(separator: ", ")).
                """)
        }
        return result
    }

    private static let deployISO = (
        name: "deploy_iso",
        meaning: "The URL of the bootable image with the deploy ramdisk, which the controller fetches; bare_metal.deploy_iso by default. "
            + "Optional."
    )

    /// Simulated hardware that exists only in the database: for tests, for rehearsals and for trying the API.
    package static let fake = HardwareType(
        name: "fake-hardware",
        interfaces: [
            .bios: ["no-bios"], .boot: ["fake"], .console: ["no-console"], .deploy: ["fake", "direct"], .firmware: ["no-firmware"],
            .inspect: ["fake", "agent", "no-inspect"], .management: ["fake"], .network: ["noop"], .power: ["fake"], .raid: ["no-raid"],
            .rescue: ["fake", "no-rescue"], .storage: ["noop"], .vendor: ["no-vendor"],
        ],
        properties: [
            ("fake_delay", "Seconds that each operation takes; 0 by default. Optional."),
            (
                "fake_failing",
                """
                Operations that fail, as a list or a text with commas: power, management, inspect, deploy, clean, rescue, agent (it never \
                calls), image (its checksum is wrong). Optional.
                """
            ),
            ("fake_failure", "The error message of these failures. Optional."), deployISO,
        ])

    /// Machines whose controller supports Redfish (DMTF DSP0266).
    package static let redfish = HardwareType(
        name: "redfish",
        interfaces: [
            .bios: ["no-bios"], .boot: ["no-boot", "redfish-virtual-media"], .console: ["no-console"], .deploy: ["no-deploy", "direct"],
            .firmware: ["no-firmware"], .inspect: ["redfish", "agent", "no-inspect"], .management: ["redfish"], .network: ["noop"],
            .power: ["redfish"], .raid: ["no-raid"],
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
            ("redfish_auth_type", "How to authenticate: session, basic or auto (the default: a session if possible). Optional."),
            deployISO,
        ])

    /// Machines whose controller supports IPMI 2.0; requests are sent by `ipmitool`.
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
            ("ipmi_password", "The user's password, at most 20 bytes (the limit of IPMI 2.0). Optional."),
            ("ipmi_priv_level", "The privilege level: ADMINISTRATOR (the default), OPERATOR, USER or CALLBACK. Optional."),
            ("ipmi_cipher_suite", "The number of the cipher suite, usually 3 or 17; chosen by ipmitool by default. Optional."),
        ])

    package static let all = [fake, redfish, ipmi]

    /// The types that the operator has enabled, in the order of `all`.
    ///
    /// - Throws: 400 naming the setting, for unknown names and for an empty list.
    package static func enabled(_ names: [String]) throws -> [HardwareType] {
        let known = all.map(\.name)
        if let unknown = names.first(where: { !known.contains($0) }) {
            throw ResourceError.badRequest(
                "Unknown type '\(unknown.prefix(64))' in bare_metal.hardware_types. The types are \(known.joined(separator: ", ")).")
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

/// The way in which a node's firmware starts an operating system.
package enum BootMode: String, Sendable, Hashable, CaseIterable, Codable {
    case bios, uefi
}

/// The kinds of drives for which a controller can present an image to its machine.
package enum MediaDevice: String, Sendable, Hashable, CaseIterable {
    case disk, cdrom, floppy
}

/// The modes of a bond, with the names that Linux uses.
package enum BondMode: String, Sendable, Hashable, CaseIterable {
    case balanceRR = "balance-rr"
    case activeBackup = "active-backup"
    case balanceXOR = "balance-xor"
    case broadcast
    case lacp = "802.3ad"
    case balanceTLB = "balance-tlb"
    case balanceALB = "balance-alb"
}
