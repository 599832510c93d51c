import Kernel

/// How guests are virtualised.
package enum VirtType: String, Sendable, Hashable {
    case kvm
    /// QEMU's translator (TCG).
    case qemu
}

/// The host's settings for every domain.
package struct DomainOptions: Sendable, Hashable {
    package var virtType: VirtType
    /// `host-passthrough`, `host-model` or `custom`.
    package var cpuMode: String
    /// The model for `custom`.
    package var cpuModel: String
    /// `pc`, `q35`, or a versioned form of either.
    package var machine: String
    /// QEMU's cache mode of disks.
    package var diskCache: String
    /// Whether checksum and segmentation offload between guest and host is enabled. Must be off with the userspace
    /// datapath.
    package var nicOffloads: Bool
    /// Nil: libvirt's choice.
    package var emulator: String?
    /// Free PCIe slots for later devices on q35.
    package var hotplugSlots: Int
    /// Address on which VNC displays listen, for operators' tools; nil: nowhere. Consoles do not need it.
    package var vncListen: String?

    package init(
        virtType: VirtType, cpuMode: String? = nil, cpuModel: String = "qemu64", machine: String? = nil,
        diskCache: String = "none", nicOffloads: Bool = false, emulator: String? = nil, hotplugSlots: Int = 12
    ) {
        self.virtType = virtType
        self.cpuMode = cpuMode ?? (virtType == .kvm ? "host-model" : "custom")
        self.cpuModel = cpuModel
        self.machine = machine ?? (virtType == .kvm ? "q35" : "pc")
        self.diskCache = diskCache
        self.nicOffloads = nicOffloads
        self.emulator = emulator
        self.hotplugSlots = hotplugSlots
    }
}

/// Where a server's own files are.
package struct ServerFiles: Sendable, Hashable {
    package let directory: String

    package init(directory: String) { self.directory = directory }

    package var root: String { directory + "/root.qcow2" }
    /// The system that a rescued server boots.
    package var rescue: String { directory + "/rescue.qcow2" }
    /// A copy of a disk from before a resize.
    package static func kept(_ disk: String) -> String { disk + ".kept" }
    package var ephemeral: String { directory + "/ephemeral.qcow2" }
    package var swap: String { directory + "/swap.qcow2" }
    package var configDrive: String { directory + "/config.iso" }
    package var consoleLog: String { directory + "/console.log" }
    package var serialSocket: String { directory + "/serial.sock" }
    package var nvram: String { directory + "/nvram.fd" }
    /// The copy of the root disk that a job makes.
    package func copy(_ jobID: String) -> String { directory + "/copy-\(jobID).qcow2" }
}

/// Compiles a server to libvirt's domain XML: a pure function over typed values.
package struct DomainXML: Sendable {
    package let server: DesiredServer
    package let files: ServerFiles
    package let options: DomainOptions
    /// The root disk's backing file; nil if it has none.
    package let backing: Backing?
    /// The same for the disk of the system for a rescue.
    package let rescueBacking: Backing?

    /// A file below a disk.
    package struct Backing: Sendable, Hashable {
        package let path: String
        /// `raw` or `qcow2`.
        package let format: String

        package init(path: String, format: String) {
            self.path = path
            self.format = format
        }
    }

    package static let namespace = "https://wolke.cloud/xmlns/server/1"

    package init(
        server: DesiredServer, files: ServerFiles, options: DomainOptions, backing: Backing? = nil, rescueBacking: Backing? = nil
    ) {
        self.rescueBacking = rescueBacking
        self.server = server
        self.files = files
        self.options = options
        self.backing = backing
    }

    private func property(_ name: String) -> String? { server.imageProperties[name] }

    private var machine: String {
        guard let wanted = property("hw_machine_type")?.lowercased() else { return isUEFI ? "q35" : options.machine }
        return ["pc", "q35"].contains { wanted == $0 || wanted.hasPrefix("pc-") } ? wanted : options.machine
    }
    private var isPCIe: Bool { machine.contains("q35") }
    private var isUEFI: Bool { property("hw_firmware_type")?.lowercased() == "uefi" }

    package var document: XMLTree {
        XMLTree(
            "domain", ["type": options.virtType.rawValue],
            [
                XMLTree("name", text: server.id),
                XMLTree("uuid", text: server.id),
                XMLTree("metadata", [:], [origin]),
                XMLTree("memory", ["unit": "MiB"], text: String(server.memoryMiB)),
                XMLTree("vcpu", ["placement": "static"], text: String(server.vcpus)),
                system, sysinfo,
                XMLTree("features", [:], [XMLTree("acpi"), XMLTree("apic")]),
                cpu, clock,
                XMLTree("on_poweroff", text: "destroy"),
                XMLTree("on_reboot", text: "restart"),
                XMLTree("on_crash", text: "destroy"),
                devices,
            ])
    }

    /// Marks the domain as ours, for the operator who looks at it with virsh.
    private var origin: XMLTree {
        XMLTree(
            "wolke:server",
            [
                "xmlns:wolke": DomainXML.namespace, "generation": String(server.generation),
                "project": server.projectID, "name": server.name,
            ])
    }

    private var system: XMLTree {
        var os = XMLTree("os", [:], [XMLTree("type", ["arch": "x86_64", "machine": machine], text: "hvm")])
        if isUEFI {
            // Named explicitly, because libvirt would choose the firmware build that requires Secure Boot.
            os.append(
                XMLTree("loader", ["readonly": "yes", "type": "pflash"], text: "/usr/share/OVMF/OVMF_CODE_4M.fd"))
            os.append(XMLTree("nvram", ["template": "/usr/share/OVMF/OVMF_VARS_4M.fd"], text: files.nvram))
        }
        os.append(XMLTree("smbios", ["mode": "sysinfo"]))
        return os
    }

    /// cloud-init recognises an OpenStack machine by this product name.
    private var sysinfo: XMLTree {
        func entry(_ name: String, _ value: String) -> XMLTree { XMLTree("entry", ["name": name], text: value) }
        return XMLTree(
            "sysinfo", ["type": "smbios"],
            [
                XMLTree(
                    "system", [:],
                    [
                        entry("manufacturer", "Wolke"), entry("product", "OpenStack Compute"),
                        entry("version", "1"), entry("serial", server.id), entry("uuid", server.id),
                        entry("family", "Virtual Machine"),
                    ])
            ])
    }

    private var cpu: XMLTree {
        let topology = XMLTree("topology", ["sockets": String(server.vcpus), "cores": "1", "threads": "1"])
        guard options.cpuMode == "custom" else {
            return XMLTree("cpu", ["mode": options.cpuMode, "check": "none"], [topology])
        }
        return XMLTree(
            "cpu", ["mode": "custom", "match": "exact", "check": "none"],
            [XMLTree("model", ["fallback": "allow"], text: options.cpuModel), topology])
    }

    private var clock: XMLTree {
        var clock = XMLTree("clock", ["offset": "utc"])
        if options.virtType == .kvm {
            clock.append(XMLTree("timer", ["name": "pit", "tickpolicy": "delay"]))
            clock.append(XMLTree("timer", ["name": "rtc", "tickpolicy": "catchup"]))
            clock.append(XMLTree("timer", ["name": "hpet", "present": "no"]))
        }
        return clock
    }

    private var devices: XMLTree {
        var devices = XMLTree("devices")
        if let emulator = options.emulator { devices.append(XMLTree("emulator", text: emulator)) }
        if isPCIe {
            devices.append(XMLTree("controller", ["type": "pci", "model": "pcie-root"]))
            let used = disks.count + server.ports.count + 6
            for _ in 0..<(used + options.hotplugSlots) {
                devices.append(XMLTree("controller", ["type": "pci", "model": "pcie-root-port"]))
            }
        }
        for disk in disks { devices.append(disk) }
        for controller in rescueControllers { devices.append(controller) }
        for port in server.ports { devices.append(interface(port)) }
        // The log is appended to and never truncated, so that console output from before a crash survives the restart.
        let serial = [
            XMLTree("source", ["mode": "bind", "path": files.serialSocket]),
            XMLTree("log", ["file": files.consoleLog, "append": "on"]),
        ]
        devices.append(XMLTree("serial", ["type": "unix"], serial + [XMLTree("target", ["port": "0"])]))
        devices.append(XMLTree("console", ["type": "unix"], serial + [XMLTree("target", ["type": "serial", "port": "0"])]))
        // The spellings of true in image properties.
        if ["1", "t", "true", "on", "y", "yes"].contains((property("hw_qemu_guest_agent") ?? "").lowercased()) {
            devices.append(
                XMLTree(
                    "channel", ["type": "unix"],
                    [XMLTree("target", ["type": "virtio", "name": "org.qemu.guest_agent.0"])]))
        }
        // The display has no listener: libvirt hands out connections to it.
        let listen: XMLTree =
            if let address = options.vncListen {
                XMLTree("listen", ["type": "address", "address": address])
            } else {
                XMLTree("listen", ["type": "none"])
            }
        devices.append(XMLTree("graphics", ["type": "vnc", "autoport": "yes"], [listen]))
        devices.append(XMLTree("video", [:], [XMLTree("model", ["type": "virtio"])]))
        devices.append(XMLTree("memballoon", ["model": "virtio"], [XMLTree("stats", ["period": "10"])]))
        devices.append(
            XMLTree("rng", ["model": "virtio"], [XMLTree("backend", ["model": "random"], text: "/dev/urandom")]))
        return devices
    }

    // MARK: disks

    /// Local disks are named from the end of the alphabet, so that they never take the device name of a volume.
    enum LocalDevice {
        static let root = "vda"
        /// Of the root disk while the server is rescued.
        static let second = "vdb"
        static let ephemeral = "vdx"
        static let swap = "vdy"
        static let configDrive = "vdz"
    }

    /// The targets that the server's own files occupy.
    package static let localTargets: Set<String> = [
        LocalDevice.ephemeral, LocalDevice.swap, LocalDevice.configDrive,
    ]

    private var disks: [XMLTree] {
        if let rescue = server.rescue, !rescue.isStable { return disks(for: rescue) }
        var disks: [XMLTree] = []
        if server.hasLocalRoot {
            disks.append(localDisk(files.root, LocalDevice.root, serial: "root", backing: backing, boot: 1 + bootsBefore))
        }
        disks += server.volumes.map { volumeDisk($0) }
        if server.ephemeralGiB > 0 {
            disks.append(localDisk(files.ephemeral, LocalDevice.ephemeral, serial: "ephemeral0"))
        }
        if server.swapMiB > 0 { disks.append(localDisk(files.swap, LocalDevice.swap, serial: "swap")) }
        if server.configDrive { disks.append(configDrive) }
        if let rescue = server.rescue { disks.append(addedDisk(rescue)) }
        return disks
    }

    var configDrive: XMLTree {
        XMLTree(
            "disk", ["type": "file", "device": "disk"],
            [
                XMLTree("driver", ["name": "qemu", "type": "raw"]),
                XMLTree("source", ["file": files.configDrive]),
                XMLTree("backingStore"),
                XMLTree("target", ["dev": LocalDevice.configDrive, "bus": "virtio"]),
                XMLTree("readonly"),
                XMLTree("serial", text: "config-drive"),
            ])
    }

    /// The backing chain is written out, so that libvirt does not probe the disks for it.
    private func chain(_ backing: Backing?) -> XMLTree {
        guard let backing else { return XMLTree("backingStore") }
        return XMLTree(
            "backingStore", ["type": "file"],
            [
                XMLTree("format", ["type": backing.format]), XMLTree("source", ["file": backing.path]),
                XMLTree("backingStore"),
            ])
    }

    func localDisk(
        _ path: String, _ target: String, serial: String, backing: Backing? = nil, boot: Int? = nil,
        device: String = "disk", bus: String = "virtio"
    ) -> XMLTree {
        var disk = XMLTree(
            "disk", ["type": "file", "device": device],
            [
                XMLTree("driver", ["name": "qemu", "type": "qcow2", "cache": options.diskCache, "discard": "unmap"]),
                XMLTree("source", ["file": path]),
                chain(backing),
                XMLTree("target", ["dev": target, "bus": bus]),
                XMLTree("serial", text: serial),
            ])
        if let boot { disk.append(XMLTree("boot", ["order": String(boot)])) }
        return disk
    }

    /// The disk element of a volume: also what attaches and detaches it.
    package func volumeDisk(_ volume: DesiredVolume) -> XMLTree {
        let source: XMLTree
        let type: String
        var format = "raw"
        var readOnly = false
        switch volume.connection {
        case .file(let path, let fileFormat, let isReadOnly):
            (type, format, readOnly) = ("file", fileFormat, isReadOnly)
            source = XMLTree("source", ["file": path])
        case .nbd(let host, let port, let export):
            type = "network"
            source = XMLTree(
                "source", ["protocol": "nbd", "name": export], [XMLTree("host", ["name": host, "port": String(port)])])
        }
        var disk = XMLTree(
            "disk", ["type": type, "device": "disk"],
            [
                XMLTree("driver", ["name": "qemu", "type": format, "cache": options.diskCache, "discard": "unmap"]),
                source,
                XMLTree("backingStore"),
                XMLTree("target", ["dev": volume.device, "bus": "virtio"]),
            ])
        if readOnly { disk.append(XMLTree("readonly")) }
        disk.append(XMLTree("serial", text: volume.volumeID))
        if let index = volume.bootIndex, index >= 0 {
            disk.append(XMLTree("boot", ["order": String(index + (server.hasLocalRoot ? 2 : 1) + bootsBefore)]))
        }
        return disk
    }

    // MARK: interfaces

    private var interfaceModel: String {
        let wanted = (property("hw_vif_model") ?? "").lowercased()
        return ["e1000", "e1000e", "rtl8139", "pcnet"].contains(wanted) ? wanted : "virtio"
    }

    /// The interface element of a port: also what attaches and detaches it. The tap is the agent's own.
    package func interface(_ port: DesiredPort) -> XMLTree {
        var interface = XMLTree(
            "interface", ["type": "ethernet"],
            [
                XMLTree("mac", ["address": port.mac.description]),
                XMLTree("target", ["dev": port.tapName, "managed": "no"]),
                XMLTree("model", ["type": interfaceModel]),
                XMLTree("mtu", ["size": String(port.mtu)]),
            ])
        // Only virtio interfaces have offloads that must be disabled.
        if !options.nicOffloads, interfaceModel == "virtio" {
            interface.append(
                XMLTree(
                    "driver", [:],
                    [
                        XMLTree(
                            "host",
                            [
                                "csum": "off", "gso": "off", "tso4": "off", "tso6": "off", "ecn": "off",
                                "ufo": "off",
                            ]),
                        XMLTree(
                            "guest", ["csum": "off", "tso4": "off", "tso6": "off", "ecn": "off", "ufo": "off"]),
                    ]))
        }
        return interface
    }
}
