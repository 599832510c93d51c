/// Names of resource classes and traits.
package enum PlacementName {
    /// Longest name, in characters.
    package static let lengthMax = 255

    /// `CUSTOM_` followed by capital letters, digits and underscores.
    package static func isCustom(_ name: String) -> Bool {
        name.utf8.count > 7 && name.utf8.count <= lengthMax && name.hasPrefix("CUSTOM_") && isWord(name)
    }

    /// Capital letters, digits and underscores only.
    package static func isWord(_ name: String) -> Bool {
        !name.isEmpty && name.utf8.count <= lengthMax
            && name.utf8.allSatisfy { (65...90).contains($0) || (48...57).contains($0) || $0 == UInt8(ascii: "_") }
    }
}

/// The standard resource classes (os-resource-classes 1.1).
package enum StandardResourceClasses {
    package static let all = [
        "VCPU", "MEMORY_MB", "DISK_GB", "PCI_DEVICE", "SRIOV_NET_VF", "NUMA_SOCKET", "NUMA_CORE", "NUMA_THREAD",
        "NUMA_MEMORY_MB", "IPV4_ADDRESS", "VGPU", "VGPU_DISPLAY_HEAD", "NET_BW_EGR_KILOBIT_PER_SEC",
        "NET_BW_IGR_KILOBIT_PER_SEC", "PCPU", "MEM_ENCRYPTION_CONTEXT", "FPGA", "PGPU",
        "NET_PACKET_RATE_KILOPACKET_PER_SEC", "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
        "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
    ]
    package static let set = Set(all)
}
