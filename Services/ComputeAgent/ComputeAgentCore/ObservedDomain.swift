package import Kernel

/// The state of a domain, as the reconciler distinguishes it.
package enum ObservedPower: String, Sendable, Hashable {
    case running, paused, shutoff
    /// Between an accepted shutdown request and being off.
    case stopping
}

/// Why a domain is off.
package enum OffReason: String, Sendable, Hashable {
    /// The guest powered itself off.
    case guest
    /// QEMU crashed, or the reason is unknown.
    case failure
    /// Powered off by an operator through libvirt.
    case destroyed
    case saved
}

/// A domain as libvirt shows it.
package struct ObservedDomain: Sendable, Hashable {
    /// A disk of the running guest.
    package struct Disk: Sendable, Hashable {
        package let target: String
        /// The id of a volume. A volume that took the place of another one under the guest has the id of that one.
        package let serial: String?
        /// The file.
        package let source: String?

        package init(target: String, serial: String?, source: String? = nil) {
            self.target = target
            self.serial = serial
            self.source = source
        }
    }
    /// A network interface of the running guest.
    package struct Interface: Sendable, Hashable {
        package let mac: MACAddress
        package let tap: String
    }

    package var power: ObservedPower
    package var offReason: OffReason?
    /// Whether its memory is being transferred from or to another host.
    package var isMoving = false
    package var hasManagedSave: Bool
    /// Devices of the running guest; empty when it is off.
    package var disks: [Disk]
    package var interfaces: [Interface]

    package init(
        power: ObservedPower, offReason: OffReason? = nil, hasManagedSave: Bool = false, disks: [Disk] = [],
        interfaces: [Interface] = []
    ) {
        self.power = power
        self.offReason = offReason
        self.hasManagedSave = hasManagedSave
        self.disks = disks
        self.interfaces = interfaces
    }

    /// Whether the guest is here with all of its memory: it runs, or was paused on request.
    package var isWhole: Bool { power == .running || power == .paused && !isMoving }

    /// Takes the devices from a domain's XML.
    ///
    /// - Throws: `XMLParseError`.
    package mutating func readDevices(xml: String) throws(XMLParseError) {
        let devices = try XMLTree.parse(xml).child("devices")
        disks = (devices?.all("disk") ?? []).compactMap { disk in
            guard let target = disk.child("target")?["dev"] else { return nil }
            return Disk(target: target, serial: disk.child("serial")?.text, source: disk.child("source")?["file"])
        }
        interfaces = (devices?.all("interface") ?? []).compactMap { interface in
            guard let mac = interface.child("mac")?["address"].flatMap({ MACAddress($0) }) else { return nil }
            return Interface(mac: mac, tap: interface.child("target")?["dev"] ?? "")
        }
    }
}
