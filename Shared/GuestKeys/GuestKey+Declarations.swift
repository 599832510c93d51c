// Features that this cloud lacks, as named in refusals.
private let pinning = "dedicated processors"
private let pages = "memory pages of a selected size"
private let mixed = "dedicated processors for a part of the vcpus"
private let vmware = "it is for VMware hosts"
private let networkRates = "rates of network interfaces, which the userspace datapath of Open vSwitch does not keep"
private let passthrough = "host devices in servers"
private let natural = 0...Int.max
private let positive = 1...Int.max
/// QEMU refuses more nodes than a PC can have.
private let nodes = 1...128

private let scsiModels = [
    "buslogic", "ibmvscsi", "lsilogic", "lsisas1068", "lsisas1078", "virtio-scsi", "vmpvscsi", "lsilogicsas", "paravirtual",
]
/// Properties of rescue images.
private let rescue = "servers that are rescued with the image have such a disk; see compute.md"
/// Nova's values that the libvirt driver supports.
private let servedBuses = ["virtio", "scsi", "sata", "ide", "usb"]
private let serialPorts = 1...GuestHardware.serialPortsMax
private let buses = ["fdc", "ide", "sata", "scsi", "usb", "virtio", "xen", "lxc", "uml"]
private let watchdogActions = ["disabled", "none", "pause", "poweroff", "reset"]
private let numaAffinity = ["legacy", "preferred", "required", "socket"]

extension GuestKey {
    private static func flavor(_ name: String, _ values: Values, _ effect: Effect) -> GuestKey { GuestKey(.flavor, name, values, effect) }
    private static func image(_ name: String, _ values: Values, _ effect: Effect) -> GuestKey { GuestKey(.image, name, values, effect) }
    /// A boolean that only supports `false`, the default.
    private static func off(_ lacking: String) -> Effect { .limited(to: ["false"], lacking: lacking) }

    /// Extra specs, as nova.api.validation.extra_specs declares them.
    static let flavorKeys: [GuestKey] =
        [
            flavor("resources:*", .number(natural), .implemented),
            flavor("trait:*", .words(["required", "forbidden"]), .implemented),
            flavor("aggregate_instance_extra_specs:*", .text, .implemented),
            flavor("resources*", .number(natural), .refused("granular groups of resources")),
            flavor("trait*", .words(["required", "forbidden"]), .refused("granular groups of resources")),
            flavor("group_policy", .words(["isolate", "none"]), .refused("granular groups of resources")),
            flavor("capabilities:*", .text, .refused("a filter by capabilities of hosts; use trait:NAME")),
            flavor("hw:boot_menu", .flag, .implemented),
            flavor("hw:cpu_policy", .words(["dedicated", "shared", "mixed"]), .limited(to: ["shared", "dedicated"], lacking: mixed)),
            flavor(
                "hw:cpu_thread_policy", .words(["prefer", "isolate", "require"]),
                .limited(to: ["prefer", "isolate"], lacking: "pairs of hardware threads")),
            flavor("hw:emulator_threads_policy", .words(["isolate", "share"]), .limited(to: ["share"], lacking: pinning)),
            flavor("hw:cpu_dedicated_mask", .text, .refused(mixed)),
            flavor("hw:cpu_realtime", .flag, off(pinning)),
            flavor("hw:cpu_realtime_mask", .text, .refused(pinning)),
            flavor("hw:cpu_sockets", .number(positive), .implemented),
            flavor("hw:cpu_cores", .number(positive), .implemented),
            flavor("hw:cpu_threads", .number(positive), .implemented),
            flavor("hw:cpu_max_sockets", .number(positive), .implemented),
            flavor("hw:cpu_max_cores", .number(positive), .implemented),
            flavor("hw:cpu_max_threads", .number(positive), .implemented),
            flavor("hw:hide_hypervisor_id", .flag, .implemented),
            flavor("hide_hypervisor_id", .flag, .implemented),
            flavor("hw:locked_memory", .flag, off("locked memory")),
            flavor("hw:maxphysaddr_mode", .words(["passthrough", "emulate"]), .refused("a custom physical address width")),
            flavor("hw:maxphysaddr_bits", .number(positive), .refused("a custom physical address width")),
            flavor("hw:mem_encryption", .flag, off("encrypted memory")),
            flavor(
                "hw:mem_encryption_model", .words(["amd-sev", "amd-sev-es", "amd-sev-snp"]),
                .metadata("it only configures hw:mem_encryption")),
            flavor("hw:mem_page_size", .text, .limited(to: ["any", "small"], lacking: pages)),
            flavor("hw:numa_nodes", .number(nodes), .implemented),
            flavor("hw:numa_cpus.*", .text, .implemented),
            flavor("hw:numa_mem.*", .number(positive), .implemented),
            flavor("hw:pci_numa_affinity_policy", .words(numaAffinity), .metadata("it concerns host devices, which servers cannot have")),
            flavor("hw:pmem", .text, .refused("persistent memory")),
            flavor("hw:pmu", .flag, .refused("configuring the performance counters")),
            flavor("hw:serial_port_count", .number(serialPorts), .implemented),
            flavor("hw:sound_model", .text, .refused("sound devices")),
            flavor("hw:usb_model", .text, .refused("USB controllers")),
            flavor("hw:redirected_usb_ports", .number(0...15), .limited(to: ["0"], lacking: "redirected USB ports")),
            flavor("hw:tpm_version", .words(["1.2", "2.0"]), .implemented),
            flavor("hw:tpm_model", .words(["tpm-tis", "tpm-crb"]), .implemented),
            flavor(
                "hw:tpm_secret_security", .words(["user", "host", "deployment"]), .refused("encrypted state of trusted platform modules")),
            flavor("hw:vif_multiqueue_enabled", .flag, .implemented),
            flavor("hw:viommu_model", .words(["intel", "smmuv3", "virtio", "auto"]), .refused("virtual IOMMUs")),
            flavor("hw:virtio_packed_ring", .flag, off("packed virtqueues")),
            flavor("hw:watchdog_action", .words(watchdogActions), .implemented),
            flavor("hw:ephemeral_encryption", .flag, off("encrypted local disks")),
            flavor("hw:ephemeral_encryption_format", .text, .metadata("it only configures hw:ephemeral_encryption")),
            flavor("hw_rng:allowed", .flag, .implemented),
            flavor("hw_rng:rate_bytes", .number(0...Int(Int32.max)), .implemented),
            flavor("hw_rng:rate_period", .number(1...Int(Int32.max)), .implemented),
            flavor("hw_video:ram_max_mb", .number(0...256), .implemented),
            flavor("os:secure_boot", .words(["disabled", "required", "optional"]), .implemented),
            flavor("quota:cpu_shares", .number(2...262_144), .implemented),
            flavor("quota:cpu_period", .number(1000...1_000_000), .implemented),
            flavor("quota:cpu_quota", .number(-1...17_592_186_044_415), .implemented),
            flavor("accel:device_profile", .text, .refused(passthrough)),
            flavor("pci_passthrough:alias", .text, .refused(passthrough)),
            flavor("vmware:*", .text, .refused("VMware hosts")),
            flavor("powervm:*", .text, .refused("PowerVM hosts")),
        ] + quotaKeys

    private static var quotaKeys: [GuestKey] {
        var keys: [GuestKey] = []
        for kind in ["read", "write", "total"] {
            for unit in ["bytes", "iops"] {
                keys.append(flavor("quota:disk_\(kind)_\(unit)_sec", .number(0...1_000_000_000_000_000), .implemented))
            }
        }
        for kind in ["inbound", "outbound"] {
            for figure in ["average", "peak", "burst"] {
                keys.append(flavor("quota:vif_\(kind)_\(figure)", .number(natural), .refused(networkRates)))
            }
        }
        for kind in ["cpu", "memory", "disk_io", "vif"] {
            keys.append(flavor("quota:\(kind)_limit", .number(natural), .refused(vmware)))
            keys.append(flavor("quota:\(kind)_reservation", .number(Int.min...Int.max), .refused(vmware)))
            keys.append(flavor("quota:\(kind)_shares_level", .words(["custom", "high", "normal", "low"]), .refused(vmware)))
            keys.append(flavor("quota:\(kind)_shares_share", .number(natural), .refused(vmware)))
        }
        return keys
    }

    /// Properties, as nova.objects.ImageMetaProps declares them, and those that Nova still reads under older names.
    static let imageKeys: [GuestKey] = [
        image("trait:*", .words(["required", "forbidden"]), .implemented),
        image("hw_architecture", .text, .implemented), image("architecture", .text, .implemented),
        image("img_hv_type", .text, .implemented), image("hypervisor_type", .text, .implemented),
        image("hw_firmware_type", .words(["bios", "uefi"]), .implemented),
        image(
            "hw_machine_type", .text,
            .limited(to: ["pc", "q35", "pc-i440fx-*", "pc-q35-*"], lacking: "machine types other than pc and q35")),
        image("hw_qemu_guest_agent", .flag, .implemented),
        image(
            "hw_vif_model", .text,
            .limited(to: ["virtio", "e1000", "e1000e", "rtl8139", "pcnet"], lacking: "this model of a network interface")),
        image("hw_rng_model", .words(["virtio"]), .implemented),
        image("img_config_drive", .words(["mandatory", "optional"]), .implemented),
        image("hw_vm_mode", .text, .limited(to: ["hvm"], lacking: "modes other than full virtualization")),
        image("vm_mode", .text, .limited(to: ["hvm"], lacking: "modes other than full virtualization")),
        image("hw_disk_bus", .words(buses), .limited(to: servedBuses, lacking: "this bus of disks")),
        image("hw_boot_menu", .flag, .implemented),
        image("hw_cpu_policy", .words(["dedicated", "shared", "mixed"]), .limited(to: ["shared", "dedicated"], lacking: mixed)),
        image(
            "hw_cpu_thread_policy", .words(["prefer", "isolate", "require"]),
            .limited(to: ["prefer", "isolate"], lacking: "pairs of hardware threads")),
        image("hw_cpu_realtime_mask", .text, .refused(pinning)),
        image("hw_cpu_sockets", .number(positive), .implemented), image("hw_cpu_cores", .number(positive), .implemented),
        image("hw_cpu_threads", .number(positive), .implemented), image("hw_cpu_max_sockets", .number(positive), .implemented),
        image("hw_cpu_max_cores", .number(positive), .implemented),
        image("hw_cpu_max_threads", .number(positive), .implemented),
        image("hw_emulation_architecture", .text, .refused("guests with another architecture than the host")),
        image("hw_ephemeral_encryption", .flag, off("encrypted local disks")),
        image("hw_ephemeral_encryption_format", .text, .metadata("it only configures hw_ephemeral_encryption")),
        image("hw_ephemeral_encryption_secret_uuid", .text, .refused("encrypted local disks")),
        image("hw_firmware_stateless", .flag, off("stateless firmware")),
        image("hw_locked_memory", .flag, off("locked memory")),
        image("hw_maxphysaddr_mode", .words(["passthrough", "emulate"]), .refused("a custom physical address width")),
        image("hw_maxphysaddr_bits", .number(positive), .refused("a custom physical address width")),
        image("hw_mem_encryption", .flag, off("encrypted memory")),
        image(
            "hw_mem_encryption_model", .words(["amd-sev", "amd-sev-es", "amd-sev-snp"]), .metadata("it only configures hw_mem_encryption")),
        image("hw_mem_page_size", .text, .limited(to: ["any", "small"], lacking: pages)),
        image("hw_numa_nodes", .number(nodes), .implemented), image("hw_numa_cpus.*", .text, .implemented),
        image("hw_numa_mem.*", .number(positive), .implemented),
        image("hw_pci_numa_affinity_policy", .words(numaAffinity), .metadata("it concerns host devices, which servers cannot have")),
        image("hw_pmu", .flag, .refused("configuring the performance counters")),
        image("hw_serial_port_count", .number(serialPorts), .implemented),
        image("hw_sound_model", .text, .refused("sound devices")), image("hw_usb_model", .text, .refused("USB controllers")),
        image("hw_redirected_usb_ports", .number(0...15), .limited(to: ["0"], lacking: "redirected USB ports")),
        image("hw_time_hpet", .flag, .implemented),
        image("hw_tpm_version", .words(["1.2", "2.0"]), .implemented),
        image("hw_tpm_model", .words(["tpm-tis", "tpm-crb"]), .implemented),
        image("hw_vif_multiqueue_enabled", .flag, .implemented),
        image("hw_viommu_model", .words(["intel", "smmuv3", "virtio", "auto"]), .refused("virtual IOMMUs")),
        image("hw_virtio_packed_ring", .flag, off("packed virtqueues")),
        image("hw_watchdog_action", .words(watchdogActions), .implemented),
        image("os_secure_boot", .words(["disabled", "required", "optional"]), .implemented),
        image("img_hide_hypervisor_id", .flag, .implemented),
        image("img_hv_requested_version", .text, .refused("a required hypervisor version")),
        image("img_signature", .text, .refused("signature verification")),
        image("img_signature_hash_method", .text, .refused("signature verification")),
        image("img_signature_key_type", .text, .refused("signature verification")),
        image("img_signature_certificate_uuid", .text, .refused("signature verification")),
        image("kernel_id", .text, .limited(to: ["", "nokernel"], lacking: "separate kernels")),
        image("ramdisk_id", .text, .limited(to: ["", "nokernel"], lacking: "separate kernels")),
        image("os_command_line", .text, .refused("separate kernels")),
        image("block_device_mapping", .text, .implemented), image("bdm_v2", .flag, .implemented),
        image("img_block_device_mapping", .text, .limited(to: ["", "[]"], lacking: "a mapping under this name")),
        image("os_type", .words(["linux", "windows"]), .implemented),
        image("os_distro", .text, .metadata("it only describes the image")),
        image("os_admin_user", .text, .implemented),
        image("os_require_quiesce", .flag, .implemented),
        image("os_skip_agent_inject_files_at_boot", .flag, .metadata("it is for XenServer")),
        image("os_skip_agent_inject_ssh", .flag, .metadata("it is for XenServer")),
        image("hw_auto_disk_config", .text, .metadata("guests enlarge their root file system themselves")),
        image("auto_disk_config", .text, .metadata("guests enlarge their root file system themselves")),
        image("hw_cdrom_bus", .words(buses), .limited(to: ["scsi", "sata", "ide", "usb"], lacking: "this bus of CD drives")),
        image("hw_floppy_bus", .words(buses), .metadata("servers have no floppy drive")),
        image("hw_device_id", .text, .metadata("it is for Hyper-V")), image("hw_disk_type", .text, .metadata("it is for VMware")),
        image("hw_ipxe_boot", .flag, .metadata("it is for bare metal")),
        image(
            "hw_scsi_model", .words(scsiModels),
            .limited(to: GuestHardware.scsiModels.keys.sorted(), lacking: "this model of a SCSI controller")),
        image("hw_input_bus", .words(["usb", "virtio"]), .implemented),
        image("hw_pointer_model", .text, .limited(to: ["usbtablet", "ps2mouse"], lacking: "this pointing device")),
        image(
            "hw_video_model", .words(["cirrus", "qxl", "vga", "vmvga", "xen", "virtio", "gop", "none", "bochs"]),
            .limited(to: ["virtio", "vga", "cirrus", "qxl", "bochs", "none"], lacking: "this model of a graphics card")),
        image("hw_video_ram", .number(0...256), .implemented),
        image("hw_rescue_bus", .words(buses), .metadata(rescue)),
        image("hw_rescue_device", .words(["disk", "cdrom", "floppy"]), .metadata(rescue)),
        image("img_bittorrent", .flag, .metadata("it is for XenServer")),
        image("img_cache_in_nova", .flag, .metadata("it is for XenServer")),
        image("img_compression_level", .text, .metadata("it is for XenServer")),
        image("img_linked_clone", .flag, .metadata("it is for VMware")),
        image("img_use_agent", .flag, .metadata("it is for XenServer")),
        image("img_version", .text, .metadata("it only records how the image was created")),
        image("img_owner_id", .text, .metadata("it only records how the image was created")),
        image("img_root_device_name", .text, .metadata("the root disk's name follows from its bus")),
    ]
}
