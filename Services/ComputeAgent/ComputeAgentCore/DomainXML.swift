import GuestKeys
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
    /// Address on which VNC displays listen, for operators' tools; nil if they do not listen. Consoles do not need it.
    package var vncListen: String?
    /// The processors that servers without dedicated ones may use, as a list; nil: all.
    package var sharedProcessors: String?
    /// Whether the firmware for Secure Boot is installed.
    package var hasSecureBoot = false

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

/// The paths of a server's own files.
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
    /// The variables of the firmware for Secure Boot.
    package var secureNVRAM: String { directory + "/nvram.secure.fd" }
    /// The state of the trusted platform module.
    package var tpm: String { directory + "/tpm" }
    /// The socket of a serial port other than the first.
    package func furtherSerialSocket(_ port: Int) -> String { directory + "/serial\(port).sock" }
    /// The copy of the root disk that a job makes.
    package func copy(_ jobID: String) -> String { directory + "/copy-\(jobID).qcow2" }
}

/// Compiles a server to libvirt's domain XML: a pure function over typed values.
package struct DomainXML: Sendable {
    package let server: DesiredServer
    package let files: ServerFiles
    package let options: DomainOptions
    /// The guest's processor, if it is not the host's configured one.
    let processor: XMLTree?
    /// The root disk's backing file; nil if it has none.
    package let backing: Backing?
    /// The same for the rescue disk.
    package let rescueBacking: Backing?
    /// The host's processors dedicated to this server, by virtual processor; empty if there are none.
    package let pins: [Int]
    let hardware: GuestHardware
    let places: DiskPlaces

    /// A backing file.
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
        server: DesiredServer, files: ServerFiles, options: DomainOptions, backing: Backing? = nil, rescueBacking: Backing? = nil,
        pins: [Int] = [], processor: XMLTree? = nil
    ) {
        self.processor = processor
        hardware = server.hardware
        places = DiskPlaces(server, server.hardware)
        self.pins = pins
        self.rescueBacking = rescueBacking
        self.server = server
        self.files = files
        self.options = options
        self.backing = backing
    }

    package var document: XMLTree {
        XMLTree(
            "domain", ["type": options.virtType.rawValue],
            [
                XMLTree("name", text: server.id),
                XMLTree("uuid", text: server.id),
                XMLTree("metadata", [:], [origin]),
                XMLTree("memory", ["unit": "MiB"], text: String(server.memoryMiB)),
            ] + processors + [
                system, sysinfo, features, cpu, clock,
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
        for part in firmware + bootMenu { os.append(part) }
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

    private var devices: XMLTree {
        var devices = XMLTree("devices")
        if let emulator = options.emulator { devices.append(XMLTree("emulator", text: emulator)) }
        if isPCIe {
            devices.append(XMLTree("controller", ["type": "pci", "model": "pcie-root"]))
            let used = disks.count + server.ports.count + controllers.count + inputs.count + furtherDevices.count + 5
            for _ in 0..<(used + options.hotplugSlots) {
                devices.append(XMLTree("controller", ["type": "pci", "model": "pcie-root-port"]))
            }
        }
        for disk in disks { devices.append(disk) }
        for controller in controllers { devices.append(controller) }
        for port in server.ports { devices.append(interface(port)) }
        // The log is appended to and never truncated, so that console output from before a crash survives the restart.
        let serial = [
            XMLTree("source", ["mode": "bind", "path": files.serialSocket]),
            XMLTree("log", ["file": files.consoleLog, "append": "on"]),
        ]
        devices.append(XMLTree("serial", ["type": "unix"], serial + [XMLTree("target", ["port": "0"])]))
        devices.append(XMLTree("console", ["type": "unix"], serial + [XMLTree("target", ["type": "serial", "port": "0"])]))
        for port in furtherSerialPorts { devices.append(port) }
        if hardware.hasGuestAgent {
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
        for input in inputs { devices.append(input) }
        devices.append(video)
        devices.append(XMLTree("memballoon", ["model": "virtio"], [XMLTree("stats", ["period": "10"])]))
        for device in furtherDevices { devices.append(device) }
        return devices
    }

    // MARK: disks

    private var disks: [XMLTree] {
        if let rescue = server.rescue, !rescue.isStable { return disks(for: rescue) }
        var disks: [XMLTree] = []
        if server.hasLocalRoot {
            disks.append(localDisk(files.root, places.root, serial: "root", backing: backing, boot: 1 + bootsBefore))
        }
        disks += server.volumes.map { volumeDisk($0) }
        if server.ephemeralGiB > 0 {
            disks.append(localDisk(files.ephemeral, places.ephemeral, serial: "ephemeral0"))
        }
        if server.swapMiB > 0 { disks.append(localDisk(files.swap, places.swap, serial: "swap")) }
        if server.configDrive { disks.append(configDrive) }
        if let rescue = server.rescue { disks.append(addedDisk(rescue)) }
        return disks
    }

    /// A disk, or a CD drive for guests that may have no driver for virtio.
    var configDrive: XMLTree {
        var disk = XMLTree(
            "disk", ["type": "file", "device": hardware.configDriveBus == nil ? "disk" : "cdrom"],
            [
                XMLTree("driver", ["name": "qemu", "type": "raw"]),
                XMLTree("source", ["file": files.configDrive]),
                XMLTree("backingStore"),
                target(places.configDrive),
                XMLTree("readonly"),
                XMLTree("serial", text: "config-drive"),
            ])
        if let address = places.configDrive.address(hardware) { disk.append(address) }
        return disk
    }

    private func target(_ place: DiskPlace) -> XMLTree { XMLTree("target", ["dev": place.name, "bus": place.bus.rawValue]) }

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
        _ path: String, _ place: DiskPlace, serial: String, backing: Backing? = nil, boot: Int? = nil,
        device: String = "disk"
    ) -> XMLTree {
        var disk = XMLTree(
            "disk", ["type": "file", "device": device],
            [
                XMLTree("driver", ["name": "qemu", "type": "qcow2", "cache": options.diskCache, "discard": "unmap"]),
                XMLTree("source", ["file": path]),
                chain(backing),
                target(place),
                XMLTree("serial", text: serial),
            ])
        if let diskRates { disk.append(diskRates) }
        if let address = place.address(hardware) { disk.append(address) }
        if let boot { disk.append(XMLTree("boot", ["order": String(boot)])) }
        return disk
    }

    /// The disk element of a volume: also what attaches and detaches it.
    package func volumeDisk(_ volume: DesiredVolume) -> XMLTree {
        let place = DiskPlace(hardware.diskBus ?? .virtio, index: DiskPlace.index(ofDevice: volume.device))
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
                XMLTree(
                    "driver",
                    [
                        "name": "qemu", "type": format, "cache": volume.isShared ? "none" : options.diskCache,
                        "discard": "unmap",
                    ]),
                source,
                XMLTree("backingStore"),
                target(place),
            ])
        if let address = place.address(hardware) { disk.append(address) }
        if readOnly { disk.append(XMLTree("readonly")) }
        // Without it, QEMU's lock on the file keeps other guests out. A cache would hide what they write.
        if volume.isShared { disk.append(XMLTree("shareable")) }
        disk.append(XMLTree("serial", text: volume.volumeID))
        if let index = volume.bootIndex, index >= 0 {
            disk.append(XMLTree("boot", ["order": String(index + (server.hasLocalRoot ? 2 : 1) + bootsBefore)]))
        }
        return disk
    }

    // MARK: interfaces

    private var interfaceModel: String { hardware.interfaceModel ?? "virtio" }

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
        // Only virtio interfaces have queues, and offloads that must be disabled.
        guard interfaceModel == "virtio" else { return interface }
        var driver = XMLTree("driver")
        let queues = hardware.interfaceQueues(vcpus: server.vcpus)
        if queues > 1 { driver.set("queues", String(queues)) }
        if !options.nicOffloads {
            driver.append(
                XMLTree("host", ["csum": "off", "gso": "off", "tso4": "off", "tso6": "off", "ecn": "off", "ufo": "off"]))
            driver.append(XMLTree("guest", ["csum": "off", "tso4": "off", "tso6": "off", "ecn": "off", "ufo": "off"]))
        }
        if driver["queues"] != nil || !driver.children.isEmpty { interface.append(driver) }
        return interface
    }
}
