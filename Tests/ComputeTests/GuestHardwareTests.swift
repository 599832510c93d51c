import GuestKeys
import Kernel
import Testing

/// Extra specs and properties together.
@Suite struct GuestHardwareTests {
    private func refusal(_ specs: [String: String], _ properties: [String: String] = [:], vcpus: Int = 4, memory: Int = 1024) -> String? {
        do {
            try GuestHardware.check(specs: specs, properties: properties, vcpus: vcpus, memoryMiB: memory)
            return nil
        } catch { return (error as? ResourceError).flatMap { $0.code == .badRequest ? $0.message : nil } ?? "\(error)" }
    }

    private struct Conflict: Sendable {
        let specs: [String: String]
        let properties: [String: String]
        /// The text that the refusal must contain.
        let named: [String]
    }

    private static let conflicts = [
        Conflict(
            specs: ["hw:tpm_version": "2.0"], properties: ["hw_tpm_version": "1.2"],
            named: ["hw:tpm_version", "hw_tpm_version", "2.0", "1.2"]),
        Conflict(specs: ["hw:tpm_model": "tpm-tis"], properties: [:], named: ["hw:tpm_model", "hw:tpm_version"]),
        Conflict(
            specs: ["hw:tpm_version": "1.2", "hw:tpm_model": "tpm-crb"], properties: [:], named: ["hw:tpm_model", "hw:tpm_version"]),
        Conflict(specs: ["os:secure_boot": "required"], properties: [:], named: ["os:secure_boot", "hw_firmware_type"]),
        Conflict(
            specs: ["os:secure_boot": "required"], properties: ["hw_firmware_type": "uefi", "hw_machine_type": "pc"],
            named: ["os:secure_boot", "hw_machine_type"]),
        Conflict(
            specs: ["os:secure_boot": "disabled"], properties: ["hw_firmware_type": "uefi", "os_secure_boot": "required"],
            named: ["os:secure_boot", "os_secure_boot"]),
        Conflict(specs: [:], properties: ["hw_machine_type": "q35", "hw_disk_bus": "ide"], named: ["hw_disk_bus", "hw_machine_type"]),
        Conflict(specs: [:], properties: ["hw_video_model": "vga", "hw_video_ram": "8"], named: ["hw_video_ram", "hw_video:ram_max_mb"]),
        Conflict(
            specs: ["hw_video:ram_max_mb": "8"], properties: ["hw_video_model": "cirrus", "hw_video_ram": "8"],
            named: ["hw_video_ram", "hw_video_model"]),
        Conflict(
            specs: ["hw:serial_port_count": "1"], properties: ["hw_serial_port_count": "2"],
            named: ["hw:serial_port_count", "hw_serial_port_count"]),
        Conflict(
            specs: ["hw:vif_multiqueue_enabled": "true"], properties: ["hw_vif_multiqueue_enabled": "no"],
            named: ["hw:vif_multiqueue_enabled", "hw_vif_multiqueue_enabled"]),
        Conflict(
            specs: ["hw:cpu_policy": "shared"], properties: ["hw_cpu_policy": "dedicated"], named: ["hw:cpu_policy", "hw_cpu_policy"]),
        Conflict(specs: ["hw:cpu_thread_policy": "isolate"], properties: [:], named: ["hw:cpu_thread_policy", "hw:cpu_policy"]),
        Conflict(
            specs: ["hw:cpu_policy": "dedicated", "resources:PCPU": "2"], properties: [:], named: ["resources:PCPU", "hw:cpu_policy"]),
        Conflict(
            specs: ["quota:disk_total_bytes_sec": "9", "quota:disk_read_bytes_sec": "9"], properties: [:],
            named: ["quota:disk_total_bytes_sec", "quota:disk_read_bytes_sec"]),
        Conflict(specs: ["quota:cpu_quota": "5"], properties: [:], named: ["quota:cpu_quota", "'5'"]),
        Conflict(
            specs: ["hw:cpu_max_sockets": "2"], properties: ["hw_cpu_max_sockets": "4"],
            named: ["hw_cpu_max_sockets", "hw:cpu_max_sockets"]),
        Conflict(specs: ["hw:cpu_max_cores": "1"], properties: ["hw_cpu_cores": "2"], named: ["hw_cpu_cores", "hw:cpu_max_cores"]),
        Conflict(
            specs: ["hw:cpu_max_sockets": "1", "hw:cpu_max_cores": "1", "hw:cpu_max_threads": "2"], properties: [:],
            named: ["4 vcpus", "hw:cpu_max_threads"]),
        Conflict(specs: ["hw:numa_nodes": "2"], properties: ["hw_numa_nodes": "2"], named: ["hw_numa_nodes", "hw:numa_nodes"]),
        Conflict(specs: ["hw:numa_nodes": "3"], properties: [:], named: ["hw:numa_nodes", "3"]),
        Conflict(specs: ["hw:numa_nodes": "5"], properties: [:], named: ["hw:numa_nodes", "4 vcpus"]),
        Conflict(specs: ["hw:numa_cpus.0": "0-3"], properties: [:], named: ["hw:numa_nodes"]),
        Conflict(specs: ["hw:numa_nodes": "2", "hw:numa_mem.0": "512"], properties: [:], named: ["hw:numa_cpus.N"]),
        Conflict(
            specs: ["hw:numa_nodes": "1", "hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "1024", "hw:numa_mem.1": "1"], properties: [:],
            named: ["hw:numa_mem.1"]),
    ]

    @Test("S26: keys that contradict each other are refused by their names", arguments: 0..<conflicts.count)
    func s26ContradictionsAreRefused(_ index: Int) {
        let item = GuestHardwareTests.conflicts[index]
        let words = refusal(item.specs, item.properties) ?? "accepted"
        for name in item.named { #expect(words.contains(name), "\(item.specs) \(item.properties): \(words)") }
    }

    @Test(arguments: ["0-4", "", "a", "0-", "-1", "3-0", "0--1", "1,,2", "^"]) func listsOfProcessorsAreChecked(_ text: String) {
        let specs = ["hw:numa_nodes": "1", "hw:numa_cpus.0": text, "hw:numa_mem.0": "1024"]
        #expect(refusal(specs)?.contains("hw:numa_cpus.0") == true, "\(refusal(specs) ?? "accepted")")
    }

    @Test func listsOfProcessorsAreRead() {
        #expect(ProcessorList.read("0-3,^2, 7", largest: 9) == [0, 1, 3, 7])
        #expect(ProcessorList.text([7, 0, 1, 3, 4]) == "0-1,3-4,7" && ProcessorList.text([]) == "")
    }

    @Test func nodesMayDiffer() {
        let specs = [
            "hw:numa_nodes": "2", "hw:numa_cpus.0": "0,2-3", "hw:numa_mem.0": "768", "hw:numa_cpus.1": "1", "hw:numa_mem.1": "256",
        ]
        #expect(refusal(specs) == nil)
        let nodes = GuestHardware(specs: specs, properties: [:]).nodes(vcpus: 4, memoryMiB: 1024)
        #expect(nodes.map(\.processors) == [[0, 2, 3], [1]] && nodes.map(\.memoryMiB) == [768, 256])
    }

    @Test func theBestTopologyIsChosen() {
        func best(_ specs: [String: String], _ properties: [String: String] = [:], vcpus: Int) -> [Int] {
            let topology = GuestHardware(specs: specs, properties: properties).topology(vcpus: vcpus)
            return topology.map { [$0.sockets, $0.cores, $0.threads] } ?? []
        }
        #expect(best([:], vcpus: 6) == [6, 1, 1])
        #expect(best(["hw:cpu_cores": "2"], vcpus: 8) == [4, 2, 1])
        #expect(best(["hw:cpu_max_sockets": "2"], vcpus: 8) == [2, 4, 1])
        #expect(best(["hw:cpu_max_sockets": "2", "hw:cpu_max_cores": "2"], vcpus: 8) == [2, 2, 2])
        #expect(best(["hw:cpu_sockets": "1", "hw:cpu_cores": "4", "hw:cpu_threads": "2"], vcpus: 8) == [1, 4, 2])
        // A preference of the image replaces all of the flavor's.
        #expect(best(["hw:cpu_cores": "4"], ["hw_cpu_sockets": "1"], vcpus: 8) == [1, 8, 1])
        #expect(best(["hw:cpu_sockets": "4"], ["hw_cpu_max_sockets": "2"], vcpus: 8) == [2, 4, 1])
        #expect(best(["hw:cpu_max_sockets": "1", "hw:cpu_max_cores": "1", "hw:cpu_max_threads": "1"], vcpus: 2) == [])
    }

    @Test func busesHoldSoManyDisks() throws {
        let ide = GuestHardware(specs: [:], properties: ["hw_disk_bus": "ide"])
        try ide.check(disks: 4)
        let error = #expect(throws: ResourceError.self) { try ide.check(disks: 5) }
        #expect(error?.message.contains("hw_disk_bus") == true && error?.message.contains("at most 4") == true)
        try GuestHardware(specs: [:], properties: [:]).check(disks: 26)
        #expect(!ide.canHotplugDisks && GuestHardware(specs: [:], properties: ["hw_disk_bus": "scsi"]).canHotplugDisks)
    }

    /// Servers of earlier releases may have such values, which had no effect then.
    @Test func valuesThatAreNotServedCountAsAbsent() {
        let hardware = GuestHardware(
            specs: ["hw:cpu_policy": "mixed", "hw:serial_port_count": "9"],
            properties: [
                "hw_video_model": "xen", "hw_cdrom_bus": "fdc", "hw_disk_bus": "uml", "hw_machine_type": "pc-evil", "hw_video_ram": "x",
            ])
        #expect(hardware == GuestHardware(specs: [:], properties: [:]))
        #expect(hardware.requiredTraits.isEmpty)
    }
}
