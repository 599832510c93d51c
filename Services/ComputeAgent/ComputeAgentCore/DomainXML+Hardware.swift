import GuestKeys
import Kernel

/// The parts of a domain that depend on flavor and image.
extension DomainXML {
    /// Firmware of Debian's package ovmf. It is named explicitly, because libvirt would choose the build that requires Secure Boot.
    package enum Firmware {
        package static let code = "/usr/share/OVMF/OVMF_CODE_4M.fd"
        static let variables = "/usr/share/OVMF/OVMF_VARS_4M.fd"
        /// Variables with Microsoft's keys.
        package static let secureCode = "/usr/share/OVMF/OVMF_CODE_4M.ms.fd"
        static let secureVariables = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
    }

    var machine: String { hardware.machine(default: options.machine) }
    var isPCIe: Bool { GuestHardware.isPCIe(machine) }

    /// Secure Boot needs system management mode, which only q35 has.
    private var isSecure: Bool {
        guard hardware.firmware == .uefi, isPCIe else { return false }
        return hardware.secureBoot == .required || hardware.secureBoot == .optional && options.hasSecureBoot
    }

    var firmware: [XMLTree] {
        guard hardware.firmware == .uefi else { return [] }
        var loader = XMLTree("loader", ["readonly": "yes", "type": "pflash"], text: isSecure ? Firmware.secureCode : Firmware.code)
        if isSecure { loader.set("secure", "yes") }
        // Variables written without keys would not enforce anything, so each kind has its own.
        return [
            loader,
            isSecure
                ? XMLTree("nvram", ["template": Firmware.secureVariables], text: files.secureNVRAM)
                : XMLTree("nvram", ["template": Firmware.variables], text: files.nvram),
        ]
    }

    var bootMenu: [XMLTree] { hardware.hasBootMenu ? [XMLTree("bootmenu", ["enable": "yes", "timeout": "5000"])] : [] }

    var features: XMLTree {
        var features = XMLTree("features", [:], [XMLTree("acpi"), XMLTree("apic")])
        if hardware.hidesHypervisor, options.virtType == .kvm {
            features.append(XMLTree("kvm", [:], [XMLTree("hidden", ["state": "on"])]))
        }
        if isSecure { features.append(XMLTree("smm", ["state": "on"])) }
        if hardware.isWindows, options.virtType == .kvm { features.append(hypervInterfaces) }
        return features
    }

    /// Interfaces of Hyper-V that Windows uses to pause in spin locks, to send interrupts and to tell the time. Only KVM has them.
    private var hypervInterfaces: XMLTree {
        var interfaces = XMLTree("hyperv", ["mode": "custom"])
        for name in ["relaxed", "vapic", "vpindex", "runtime", "synic", "stimer", "frequencies"] {
            interfaces.append(XMLTree(name, ["state": "on"]))
        }
        interfaces.append(XMLTree("spinlocks", ["state": "on", "retries": "8191"]))
        // Drivers that refuse to work in a guest look at this name too.
        if hardware.hidesHypervisor { interfaces.append(XMLTree("vendor_id", ["state": "on", "value": "1234567890ab"])) }
        return interfaces
    }

    // MARK: processors

    var processors: [XMLTree] {
        var vcpu = XMLTree("vcpu", ["placement": "static"], text: String(server.vcpus))
        if pins.isEmpty, let shared = options.sharedProcessors { vcpu.set("cpuset", shared) }
        var tuning = XMLTree("cputune")
        for (name, value) in [
            ("shares", hardware.processorRates?.shares), ("period", hardware.processorRates?.period),
            ("quota", hardware.processorRates?.quota),
        ] {
            if let value { tuning.append(XMLTree(name, text: String(value))) }
        }
        for (index, processor) in pins.enumerated() {
            tuning.append(XMLTree("vcpupin", ["vcpu": String(index), "cpuset": String(processor)]))
        }
        // QEMU's other threads must not disturb other servers' processors.
        if !pins.isEmpty {
            tuning.append(XMLTree("emulatorpin", ["cpuset": options.sharedProcessors ?? ProcessorList.text(pins)]))
        }
        return tuning.children.isEmpty ? [vcpu] : [vcpu, tuning]
    }

    var cpu: XMLTree {
        let parts = hardware.topology(vcpus: server.vcpus) ?? ProcessorTopology(sockets: server.vcpus, cores: 1, threads: 1)
        var inner = [
            XMLTree(
                "topology", ["sockets": String(parts.sockets), "cores": String(parts.cores), "threads": String(parts.threads)])
        ]
        // Emulation has no setting for it; the guest checks this flag first.
        let isHidden = hardware.hidesHypervisor && options.virtType == .qemu
        if isHidden { inner.append(XMLTree("feature", ["policy": "disable", "name": "hypervisor"])) }
        let nodes = hardware.nodes(vcpus: server.vcpus, memoryMiB: server.memoryMiB)
        if !nodes.isEmpty {
            inner.append(
                XMLTree(
                    "numa", [:],
                    nodes.enumerated().map { index, node in
                        XMLTree(
                            "cell",
                            [
                                "id": String(index), "cpus": ProcessorList.text(node.processors), "memory": String(node.memoryMiB),
                                "unit": "MiB",
                            ])
                    }))
        }
        if let processor {
            let parts = processor.children.filter { !isHidden || $0["name"] != "hypervisor" }
            return XMLTree("cpu", ["mode": "custom", "match": "exact", "check": "partial"], parts + inner)
        }
        guard options.cpuMode == "custom" else { return XMLTree("cpu", ["mode": options.cpuMode, "check": "none"], inner) }
        return XMLTree(
            "cpu", ["mode": "custom", "match": "exact", "check": "none"],
            [XMLTree("model", ["fallback": "allow"], text: options.cpuModel)] + inner)
    }

    var clock: XMLTree {
        var clock = XMLTree("clock", ["offset": hardware.isWindows ? "localtime" : "utc"])
        if options.virtType == .kvm {
            clock.append(XMLTree("timer", ["name": "pit", "tickpolicy": "delay"]))
            clock.append(XMLTree("timer", ["name": "rtc", "tickpolicy": "catchup"]))
        }
        if hardware.isWindows, options.virtType == .kvm {
            clock.append(XMLTree("timer", ["name": "hypervclock", "present": "yes"]))
        }
        if let isPresent = hardware.hpet ?? (options.virtType == .kvm ? false : nil) {
            clock.append(XMLTree("timer", ["name": "hpet", "present": isPresent ? "yes" : "no"]))
        }
        return clock
    }

    // MARK: devices

    var controllers: [XMLTree] {
        var controllers: [XMLTree] = []
        let buses = [hardware.diskBus, hardware.configDriveBus, server.rescue.flatMap { GuestHardware.Bus(rawValue: $0.bus.rawValue) }]
        // By default libvirt would choose a model that current guests have no driver for.
        if buses.contains(.scsi) { controllers.append(XMLTree("controller", ["type": "scsi", "index": "0", "model": hardware.scsiModel])) }
        // The old controller has two ports.
        if buses.contains(.usb) {
            controllers.append(XMLTree("controller", ["type": "usb", "index": "0", "model": "qemu-xhci", "ports": "15"]))
        }
        return controllers
    }

    /// The first serial port is the console's; the others have a socket on the host each.
    var furtherSerialPorts: [XMLTree] {
        (1..<max(1, hardware.serialPorts)).map { port in
            XMLTree(
                "serial", ["type": "unix"],
                [XMLTree("source", ["mode": "bind", "path": files.furtherSerialSocket(port)]), XMLTree("target", ["port": String(port)])])
        }
    }

    var inputs: [XMLTree] {
        guard hardware.inputBus != nil || hardware.pointerModel == "usbtablet" else { return [] }
        let bus = hardware.inputBus ?? "usb"
        var inputs: [XMLTree] = []
        if hardware.pointerModel != "ps2mouse" { inputs.append(XMLTree("input", ["type": "tablet", "bus": bus])) }
        if hardware.inputBus != nil { inputs.append(XMLTree("input", ["type": "keyboard", "bus": bus])) }
        return inputs
    }

    var video: XMLTree {
        var model = XMLTree("model", ["type": hardware.videoModel ?? "virtio"])
        if let memory = hardware.videoMemory, memory > 0, ["vga", "qxl"].contains(hardware.videoModel) {
            model.set("vram", String(memory * 1024))
        }
        return XMLTree("video", [:], [model])
    }

    var furtherDevices: [XMLTree] {
        var devices: [XMLTree] = []
        if let tpm = hardware.tpm {
            devices.append(
                XMLTree(
                    "tpm", ["model": tpm.model],
                    [XMLTree("backend", ["type": "emulator", "version": tpm.version, "persistent_state": "yes"])])
            )
        }
        if let action = hardware.watchdog { devices.append(XMLTree("watchdog", ["model": "i6300esb", "action": action])) }
        if hardware.hasRandomGenerator {
            var generator = XMLTree("rng", ["model": "virtio"])
            if let rate = hardware.randomRate {
                generator.append(XMLTree("rate", ["bytes": String(rate.bytes), "period": String(rate.milliseconds)]))
            }
            generator.append(XMLTree("backend", ["model": "random"], text: "/dev/urandom"))
            devices.append(generator)
        }
        return devices
    }

    /// Limits of a local disk.
    var diskRates: XMLTree? {
        hardware.diskRates.isEmpty
            ? nil
            : XMLTree("iotune", [:], hardware.diskRates.sorted { $0.key < $1.key }.map { XMLTree($0.key, text: String($0.value)) })
    }
}
