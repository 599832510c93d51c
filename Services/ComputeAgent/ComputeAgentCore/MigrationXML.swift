package import Contracts
import Kernel

/// A running domain's definition for the host that the guest moves to.
///
/// The guest sees the same hardware. Paths are those of the other host.
package struct MigrationXML: Sendable {
    /// The directory of the server's files on this host.
    private let directory: String
    private let order: ServerJob.Migration

    package init(directory: String, order: ServerJob.Migration) {
        self.directory = directory
        self.order = order
    }

    /// - Parameter xml: libvirt's migratable form of the running domain.
    /// - Throws: `XMLParseError`; `FormError` for a volume whose connection cannot be decoded.
    package func document(_ xml: String) throws -> XMLTree {
        var domain = try XMLTree.parse(xml)
        domain.children = try domain.children.map { child in
            guard child.name == "devices" else { return relocated(child) }
            var devices = child
            devices.children = try child.children.compactMap { device in
                switch device.name {
                case "emulator": order.endpoint.emulator.map { XMLTree("emulator", text: $0) } ?? device
                case "graphics": display(device)
                case "disk": try disk(device)
                default: relocated(device)
                }
            }
            return devices
        }
        return domain
    }

    /// Paths in the server's directory are mapped to its directory on the other host.
    private func relocated(_ tree: XMLTree) -> XMLTree {
        var result = tree
        for attribute in tree.attributes { if let path = targetPath(attribute.value) { result.set(attribute.name, path) } }
        if let path = targetPath(tree.text) { result.text = path }
        result.children = tree.children.map(relocated)
        return result
    }

    private func targetPath(_ path: String) -> String? {
        path.hasPrefix(directory + "/") ? order.endpoint.directory + path.dropFirst(directory.count) : nil
    }

    private func display(_ graphics: XMLTree) -> XMLTree {
        var result = XMLTree("graphics", ["type": graphics["type"] ?? "vnc", "autoport": "yes"])
        if let address = order.endpoint.vncListen {
            result.append(XMLTree("listen", ["type": "address", "address": address]))
        } else {
            result.append(XMLTree("listen", ["type": "none"]))
        }
        return result
    }

    private func disk(_ disk: XMLTree) throws -> XMLTree {
        let serial = disk.child("serial")?.text.lowercased()
        guard let volume = volume(serial, disk) else {
            var result = relocated(disk)
            guard let backing = order.endpoint.backing, serial == "root" else { return result }
            result.children = result.children.map { $0.name == "backingStore" ? below($0, backing) : $0 }
            return result
        }
        let connection = try DesiredVolume.connection(volume)
        var result = disk
        result.children = disk.children.map { child in
            guard child.name == "source" else { return child }
            // Never fall back to this host's connection: on the other host it may refer to something else.
            switch connection {
            case .file(let path, _, _): return XMLTree("source", ["file": path])
            case .nbd(let host, let port, let export):
                return XMLTree("source", ["protocol": "nbd", "name": export], [XMLTree("host", ["name": host, "port": String(port)])])
            }
        }
        return result
    }

    /// The volume of a disk, by its place: after a swap, the serial is still that of the replaced volume.
    private func volume(_ serial: String?, _ disk: XMLTree) -> ServerSpec.Volume? {
        guard let serial, UUID128(serial) != nil, let target = disk.child("target")?["dev"] else { return nil }
        let index = DiskPlace.index(ofDevice: target)
        return order.volumes.first { volume in
            let name = volume.device.hasPrefix("/dev/") ? String(volume.device.dropFirst(5)) : volume.device
            return DiskPlace.index(ofDevice: name) == index
        }
    }

    private func below(_ store: XMLTree, _ path: String) -> XMLTree {
        var result = store
        result.children = store.children.map { $0.name == "source" ? XMLTree("source", ["file": path]) : $0 }
        return result
    }

    /// The targets of the disks that only this host has, and whose content must be sent. Read-only disks are created on the other host.
    ///
    /// - Parameter xml: of the running domain.
    package func copiedDisks(_ xml: String) throws -> [String] {
        let devices = try XMLTree.parse(xml).child("devices")
        return (devices?.all("disk") ?? []).compactMap { disk in
            guard disk.child("readonly") == nil, let path = disk.child("source")?["file"], path.hasPrefix(directory + "/") else {
                return nil
            }
            return disk.child("target")?["dev"]
        }
    }

    // MARK: addresses

    /// Whether the URI names libvirt's QEMU driver, and has no characters that end or change an argument.
    ///
    /// Of libvirt's parameters, only those that neither run a program nor disable a check are allowed.
    package static func isUsable(uri: String) -> Bool {
        let parameters = uri.split(separator: "?", maxSplits: 1).dropFirst().first?.split(separator: "&", omittingEmptySubsequences: false)
        let names = parameters?.map { $0.prefix { $0 != "=" } } ?? []
        return names.allSatisfy { ["socket", "pkipath"].contains($0) } && !uri.contains("#")
            && (uri.hasPrefix("qemu:///") || uri.hasPrefix("qemu+unix:///") || uri.hasPrefix("qemu+tls://") || uri.hasPrefix("qemu+tcp://")
                || uri.hasPrefix("qemu+ssh://") || uri.hasPrefix("qemu+libssh2://"))
            && uri.utf8.count <= 512 && uri.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != 0x27 && $0 != 0x22 && $0 != 0x5c }
    }

    /// Whether the text is an IP address or a host name.
    package static func isUsable(address: String) -> Bool {
        IPAddress(address) != nil
            || (1...253).contains(address.utf8.count)
                && address.utf8.allSatisfy {
                    UInt8(ascii: "a")...UInt8(ascii: "z") ~= $0 | 0x20 || UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0
                        || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "-")
                }
    }

    /// The URI that the memory is sent to.
    package static func dataURI(_ address: String?) -> String? {
        address.map { "tcp://" + (IPAddress($0)?.version == .v6 ? "[\($0)]" : $0) }
    }
}
