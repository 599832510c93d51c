package import Contracts
import JSON
import Kernel

/// The host's resources, as Placement accounts for them.
package struct HostInventory: Sendable, Hashable {
    package var cpus: Int
    package var memoryMiB: Int
    /// Size of the file system that holds the servers' disks.
    package var diskGiB: Int
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

    /// Takes model, vendor and features of the processor from libvirt's capabilities.
    package mutating func readCapabilities(xml: String) throws(XMLParseError) {
        guard let cpu = try XMLTree.parse(xml).child("host")?.child("cpu") else { return }
        cpuModel = cpu.child("model")?.text ?? ""
        cpuVendor = cpu.child("vendor")?.text ?? ""
        cpuFeatures = cpu.all("feature").compactMap { $0["name"] }
    }

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
            "COMPUTE_NET_VIF_MODEL_VIRTIO", "COMPUTE_VOLUME_ATTACH", "COMPUTE_NET_ATTACH_INTERFACE",
        ]
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
            switchOutages: network.outages?.document, release: WolkeVersion.current)
    }
}
