import GuestKeys

/// The devices of a rescued server.
extension DomainXML {
    /// Disks that the guest's firmware tries before the server's own.
    var bootsBefore: Int { server.rescue?.isStable == true ? 1 : 0 }

    /// The rescue disk in the place of the server's root disk, which becomes the second disk.
    func disks(for rescue: DesiredRescue) -> [XMLTree] {
        var disks = [rescueDisk(rescue, at: places.root)]
        if server.hasLocalRoot { disks.append(localDisk(files.root, places.second, serial: "root", backing: backing)) }
        if server.configDrive { disks.append(configDrive) }
        return disks
    }

    /// The disk of a stable rescue, in addition to all others.
    func addedDisk(_ rescue: DesiredRescue) -> XMLTree {
        var places = places
        return rescueDisk(rescue, at: places.takeRescue(GuestHardware.Bus(rawValue: rescue.bus.rawValue) ?? .virtio))
    }

    private func rescueDisk(_ rescue: DesiredRescue, at place: DiskPlace) -> XMLTree {
        var disk = localDisk(files.rescue, place, serial: "rescue", backing: rescueBacking, boot: 1, device: rescue.device.rawValue)
        if rescue.device == .cdrom { disk.append(XMLTree("readonly")) }
        return disk
    }
}
