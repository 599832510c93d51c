/// The virtual hardware requested by a flavor's extra specs and an image's properties.
///
/// Values that `GuestKey` does not support count as absent, because servers of earlier releases may have them. `check` refuses them for new
/// servers.
package struct GuestHardware: Sendable, Hashable {
    package enum Bus: String, Sendable, Hashable, CaseIterable { case virtio, scsi, sata, ide, usb }
    package enum Firmware: String, Sendable, Hashable { case bios, uefi }
    package enum SecureBoot: String, Sendable, Hashable { case disabled, optional, required }
    package enum ProcessorPolicy: String, Sendable, Hashable { case shared, dedicated }
    package enum ThreadPolicy: String, Sendable, Hashable { case prefer, isolate }

    /// A trusted platform module.
    package struct TPM: Sendable, Hashable {
        /// `1.2` or `2.0`.
        package let version: String
        /// `tpm-tis` or `tpm-crb`.
        package let model: String
    }

    /// Bytes of random numbers per period, in milliseconds.
    package struct RandomRate: Sendable, Hashable {
        package let bytes: Int
        package let milliseconds: Int
    }

    /// Settings of the host's processor scheduler for the guest, with libvirt's names. Times are in microseconds.
    package struct ProcessorRates: Sendable, Hashable {
        package let shares: Int?
        package let period: Int?
        package let quota: Int?
    }

    /// Nil: virtio.
    package let diskBus: Bus?
    /// Nil for the default, see `configDriveBus`.
    package let cdromBus: Bus?
    /// The model of the controller of SCSI disks.
    package let scsiModel: String
    /// Nil: virtio.
    package let interfaceModel: String?
    package let hasInterfaceQueues: Bool
    /// Nil: virtio.
    package let videoModel: String?
    /// MiB.
    package let videoMemory: Int?
    /// `usbtablet`, `ps2mouse` or nil.
    package let pointerModel: String?
    /// `usb` or `virtio`.
    package let inputBus: String?
    /// Nil for the host's default, see `machine(default:)`.
    package let machine: String?
    package let firmware: Firmware
    package let secureBoot: SecureBoot
    package let hasBootMenu: Bool
    package let hasGuestAgent: Bool
    package let hasRandomGenerator: Bool
    package let randomRate: RandomRate?
    /// The action when the guest hangs; nil without a watchdog.
    package let watchdog: String?
    package let hidesHypervisor: Bool
    /// Whether the guest runs Windows, which expects a clock in local time and has drivers for Hyper-V's interfaces.
    package let isWindows: Bool
    /// Nil for the hypervisor's default.
    package let hpet: Bool?
    package let serialPorts: Int
    package let tpm: TPM?
    package let processorPolicy: ProcessorPolicy
    package let threadPolicy: ThreadPolicy?
    package let processorRates: ProcessorRates?
    /// Limits of each local disk under libvirt's names (`total_bytes_sec`).
    package let diskRates: [String: Int]
    let topologyRules: TopologyRules
    let numa: NUMARequest

    /// The maximum number of serial ports of a PC.
    package static let serialPortsMax = 4
    /// The maximum number of queues of a tap.
    private static let queuesMax = 256

    /// The only keys that release 0.1.0 applied. It accepted servers with any others unchecked.
    private static let uncheckedKeys: Set<String> = ["hw_machine_type", "hw_firmware_type", "hw_qemu_guest_agent"]

    /// - Parameter isChecked: whether specs and properties were checked when the server got them. If not, only the keys that release 0.1.0
    ///   applied have an effect, because the system on the server's disks was installed without the others.
    package init(specs: [String: String], properties: [String: String], isChecked: Bool) {
        self =
            isChecked
            ? GuestHardware(specs: specs, properties: properties)
            : GuestHardware(specs: [:], properties: properties.filter { GuestHardware.uncheckedKeys.contains($0.key) })
    }

    package init(specs: [String: String], properties: [String: String]) {
        let texts = GuestTexts(specs: specs, properties: properties)
        diskBus = texts.word("hw_disk_bus")
        cdromBus = texts.word("hw_cdrom_bus")
        let scsi = texts.property("hw_scsi_model") ?? ""
        scsiModel = GuestHardware.scsiModels[scsi] ?? (GuestHardware.scsiModels.values.contains(scsi) ? scsi : "virtio-scsi")
        interfaceModel = texts.served("hw_vif_model")
        hasInterfaceQueues = texts.flag("hw_vif_multiqueue_enabled") ?? texts.flag("hw:vif_multiqueue_enabled") ?? false
        videoModel = texts.served("hw_video_model")
        videoMemory = texts.number("hw_video_ram")
        pointerModel = texts.served("hw_pointer_model")
        inputBus = texts.served("hw_input_bus")
        machine = texts.served("hw_machine_type")
        firmware = texts.word("hw_firmware_type") ?? .bios
        secureBoot = texts.word("os:secure_boot") ?? texts.word("os_secure_boot") ?? .disabled
        hasBootMenu = texts.flag("hw:boot_menu") ?? texts.flag("hw_boot_menu") ?? false
        hasGuestAgent = texts.flag("hw_qemu_guest_agent") ?? false
        hasRandomGenerator = texts.flag("hw_rng:allowed") ?? true
        let bytes = texts.number("hw_rng:rate_bytes").flatMap { $0 > 0 ? $0 : nil }
        randomRate = bytes.map { RandomRate(bytes: $0, milliseconds: texts.number("hw_rng:rate_period") ?? 1000) }
        let action = texts.property("hw_watchdog_action") ?? texts.spec("hw:watchdog_action") ?? "disabled"
        watchdog = ["none", "pause", "poweroff", "reset"].contains(action) ? action : nil
        hidesHypervisor =
            texts.flag("img_hide_hypervisor_id") == true || texts.flag("hw:hide_hypervisor_id") == true
            || texts.flag("hide_hypervisor_id") == true
        isWindows = texts.property("os_type") == "windows"
        hpet = texts.flag("hw_time_hpet")
        let ports = texts.number("hw_serial_port_count") ?? texts.number("hw:serial_port_count") ?? 1
        serialPorts = min(max(1, ports), GuestHardware.serialPortsMax)
        let version = texts.served("hw:tpm_version") ?? texts.served("hw_tpm_version")
        let model = texts.served("hw:tpm_model") ?? texts.served("hw_tpm_model") ?? "tpm-tis"
        tpm = version.map { TPM(version: $0, model: model) }
        processorPolicy = texts.word("hw:cpu_policy") ?? texts.word("hw_cpu_policy") ?? .shared
        threadPolicy = texts.word("hw:cpu_thread_policy") ?? texts.word("hw_cpu_thread_policy")
        let rates = ProcessorRates(
            shares: texts.number("quota:cpu_shares"), period: texts.number("quota:cpu_period"), quota: texts.number("quota:cpu_quota"))
        processorRates = rates.shares == nil && rates.period == nil && rates.quota == nil ? nil : rates
        diskRates = GuestHardware.diskRates(texts)
        topologyRules = TopologyRules(texts)
        numa = NUMARequest(texts)
    }

    /// Models of SCSI controllers, with the names that Nova takes from VMware.
    static let scsiModels = [
        "virtio-scsi": "virtio-scsi", "lsilogic": "lsilogic", "lsisas1068": "lsisas1068", "lsisas1078": "lsisas1078",
        "vmpvscsi": "vmpvscsi", "lsilogicsas": "lsisas1068", "paravirtual": "vmpvscsi",
    ]

    static let diskRateNames = ["total_bytes", "read_bytes", "write_bytes", "total_iops", "read_iops", "write_iops"].map { $0 + "_sec" }

    private static func diskRates(_ texts: GuestTexts) -> [String: Int] {
        // 0 is no limit.
        var rates: [String: Int] = [:]
        for name in diskRateNames {
            if let value = texts.number("quota:disk_" + name), value > 0 { rates[name] = value }
        }
        return rates
    }

    // MARK: derived

    /// The machine type on a host with this default. IDE needs the machine `pc`; UEFI with Secure Boot needs `q35`.
    package func machine(default host: String) -> String {
        if let machine { return machine }
        if diskBus == .ide || cdromBus == .ide { return GuestHardware.isPCIe(host) ? "pc" : host }
        if firmware == .uefi { return GuestHardware.isPCIe(host) ? host : "q35" }
        return host
    }

    /// Whether the machine type is q35 or a version of it.
    package static func isPCIe(_ machine: String) -> Bool { machine.contains("q35") }

    /// The bus of the config drive as a CD drive; nil if it is a virtio disk.
    package var configDriveBus: Bus? { cdromBus ?? (diskBus == .virtio ? nil : diskBus) }

    /// Whether disks can be attached to and detached from a running guest.
    package var canHotplugDisks: Bool { ![.ide, .sata].contains(diskBus) }

    /// Queues of a network interface.
    package func interfaceQueues(vcpus: Int) -> Int {
        guard hasInterfaceQueues, interfaceModel ?? "virtio" == "virtio" else { return 1 }
        return min(vcpus, GuestHardware.queuesMax)
    }

    /// Number of the host's processors that are dedicated to the guest.
    package func dedicatedProcessors(vcpus: Int) -> Int { processorPolicy == .dedicated ? vcpus : 0 }

    /// The sockets, cores and threads that the guest sees; nil if no combination is allowed.
    package func topology(vcpus: Int) -> ProcessorTopology? { topologyRules.best(vcpus: vcpus) }

    /// The guest's NUMA nodes; empty without.
    package func nodes(vcpus: Int, memoryMiB: Int) -> [NUMANode] {
        // `check` refuses invalid requests; a server of an earlier release with such a request has no nodes.
        do { return try numa.nodes(vcpus: vcpus, memoryMiB: memoryMiB) } catch { return [] }
    }

    // MARK: traits

    /// The prefix of custom traits that agents report.
    package static let ownTraits = "CUSTOM_WOLKE_"
    /// Reported by agents that support all keys of `GuestKey`.
    package static let knowsHardware = ownTraits + "GUEST_HARDWARE"
    /// Reported by agents whose libvirt can control processors.
    package static let hasProcessorRates = ownTraits + "CPU_RATES"

    /// The trait of a host that has this machine type.
    package static func machineTrait(_ machine: String) -> String {
        ownTraits + "MACHINE_" + machine.uppercased().map { $0.isLetter || $0.isNumber ? String($0) : "_" }.joined()
    }

    /// Traits of a host that can run the guest.
    package var requiredTraits: Set<String> {
        func name(_ text: String) -> String { text.uppercased().replacing("-", with: "_").replacing(".", with: "_") }
        var traits: Set<String> = []
        for bus in [diskBus, cdromBus].compactMap({ $0 }) where bus != .virtio {
            traits.insert("COMPUTE_STORAGE_BUS_" + name(bus.rawValue))
        }
        if let interfaceModel, interfaceModel != "virtio" { traits.insert("COMPUTE_NET_VIF_MODEL_" + name(interfaceModel)) }
        if let videoModel { traits.insert("COMPUTE_GRAPHICS_MODEL_" + name(videoModel)) }
        if firmware == .uefi { traits.insert("COMPUTE_FIRMWARE_UEFI") }
        if secureBoot == .required { traits.insert("COMPUTE_SECURITY_UEFI_SECURE_BOOT") }
        if let tpm { traits.formUnion(["COMPUTE_SECURITY_TPM_" + name(tpm.version), "COMPUTE_SECURITY_" + name(tpm.model)]) }
        if processorRates != nil { traits.insert(GuestHardware.hasProcessorRates) }
        if let machine, machine.hasPrefix("pc-") { traits.insert(GuestHardware.machineTrait(machine)) }
        if asksMoreThanEarlierAgents { traits.insert(GuestHardware.knowsHardware) }
        return traits
    }

    /// Traits that a host of the guest must not have.
    package var forbiddenTraits: Set<String> { threadPolicy == .isolate ? ["HW_CPU_HYPERTHREADING"] : [] }

    /// Whether the guest has a setting that earlier agents ignore and that no other trait represents.
    private var asksMoreThanEarlierAgents: Bool {
        hasInterfaceQueues || pointerModel != nil || inputBus != nil || hasBootMenu || !hasRandomGenerator || randomRate != nil
            || watchdog != nil || hidesHypervisor || isWindows || hpet != nil || serialPorts != 1 || !diskRates.isEmpty
            || topologyRules.isSet || numa.isSet || videoMemory != nil || secureBoot == .optional
    }
}

/// The values of extra specs and properties, without unsupported ones.
struct GuestTexts {
    let specs: [String: String]
    let properties: [String: String]

    func spec(_ name: String) -> String? { specs[name]?.lowercased() }
    func property(_ name: String) -> String? { properties[name]?.lowercased() }

    private func place(_ name: String) -> GuestKey.Place { name.contains(":") || name == "hide_hypervisor_id" ? .flavor : .image }

    /// The value in lower case if it is supported.
    func served(_ name: String) -> String? {
        let place = place(name)
        guard let value = place == .flavor ? spec(name) : property(name), let key = GuestKey.find(place, name), key.serves(value)
        else { return nil }
        return value
    }

    func word<Word: RawRepresentable<String>>(_ name: String) -> Word? { served(name).flatMap { Word(rawValue: $0) } }
    func flag(_ name: String) -> Bool? { served(name).flatMap { NovaBoolean.read($0) } }
    func number(_ name: String) -> Int? { served(name).flatMap { Int($0) } }
}
