import GuestKeys

/// The bus of a disk, its name in the domain's definition, and its place on the bus.
struct DiskPlace: Sendable, Hashable {
    let bus: GuestHardware.Bus
    let name: String
    /// From 0 on.
    let unit: Int

    /// - Parameter index: the index of the name's letters and of the unit.
    init(_ bus: GuestHardware.Bus, index: Int) { self.init(bus, name: DiskPlace.name(bus, index), unit: index) }

    init(_ bus: GuestHardware.Bus, name: String, unit: Int) {
        self.bus = bus
        self.name = name
        self.unit = unit
    }

    /// The letters of `index` after the prefix of the bus: 0 is `a`, 26 is `aa`.
    static func name(_ bus: GuestHardware.Bus, _ index: Int) -> String {
        let prefix =
            switch bus {
            case .virtio: "vd"
            case .ide: "hd"
            case .scsi, .sata, .usb: "sd"
            }
        var letters = ""
        var rest = index + 1
        while rest > 0 {
            letters = String(UnicodeScalar(UInt8(97 + (rest - 1) % 26))) + letters
            rest = (rest - 1) / 26
        }
        return prefix + letters
    }

    /// The index of a device name of the control plane (`vdb` is 1).
    static func index(ofDevice name: String) -> Int {
        name.utf8.dropFirst(2).reduce(0) { $0 * 26 + Int($1) - 96 } - 1
    }

    /// The address, where libvirt would not derive it from the name. USB and virtio disks have no units.
    func address(_ hardware: GuestHardware) -> XMLTree? {
        func drive(controller: Int, bus: Int, target: Int, unit: Int) -> XMLTree {
            XMLTree(
                "address",
                ["type": "drive", "controller": String(controller), "bus": String(bus), "target": String(target), "unit": String(unit)])
        }
        return switch bus {
        case .virtio, .usb: nil
        case .ide: drive(controller: 0, bus: unit / 2, target: 0, unit: unit % 2)
        case .sata: drive(controller: unit / 6, bus: 0, target: 0, unit: unit % 6)
        case .scsi:
            // Only virtio-scsi has many units of one target.
            hardware.scsiModel == "virtio-scsi"
                ? drive(controller: 0, bus: 0, target: 0, unit: unit) : drive(controller: 0, bus: 0, target: unit, unit: 0)
        }
    }
}

/// The places of a server's disks. Volumes use the letters of their device names on the bus of the server's disks. The server's own disks
/// use other letters, which do not change when volumes are attached or detached.
struct DiskPlaces: Sendable {
    private(set) var root: DiskPlace
    /// The place of the root disk while a rescue disk has the first place.
    let second: DiskPlace
    private(set) var ephemeral: DiskPlace
    private(set) var swap: DiskPlace
    private(set) var configDrive: DiskPlace

    private var taken: Set<DiskPlace> = []
    private let limits: [GuestHardware.Bus: Int]

    init(_ server: DesiredServer, _ hardware: GuestHardware) {
        let bus = hardware.diskBus ?? .virtio
        limits = [.ide: 4, .sata: 6, .scsi: hardware.scsiModel == "virtio-scsi" ? 26 : 7]
        root = DiskPlace(bus, index: 0)
        second = DiskPlace(bus, index: 1)
        (ephemeral, swap, configDrive) = (root, root, root)
        taken = Set(server.volumes.map { DiskPlace(bus, index: DiskPlace.index(ofDevice: $0.device)) } + [root])
        configDrive = takeLast(hardware.configDriveBus ?? .virtio, from: 25)
        swap = takeLast(bus, from: 24)
        ephemeral = takeLast(bus, from: 23)
    }

    /// The last free place up to `index`.
    private mutating func takeLast(_ bus: GuestHardware.Bus, from index: Int) -> DiskPlace {
        let last = min(index, (limits[bus] ?? 26) - 1)
        let unit = stride(from: last, through: 0, by: -1).first { unit in !taken.contains { $0.bus == bus && $0.unit == unit } } ?? last
        return take(bus, unit: unit)
    }

    /// The letters are those of the unit unless a disk on another bus has them.
    private mutating func take(_ bus: GuestHardware.Bus, unit: Int) -> DiskPlace {
        var letters = unit
        while taken.contains(where: { $0.name == DiskPlace.name(bus, letters) }) { letters += 1 }
        let place = DiskPlace(bus, name: DiskPlace.name(bus, letters), unit: unit)
        taken.insert(place)
        return place
    }

    /// A free place for the disk of a stable rescue.
    mutating func takeRescue(_ bus: GuestHardware.Bus) -> DiskPlace {
        // Volumes are assigned from the start of this bus, so take a place at its end.
        if bus == .virtio { return takeLast(bus, from: 22) }
        var unit = 0
        while taken.contains(where: { $0.bus == bus && $0.unit == unit }) { unit += 1 }
        return take(bus, unit: unit)
    }
}
