/// The devices of a rescued server.
extension DomainXML {
    /// Disks that the guest's firmware tries before the server's own.
    var bootsBefore: Int { server.rescue?.isStable == true ? 1 : 0 }

    /// The system for the rescue in the place of the server's own, which is the second disk.
    func disks(for rescue: DesiredRescue) -> [XMLTree] {
        var disks = [rescueDisk(rescue, target: LocalDevice.root)]
        if server.hasLocalRoot { disks.append(localDisk(files.root, LocalDevice.second, serial: "root", backing: backing)) }
        if server.configDrive { disks.append(configDrive) }
        return disks
    }

    /// The disk of a stable rescue, beside all others.
    func addedDisk(_ rescue: DesiredRescue) -> XMLTree { rescueDisk(rescue, target: freeTarget(rescue.bus)) }

    private func rescueDisk(_ rescue: DesiredRescue, target: String) -> XMLTree {
        var disk = localDisk(
            files.rescue, target, serial: "rescue", backing: rescueBacking, boot: 1, device: rescue.device.rawValue,
            bus: rescue.bus.rawValue)
        if rescue.device == .cdrom { disk.append(XMLTree("readonly")) }
        return disk
    }

    /// A name that no other disk of the server has.
    private func freeTarget(_ bus: DesiredRescue.Bus) -> String {
        switch bus {
        case .ide: return "hda"
        case .scsi, .sata, .usb: return "sda"
        case .virtio:
            let taken = Set(server.volumes.map(\.device))
            return "wvutsrqponmlkjihgfedcb".map { "vd\($0)" }.first { !taken.contains($0) } ?? "vdaa"
        }
    }

    /// libvirt adds controllers of the other buses, and for SCSI one that no current guest has a driver for.
    var rescueControllers: [XMLTree] {
        server.rescue?.bus == .scsi ? [XMLTree("controller", ["type": "scsi", "model": "virtio-scsi"])] : []
    }
}
