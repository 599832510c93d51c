package import Contracts
import GuestKeys
import JSON
import Kernel

/// The host's resources, as Placement accounts for them.
package struct HostInventory: Sendable, Hashable {
    package var cpus: Int
    package var memoryMiB: Int
    /// Size of the file system that holds the servers' disks.
    package var diskGiB: Int
    /// Number of processors that can be dedicated to servers.
    package var dedicatedCPUs = 0
    /// Whether libvirt can set shares and quotas of processor time.
    package var hasProcessorRates = false
    /// Traits of the devices that libvirt offers.
    private var deviceTraits: Set<String> = []
    package var reservedMemoryMiB: Int
    package var reservedCPUs: Int
    package var reservedDiskGiB: Int
    /// Allocation ratio.
    package var cpuRatio: Double
    package var memoryRatio: Double
    package var diskRatio: Double
    package var virtType: VirtType
    /// `major * 1 000 000 + minor * 1000 + micro`.
    package var hypervisorVersion: Int
    package var cpuModel: String
    package var cpuVendor: String
    package var cpuFeatures: [String]
    /// The processor that libvirt offers to guests, as a `<cpu>` element; nil if libvirt does not report it.
    private var processorDefinition: String?
    package var sockets: Int
    package var cores: Int
    package var threads: Int
    /// Why the sandbox of the image tools cannot be set up, for operators; nil if it works.
    package var sandboxProblem: String?
    /// The switch that carries the guests' packets.
    package var network = SwitchReport()

    package init(
        cpus: Int, memoryMiB: Int, diskGiB: Int, virtType: VirtType, hypervisorVersion: Int
    ) {
        self.cpus = cpus
        self.memoryMiB = memoryMiB
        self.diskGiB = diskGiB
        self.virtType = virtType
        self.hypervisorVersion = hypervisorVersion
        reservedMemoryMiB = 0
        reservedCPUs = 0
        reservedDiskGiB = 0
        (cpuRatio, memoryRatio, diskRatio) = (4, 1, 1)
        (cpuModel, cpuVendor, cpuFeatures) = ("", "", [])
        (sockets, cores, threads) = (1, cpus, 1)
    }

    /// Reads model, vendor and features of the processor, and the machine types, from libvirt's capabilities.
    package mutating func readCapabilities(xml: String) throws(XMLParseError) {
        let document = try XMLTree.parse(xml)
        for guest in document.all("guest") {
            for arch in guest.all("arch") where arch["name"] == "x86_64" {
                for machine in arch.all("machine") where machine.text.hasPrefix("pc-i440fx-") || machine.text.hasPrefix("pc-q35-") {
                    deviceTraits.insert(GuestHardware.machineTrait(machine.text))
                }
            }
        }
        guard let cpu = document.child("host")?.child("cpu") else { return }
        cpuModel = cpu.child("model")?.text ?? ""
        cpuVendor = cpu.child("vendor")?.text ?? ""
        cpuFeatures = cpu.all("feature").compactMap { $0["name"] }
    }

    /// Reads the guests' processor, buses, graphics cards, trusted platform modules and firmware from libvirt's domain capabilities.
    ///
    /// - Throws: `XMLParseError`.
    package mutating func readDomainCapabilities(xml: String) throws(XMLParseError) {
        let document = try XMLTree.parse(xml)
        func values(_ element: XMLTree?, _ name: String) -> [String] {
            element?.all("enum").first { $0["name"] == name }?.all("value").map(\.text) ?? []
        }
        func insert(_ prefix: String, _ names: [String], of known: [String]) {
            for name in names where known.contains(name) {
                deviceTraits.insert(prefix + name.uppercased().replacing("-", with: "_").replacing(".", with: "_"))
            }
        }
        let model = document.child("cpu")?.all("mode").first { $0["name"] == "host-model" && $0["supported"] == "yes" }
        if let model { processorDefinition = XMLTree("cpu", [:], model.children).rendered }
        let devices = document.child("devices")
        insert("COMPUTE_STORAGE_BUS_", values(devices?.child("disk"), "bus"), of: GuestHardware.Bus.allCases.map(\.rawValue))
        insert(
            "COMPUTE_GRAPHICS_MODEL_", values(devices?.child("video"), "modelType"),
            of: ["virtio", "vga", "cirrus", "qxl", "bochs", "none"])
        if let tpm = devices?.child("tpm"), tpm["supported"] == "yes", values(tpm, "backendModel").contains("emulator") {
            insert("COMPUTE_SECURITY_TPM_", values(tpm, "backendVersion"), of: ["1.2", "2.0"])
            insert("COMPUTE_SECURITY_", values(tpm, "model"), of: ["tpm-tis", "tpm-crb"])
        }
        let loader = document.child("os")?.child("loader")
        let firmware = loader?.all("value").map(\.text) ?? []
        if firmware.contains(DomainXML.Firmware.code) { deviceTraits.insert("COMPUTE_FIRMWARE_UEFI") }
        if firmware.contains(DomainXML.Firmware.secureCode), values(loader, "secure").contains("yes") {
            deviceTraits.insert(HostInventory.secureBoot)
        }
    }

    private static let secureBoot = "COMPUTE_SECURITY_UEFI_SECURE_BOOT"

    /// Feature names of libvirt and the traits that stand for them.
    private static let featureTraits: [String: String] = [
        "avx": "HW_CPU_X86_AVX", "avx2": "HW_CPU_X86_AVX2", "avx512f": "HW_CPU_X86_AVX512F",
        "aes": "HW_CPU_X86_AESNI", "sse4.1": "HW_CPU_X86_SSE41", "sse4.2": "HW_CPU_X86_SSE42",
        "ssse3": "HW_CPU_X86_SSSE3", "fma": "HW_CPU_X86_FMA3", "bmi1": "HW_CPU_X86_BMI", "bmi2": "HW_CPU_X86_BMI2",
        "sha-ni": "HW_CPU_X86_SHA", "vmx": "HW_CPU_X86_VMX", "svm": "HW_CPU_X86_SVM", "f16c": "HW_CPU_X86_F16C",
    ]

    /// Standard traits of this host and agent.
    package var traits: [String] {
        var traits: Set<String> = [
            "COMPUTE_NODE", "HW_ARCH_X86_64", "HW_CPU_X86_MMX", "HW_CPU_X86_SSE", "HW_CPU_X86_SSE2",
            "COMPUTE_IMAGE_TYPE_QCOW2", "COMPUTE_IMAGE_TYPE_RAW", "COMPUTE_STORAGE_BUS_VIRTIO",
            "COMPUTE_NET_VIF_MODEL_VIRTIO", "COMPUTE_NET_VIF_MODEL_E1000", "COMPUTE_NET_VIF_MODEL_E1000E",
            "COMPUTE_NET_VIF_MODEL_RTL8139", "COMPUTE_NET_VIF_MODEL_PCNET",
            "COMPUTE_VOLUME_ATTACH", "COMPUTE_VOLUME_ATTACH_WITH_TAG", "COMPUTE_NET_ATTACH_INTERFACE",
            "COMPUTE_NET_ATTACH_INTERFACE_WITH_TAG", "COMPUTE_DEVICE_TAGGING", "COMPUTE_RESCUE_BFV", "COMPUTE_FIRMWARE_BIOS",
            GuestHardware.knowsHardware,
        ]
        traits.formUnion(deviceTraits)
        if hasProcessorRates { traits.insert(GuestHardware.hasProcessorRates) }
        if threads > 1 { traits.insert("HW_CPU_HYPERTHREADING") }
        // Under emulation (TCG) the guest sees QEMU's CPU, regardless of the host's CPU.
        if virtType == .kvm {
            for feature in cpuFeatures { if let trait = HostInventory.featureTraits[feature] { traits.insert(trait) } }
        }
        return traits.sorted()
    }

    /// The message to the control plane.
    package var capabilities: HostCapabilities {
        HostCapabilities(
            cpus: cpus, memoryMiB: memoryMiB, diskGiB: diskGiB, virtType: virtType.rawValue, hypervisorType: "QEMU",
            hypervisorVersion: hypervisorVersion,
            reserved: .init(vcpu: reservedCPUs, memoryMiB: reservedMemoryMiB, diskGiB: reservedDiskGiB),
            allocationRatios: .init(vcpu: cpuRatio, memoryMiB: memoryRatio, diskGiB: diskRatio),
            processor: .init(
                arch: "x86_64", model: virtType == .kvm ? cpuModel : "qemu64", vendor: cpuVendor, features: cpuFeatures,
                topology: .init(sockets: sockets, cores: cores, threads: threads)),
            traits: traits, sandboxProblem: sandboxProblem, datapathType: network.datapath,
            switchOutages: network.outages?.document, release: WolkeVersion.current,
            dedicatedCPUs: dedicatedCPUs, processorDefinition: processorDefinition,
            physicalNetworks: network.physicalNetworks)
    }
}
