import Contracts
import GuestKeys
import JSON
import Kernel
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

/// The effect of extra specs and image properties on a domain.
@Suite struct GuestHardwareXMLTests {
    private func document(
        _ properties: JSONObject = [:], specs: JSONObject = [:], _ changes: JSONObject = [:], virtType: VirtType = .qemu,
        pins: [Int] = [], _ adjust: (inout DomainOptions) -> Void = { _ in }
    ) throws -> XMLTree {
        var image = Fixture.document()["image"]?.objectValue ?? [:]
        image["properties"] = .object(properties)
        var server: JSONObject = ["image": .object(image), "extra_specs": .object(specs)]
        for (name, value) in changes.members { server[name] = value }
        var options = DomainOptions(virtType: virtType)
        adjust(&options)
        return DomainXML(server: try Fixture.server(server), files: ServerFiles(directory: "/s"), options: options, pins: pins).document
    }

    /// Release 0.1.0 accepted all keys and applied three. Applying another disk bus or firmware now would prevent the guest from booting.
    @Test func uncheckedServersKeepTheirHardware() throws {
        let properties: JSONObject = [
            "hw_disk_bus": "ide", "hw_vif_model": "e1000", "hw_machine_type": "q35", "hw_qemu_guest_agent": "yes",
        ]
        let specs: JSONObject = ["hw:watchdog_action": "reset", "quota:disk_total_iops_sec": "1", "hw:tpm_version": "2.0"]
        let checked = try document(properties, specs: specs).rendered
        #expect(checked.contains("<watchdog") && checked.contains("bus='ide'") && checked.contains("e1000"))
        let unchecked = try document(properties, specs: specs, ["hardware_checked": nil])
        let text = unchecked.rendered
        for key in ["watchdog", "'ide'", "e1000", "iotune", "tpm"] { #expect(!text.contains(key), "\(key)") }
        #expect(text.contains("machine='q35'") && text.contains("org.qemu.guest_agent.0"))
        #expect(try text == document(["hw_machine_type": "q35", "hw_qemu_guest_agent": "yes"]).rendered)
    }

    private func devices(_ tree: XMLTree, _ name: String) -> [XMLTree] { tree.child("devices")?.all(name) ?? [] }

    private func disks(_ tree: XMLTree) -> [String] {
        devices(tree, "disk").map { disk in
            let address = disk.child("address")
            let place = address.map { address in
                ["controller", "bus", "target", "unit"].compactMap { address[$0] }.joined(separator: ":")
            }
            return "\(disk["device"] ?? "") \(disk.child("target")?["bus"] ?? "") \(disk.child("target")?["dev"] ?? "") \(place ?? "-")"
        }
    }

    private static let everyDisk: JSONObject = ["volumes": [Fixture.volume], "config_drive": true, "ephemeral_gb": 1, "swap_mb": 64]

    @Test func disksAreOnTheBusOfTheImage() throws {
        let all = GuestHardwareXMLTests.everyDisk
        #expect(
            try disks(document(["hw_disk_bus": "scsi"], all)) == [
                "disk scsi sda 0:0:0:0", "disk scsi sdb 0:0:0:1", "disk scsi sdx 0:0:0:23", "disk scsi sdy 0:0:0:24",
                "cdrom scsi sdz 0:0:0:25",
            ])
        #expect(
            try disks(document(["hw_disk_bus": "scsi", "hw_scsi_model": "lsisas1068"], all)) == [
                "disk scsi sda 0:0:0:0", "disk scsi sdb 0:0:1:0", "disk scsi sde 0:0:4:0", "disk scsi sdf 0:0:5:0",
                "cdrom scsi sdg 0:0:6:0",
            ])
        #expect(
            try disks(document(["hw_disk_bus": "sata"], all)) == [
                "disk sata sda 0:0:0:0", "disk sata sdb 0:0:0:1", "disk sata sdd 0:0:0:3", "disk sata sde 0:0:0:4",
                "cdrom sata sdf 0:0:0:5",
            ])
        #expect(
            try disks(document(["hw_disk_bus": "ide"], ["swap_mb": 64, "config_drive": true])) == [
                "disk ide hda 0:0:0:0", "disk ide hdc 0:1:0:0", "cdrom ide hdd 0:1:0:1",
            ])
        #expect(try disks(document(["hw_disk_bus": "usb"])) == ["disk usb sda -"])
        #expect(
            try disks(document(["hw_cdrom_bus": "sata"], ["config_drive": true])) == ["disk virtio vda -", "cdrom sata sdf 0:0:0:5"])
    }

    @Test func busesHaveControllersThatGuestsKnow() throws {
        let scsi = try document(["hw_disk_bus": "scsi", "hw_scsi_model": "paravirtual"])
        #expect(devices(scsi, "controller").contains { $0["type"] == "scsi" && $0["index"] == "0" && $0["model"] == "vmpvscsi" })
        let usb = try document(["hw_disk_bus": "usb"])
        #expect(devices(usb, "controller").contains { $0["type"] == "usb" && $0["model"] == "qemu-xhci" })
        // Old disk buses do not work with new machine types.
        let ide = try document(["hw_disk_bus": "ide"], virtType: .kvm)
        #expect(ide.child("os")?.child("type")?["machine"] == "pc")
    }

    /// A disk has the same name whether it is attached at boot or later.
    @Test func anAttachedVolumeIsOnTheBusToo() throws {
        var image = Fixture.document()["image"]?.objectValue ?? [:]
        image["properties"] = ["hw_disk_bus": "scsi"]
        let server = try Fixture.server(["image": .object(image), "volumes": [Fixture.volume]])
        let xml = DomainXML(server: server, files: ServerFiles(directory: "/s"), options: DomainOptions(virtType: .qemu))
        let disk = xml.volumeDisk(server.volumes[0])
        #expect(disk.child("target")?["dev"] == "sdb" && disk.child("target")?["bus"] == "scsi")
        #expect(disk.child("address")?["unit"] == "1" && disk.child("backingStore") != nil && disk.child("driver")?["type"] == "raw")
    }

    @Test func theRootDiskOfACopyIsFoundOnAnyBus() throws {
        let cases: [(JSONObject, String)] = [(["hw_disk_bus": "sata"], "sda"), ([:], "vda")]
        for (properties, name) in cases {
            let backup = try DomainBackup.document([.root(into: "/copy")], xml: document(properties).rendered)
            #expect(backup?.child("disks")?.child("disk")?["name"] == name)
        }
        #expect(try DomainBackup.document([.init(serial: "no-volume", path: "/copy", format: "raw")], xml: document().rendered) == nil)
    }

    @Test func devicesAreOfTheChosenModel() throws {
        let tree = try document([
            "hw_video_model": "vga", "hw_video_ram": "32", "hw_pointer_model": "usbtablet", "hw_input_bus": "virtio",
            "hw_watchdog_action": "poweroff", "hw_serial_port_count": "3", "hw_boot_menu": "true", "hw_time_hpet": "false",
            "hw_qemu_guest_agent": "yes", "hw_vif_model": "e1000",
        ])
        let model = devices(tree, "video").first?.child("model")
        #expect(model?["type"] == "vga" && model?["vram"] == "32768")
        #expect(devices(tree, "input").map { "\($0["type"] ?? "") \($0["bus"] ?? "")" } == ["tablet virtio", "keyboard virtio"])
        #expect(devices(tree, "watchdog").map { $0["action"] } == ["poweroff"])
        #expect(devices(tree, "serial").compactMap { $0.child("target")?["port"] } == ["0", "1", "2"])
        #expect(Set(devices(tree, "serial").compactMap { $0.child("source")?["path"] }).count == 3)
        #expect(tree.child("os")?.child("bootmenu")?["enable"] == "yes")
        #expect(tree.child("clock")?.all("timer").map { "\($0["name"] ?? "") \($0["present"] ?? "")" } == ["hpet no"])
        #expect(devices(tree, "channel").count == 1)
        #expect(devices(tree, "interface").first?.child("model")?["type"] == "e1000")
        let plain = try document()
        for name in ["input", "watchdog", "tpm", "channel"] { #expect(devices(plain, name).isEmpty) }
        #expect(devices(plain, "serial").count == 1 && devices(plain, "rng").count == 1)
    }

    @Test func flavorEnablesTheRNG() throws {
        #expect(try devices(document(specs: ["hw_rng:allowed": "no"]), "rng").isEmpty)
        let rate = try devices(document(specs: ["hw_rng:rate_bytes": "2048", "hw_rng:rate_period": "500"]), "rng").first?.child("rate")
        #expect(rate?["bytes"] == "2048" && rate?["period"] == "500")
    }

    @Test func windowsHasLocalTimeAndHyperVInterfaces() throws {
        let tcg = try document(["os_type": "windows"])
        #expect(tcg.child("clock")?["offset"] == "localtime" && tcg.child("features")?.child("hyperv") == nil)
        let kvm = try document(["os_type": "windows"], virtType: .kvm)
        let interfaces = try #require(kvm.child("features")?.child("hyperv"))
        #expect(interfaces.child("relaxed")?["state"] == "on" && interfaces.child("spinlocks")?["retries"] == "8191")
        #expect(kvm.child("clock")?.all("timer").contains { $0["name"] == "hypervclock" && $0["present"] == "yes" } == true)
        #expect(interfaces.child("vendor_id") == nil)
        let hidden = try document(["os_type": "windows", "img_hide_hypervisor_id": "yes"], virtType: .kvm)
        #expect(hidden.child("features")?.child("hyperv")?.child("vendor_id") != nil)
        for properties in [[:], ["os_type": "linux"]] as [JSONObject] {
            let other = try document(properties, virtType: .kvm)
            #expect(other.child("clock")?["offset"] == "utc" && other.child("features")?.child("hyperv") == nil)
        }
    }

    @Test func theHypervisorIsHidden() throws {
        let tcg = try document(["img_hide_hypervisor_id": "true"])
        #expect(tcg.child("cpu")?.all("feature").contains { $0["name"] == "hypervisor" && $0["policy"] == "disable" } == true)
        let kvm = try document(specs: ["hw:hide_hypervisor_id": "true"], virtType: .kvm)
        #expect(kvm.child("features")?.child("kvm")?.child("hidden")?["state"] == "on")
        #expect(try document().child("features")?.child("kvm") == nil)
    }

    @Test func theFirmwareIsTheImages() throws {
        let uefi = try document(["hw_firmware_type": "uefi"])
        let plain = try #require(uefi.child("os"))
        #expect(plain.child("type")?["machine"] == "q35" && plain.child("loader")?.text == "/usr/share/OVMF/OVMF_CODE_4M.fd")
        #expect(plain.child("loader")?["secure"] == nil && uefi.child("features")?.child("smm") == nil)
        let required = try document(["hw_firmware_type": "uefi"], specs: ["os:secure_boot": "required"])
        let secure = try #require(required.child("os"))
        #expect(secure.child("loader")?["secure"] == "yes" && secure.child("loader")?.text == "/usr/share/OVMF/OVMF_CODE_4M.ms.fd")
        #expect(secure.child("nvram")?["template"] == "/usr/share/OVMF/OVMF_VARS_4M.ms.fd")
        // Variables of one firmware would not protect the other.
        #expect(secure.child("nvram")?.text != plain.child("nvram")?.text)
        #expect(required.child("features")?.child("smm")?["state"] == "on")
        let optional: JSONObject = ["hw_firmware_type": "uefi", "os_secure_boot": "optional"]
        #expect(try document(optional).child("os")?.child("loader")?["secure"] == nil)
        #expect(try document(optional) { $0.hasSecureBoot = true }.child("os")?.child("loader")?["secure"] == "yes")
    }

    @Test func aTrustedPlatformModuleIsEmulated() throws {
        let tpm = try devices(document(specs: ["hw:tpm_version": "2.0", "hw:tpm_model": "tpm-crb"]), "tpm")
        #expect(tpm.map { $0["model"] } == ["tpm-crb"])
        #expect(tpm.first?.child("backend")?["version"] == "2.0" && tpm.first?.child("backend")?["type"] == "emulator")
    }

    @Test func processorsAreAsTheFlavorSays() throws {
        let tree = try document(
            specs: ["hw:cpu_sockets": "1", "hw:cpu_threads": "2", "hw:numa_nodes": "2"], ["vcpus": 4, "memory_mb": 512])
        let topology = tree.child("cpu")?.child("topology")
        #expect([topology?["sockets"], topology?["cores"], topology?["threads"]] == ["1", "2", "2"])
        let cells = tree.child("cpu")?.child("numa")?.all("cell") ?? []
        #expect(cells.map { $0["cpus"] } == ["0-1", "2-3"] && cells.map { $0["memory"] } == ["256", "256"])
        #expect(tree.child("cputune") == nil)
    }

    @Test func limitsOfTheFlavorAreSet() throws {
        let specs: JSONObject = [
            "quota:disk_total_bytes_sec": "1048576", "quota:disk_read_iops_sec": "100", "quota:cpu_shares": "512",
            "quota:cpu_quota": "25000",
            "quota:cpu_period": "50000",
        ]
        let tree = try document(specs: specs, ["volumes": [Fixture.volume], "swap_mb": 64])
        let limits = devices(tree, "disk").map { disk in
            disk.child("iotune")?.children.map { "\($0.name) \($0.text)" } ?? []
        }
        let own = ["read_iops_sec 100", "total_bytes_sec 1048576"]
        #expect(limits == [own, [], own])
        #expect(tree.child("cputune")?.children.map { "\($0.name) \($0.text)" } == ["shares 512", "period 50000", "quota 25000"])
    }

    @Test func interfacesHaveAQueuePerProcessor() throws {
        let several = try document(["hw_vif_multiqueue_enabled": "true"], ["vcpus": 2])
        #expect(devices(several, "interface").first?.child("driver")?["queues"] == "2")
        #expect(try devices(document(["hw_vif_multiqueue_enabled": "true"]), "interface").first?.child("driver")?["queues"] == nil)
        let old = try document(["hw_vif_multiqueue_enabled": "true", "hw_vif_model": "rtl8139"], ["vcpus": 2])
        #expect(devices(old, "interface").first?.child("driver") == nil)
    }

    @Test func dedicatedProcessorsArePinnedAndOthersKeptAway() throws {
        let own = try document(specs: ["hw:cpu_policy": "dedicated"], ["vcpus": 2], pins: [5, 2]) { $0.sharedProcessors = "0-1" }
        #expect(own.child("cputune")?.all("vcpupin").map { "\($0["vcpu"] ?? "")=\($0["cpuset"] ?? "")" } == ["0=5", "1=2"])
        #expect(own.child("cputune")?.child("emulatorpin")?["cpuset"] == "0-1" && own.child("vcpu")?["cpuset"] == nil)
        let shared = try document { $0.sharedProcessors = "0-1" }
        #expect(shared.child("vcpu")?["cpuset"] == "0-1" && shared.child("cputune") == nil)
        #expect(try document().child("vcpu")?["cpuset"] == nil)
    }

    @Test func processorsAreAssignedOnce() async throws {
        let processors = DedicatedProcessors([2, 3, 4, 5])
        await processors.adopt("a", [3])
        #expect(try await processors.assign(2, to: "a") == [3, 2])
        #expect(try await processors.assign(2, to: "b") == [4, 5])
        let error = await #expect(throws: ResourceError.self) { try await processors.assign(1, to: "c") }
        #expect(error?.code == .unavailable)
        // A resize to fewer processors releases some; a repetition changes nothing.
        #expect(try await processors.assign(1, to: "b") == [4])
        #expect(try await processors.assign(1, to: "b") == [4])
        #expect(try await processors.assign(1, to: "c") == [5])
        await processors.release("a")
        #expect(try await processors.assign(2, to: "d") == [2, 3])
        // The operator has reduced the dedicated processors.
        let fewer = DedicatedProcessors([4, 5])
        await fewer.adopt("d", [2, 4])
        #expect(try await fewer.assign(2, to: "d") == [4, 5])
    }

    @Test func theAssignmentIsInTheRecord() throws {
        var record = LocalServerRecord(serverID: Fixture.serverID)
        record.pins = [4, 2]
        #expect(try LocalServerRecord(document: record.document).pins == [4, 2])
        var earlier = record.document.objectValue ?? [:]
        earlier["pins"] = nil
        #expect(try LocalServerRecord(document: .object(earlier)).pins == [])
    }

    @Test func theProcessorOfSeveralHostsReplacesTheSetting() throws {
        let common = try XMLTree.parse(
            """
            <cpu mode='custom' match='exact'><model fallback='forbid'>Haswell</model><vendor>Intel</vendor>
            <feature policy='require' name='hypervisor'/><feature policy='disable' name='rtm'/></cpu>
            """)
        func cpu(_ specs: JSONObject, _ options: DomainOptions) throws -> XMLTree {
            let server = try Fixture.server(["extra_specs": .object(specs), "processor_definitions": ["<cpu/>"]])
            #expect(server.processorDefinitions == ["<cpu/>"])
            let xml = DomainXML(server: server, files: ServerFiles(directory: "/s"), options: options, processor: common)
            return try #require(xml.document.child("cpu"))
        }
        let found = try cpu([:], DomainOptions(virtType: .kvm, cpuMode: "host-passthrough"))
        #expect(found["mode"] == "custom" && found["check"] == "partial" && found.child("model")?.text == "Haswell")
        #expect(found.all("feature").map { "\($0["policy"] ?? "") \($0["name"] ?? "")" } == ["require hypervisor", "disable rtm"])
        #expect(found.child("topology") != nil)
        // libvirt refuses a feature that is named twice.
        let hidden = try cpu(["hw:hide_hypervisor_id": "true"], DomainOptions(virtType: .qemu))
        #expect(
            hidden.all("feature").map { "\($0["policy"] ?? "") \($0["name"] ?? "")" } == ["disable rtm", "disable hypervisor"])
    }

    @Test func hostsAnnounceTheProcessorOfGuests() throws {
        var inventory = HostInventory(cpus: 4, memoryMiB: 1024, diskGiB: 10, virtType: .qemu, hypervisorVersion: 1)
        #expect(inventory.capabilities.processorDefinition == nil)
        try inventory.readDomainCapabilities(
            xml: """
                <domainCapabilities><cpu><mode name='host-passthrough' supported='yes'/><mode name='host-model' supported='yes'>
                <model fallback='forbid'>EPYC</model><feature policy='require' name='ss'/></mode></cpu></domainCapabilities>
                """)
        let cpu = try XMLTree.parse(try #require(inventory.capabilities.processorDefinition))
        #expect(cpu.name == "cpu" && cpu.child("model")?.text == "EPYC" && cpu.child("feature")?["name"] == "ss")
    }

    @Test func hostsAnnounceLibvirtsCapabilities() throws {
        var inventory = HostInventory(cpus: 4, memoryMiB: 1024, diskGiB: 10, virtType: .qemu, hypervisorVersion: 1)
        #expect(!inventory.traits.contains("COMPUTE_STORAGE_BUS_SCSI") && !inventory.traits.contains("COMPUTE_FIRMWARE_UEFI"))
        try inventory.readDomainCapabilities(
            xml: """
                <domainCapabilities><os supported='yes'><loader supported='yes'><value>/usr/share/OVMF/OVMF_CODE_4M.fd</value>
                <enum name='secure'><value>no</value></enum></loader></os><devices>
                <disk supported='yes'><enum name='bus'><value>scsi</value><value>fdc</value></enum></disk>
                <video supported='yes'><enum name='modelType'><value>vga</value><value>ramfb</value></enum></video>
                <tpm supported='yes'><enum name='model'><value>tpm-crb</value></enum><enum name='backendModel'><value>emulator</value></enum>
                <enum name='backendVersion'><value>2.0</value></enum></tpm></devices></domainCapabilities>
                """)
        try inventory.readCapabilities(
            xml:
                "<capabilities><guest><arch name='x86_64'><machine>pc-q35-7.2</machine><machine>isapc</machine></arch></guest></capabilities>"
        )
        let traits = Set(inventory.traits)
        for trait in [
            "COMPUTE_STORAGE_BUS_SCSI", "COMPUTE_GRAPHICS_MODEL_VGA", "COMPUTE_SECURITY_TPM_2_0", "COMPUTE_SECURITY_TPM_CRB",
            "COMPUTE_FIRMWARE_UEFI", "CUSTOM_WOLKE_MACHINE_PC_Q35_7_2", "CUSTOM_WOLKE_GUEST_HARDWARE",
        ] { #expect(traits.contains(trait), "\(trait)") }
        for trait in [
            "COMPUTE_STORAGE_BUS_FDC", "COMPUTE_GRAPHICS_MODEL_RAMFB", "COMPUTE_SECURITY_TPM_1_2", "COMPUTE_SECURITY_TPM_TIS",
            "COMPUTE_SECURITY_UEFI_SECURE_BOOT", "CUSTOM_WOLKE_MACHINE_ISAPC", "CUSTOM_WOLKE_CPU_RATES",
        ] { #expect(!traits.contains(trait), "\(trait)") }
    }
}
