import Kernel

extension GuestHardware {
    /// Pairs of an extra spec and a property that must not differ.
    private static let equivalentKeys = [
        ("hw:tpm_version", "hw_tpm_version"), ("hw:tpm_model", "hw_tpm_model"), ("os:secure_boot", "os_secure_boot"),
        ("hw:vif_multiqueue_enabled", "hw_vif_multiqueue_enabled"), ("hw:cpu_thread_policy", "hw_cpu_thread_policy"),
    ]

    /// Refuses a server whose flavor or image requests something unsupported or contradictory.
    ///
    /// - Parameters:
    ///   - specs: the flavor's extra specs.
    ///   - properties: the image's properties.
    /// - Throws: 400 naming keys, values and the rule.
    package static func check(specs: [String: String], properties: [String: String], vcpus: Int, memoryMiB: Int) throws {
        try GuestKey.check(specs: specs, properties: properties)
        let texts = GuestTexts(specs: specs, properties: properties)
        let hardware = GuestHardware(specs: specs, properties: properties)
        let conflicts =
            differences(texts) + hardware.deviceConflicts(texts) + hardware.processorConflicts(texts) + rateConflicts(texts)
            + TopologyRules.conflicts(texts, vcpus: vcpus)
        if let first = conflicts.first { throw ResourceError.badRequest(first) }
        if NUMARequest(texts).isSet, texts.specs.keys.contains(where: { $0.hasPrefix("hw:numa_") }),
            let other = texts.properties.keys.sorted().first(where: { $0.hasPrefix("hw_numa_") })
        {
            throw ResourceError.badRequest(
                "The property '\(other.prefix(64))' of the image cannot be used with a flavor that has 'hw:numa_nodes'.")
        }
        _ = try NUMARequest(texts).nodes(vcpus: vcpus, memoryMiB: memoryMiB)
    }

    private static func differences(_ texts: GuestTexts) -> [String] {
        equivalentKeys.compactMap { spec, property in
            guard let one = texts.spec(spec), let other = texts.property(property) else { return nil }
            let isSame = NovaBoolean.read(one).map { $0 == NovaBoolean.read(other) } ?? (one == other)
            guard !isSame else { return nil }
            return "The extra spec '\(spec)' of the flavor is '\(one.prefix(64))', and the property '\(property)' of the image is "
                + "'\(other.prefix(64))'. They must be the same."
        }
    }

    private func deviceConflicts(_ texts: GuestTexts) -> [String] {
        var conflicts: [String] = []
        if let machine, GuestHardware.isPCIe(machine) {
            for (name, bus) in [("hw_disk_bus", diskBus), ("hw_cdrom_bus", cdromBus)] where bus == .ide {
                conflicts.append("The property '\(name)' of the image is 'ide', which 'hw_machine_type' '\(machine)' does not have.")
            }
        }
        if secureBoot == .required {
            if firmware != .uefi {
                conflicts.append("Secure boot ('os:secure_boot' or 'os_secure_boot') needs an image with 'hw_firmware_type' 'uefi'.")
            } else if !GuestHardware.isPCIe(machine(default: "pc")) {
                conflicts.append(
                    "Secure boot ('os:secure_boot' or 'os_secure_boot') needs 'hw_machine_type' 'q35', which also has no IDE disks.")
            }
        }
        let asksForModel = texts.spec("hw:tpm_model") != nil || texts.property("hw_tpm_model") != nil
        if asksForModel, tpm == nil { conflicts.append("'hw:tpm_model' needs 'hw:tpm_version'.") }
        if tpm?.model == "tpm-crb", tpm?.version == "1.2" { conflicts.append("'hw:tpm_model' 'tpm-crb' needs 'hw:tpm_version' '2.0'.") }
        if let memory = videoMemory {
            let most = texts.number("hw_video:ram_max_mb") ?? 0
            if memory > most {
                conflicts.append(
                    "The property 'hw_video_ram' of the image is \(memory) MiB, above the extra spec 'hw_video:ram_max_mb' of the flavor, "
                        + "which is \(most).")
            } else if memory > 0, videoModel != "vga", videoModel != "qxl" {
                conflicts.append("The property 'hw_video_ram' of the image needs 'hw_video_model' 'vga' or 'qxl'.")
            }
        }
        if let ports = texts.number("hw_serial_port_count"), let most = texts.number("hw:serial_port_count"), ports > most {
            conflicts.append(
                "The property 'hw_serial_port_count' of the image is \(ports), above the extra spec 'hw:serial_port_count' of the flavor, "
                    + "which is \(most).")
        }
        return conflicts
    }

    private func processorConflicts(_ texts: GuestTexts) -> [String] {
        var conflicts: [String] = []
        if texts.spec("hw:cpu_policy") == "shared", texts.property("hw_cpu_policy") == "dedicated" {
            conflicts.append(
                "The property 'hw_cpu_policy' of the image is 'dedicated', and the extra spec 'hw:cpu_policy' of the flavor is 'shared'.")
        }
        if threadPolicy != nil, processorPolicy != .dedicated {
            conflicts.append("'hw:cpu_thread_policy' needs 'hw:cpu_policy' 'dedicated'.")
        }
        for name in ["resources:VCPU", "resources:PCPU"] where texts.specs[name] != nil && processorPolicy == .dedicated {
            conflicts.append("The extra spec '\(name)' cannot be used with 'hw:cpu_policy'.")
        }
        return conflicts
    }

    private static func rateConflicts(_ texts: GuestTexts) -> [String] {
        var conflicts: [String] = []
        for unit in ["bytes", "iops"] {
            let total = "quota:disk_total_\(unit)_sec"
            guard texts.number(total) ?? 0 > 0 else { continue }
            for kind in ["read", "write"] where texts.number("quota:disk_\(kind)_\(unit)_sec") ?? 0 > 0 {
                conflicts.append("The extra specs '\(total)' and 'quota:disk_\(kind)_\(unit)_sec' cannot be used together.")
            }
        }
        if let quota = texts.number("quota:cpu_quota"), (0..<1000).contains(quota) {
            conflicts.append("Invalid value '\(quota)' for extra spec 'quota:cpu_quota'. It must be -1, or 1000 microseconds or more.")
        }
        return conflicts
    }

    // MARK: numbers of disks

    /// The maximum number of disks on the bus of the server's disks, including local disks and config drive; nil for no limit.
    package var disksMax: Int? {
        switch diskBus {
        case .ide: 4
        case .sata: 6
        case .scsi: scsiModel == "virtio-scsi" ? nil : 7
        case .usb, .virtio, nil: nil
        }
    }

    /// The number of disks on the bus of the disks. The config drive counts if it is on that bus.
    ///
    /// - Parameters:
    ///   - local: the number of root, ephemeral and swap disks on the host.
    ///   - volumes: the number of volumes, including a boot volume.
    package func disks(local: Int, volumes: Int, hasConfigDrive: Bool) -> Int {
        local + volumes + (hasConfigDrive && configDriveBus == diskBus ? 1 : 0)
    }

    /// - Parameter count: see `disks`.
    /// - Throws: 400 if there are too many for the bus.
    package func check(disks count: Int) throws {
        guard let most = disksMax, count > most else { return }
        throw ResourceError.badRequest(
            "The server needs \(count) disks, and the property 'hw_disk_bus' of the image is '\(diskBus?.rawValue ?? "virtio")', "
                + "which holds at most \(most).")
    }
}
