import Kernel

/// libvirt's description of volumes that take the place of others under a running guest.
package enum DomainExchange {
    /// How far a disk is.
    package enum State: Sendable, Hashable {
        case untouched
        /// The content of the disk is being copied to the new volume; `isInSync` when every write goes to both.
        case copied(isInSync: Bool)
        /// The disk is being copied to another file.
        case other
        /// The guest has the new volume.
        case exchanged
    }

    /// The disk of a volume in a domain's definition, and the state of its swap; nil if the domain does not have it.
    ///
    /// - Parameter new: the path of the new volume's file.
    /// - Throws: `XMLParseError`.
    package static func disk(
        _ old: DesiredVolume, new path: String, xml: String
    ) throws(XMLParseError) -> (target: String, state: State)? {
        for disk in try disks(xml) {
            guard let target = disk.child("target")?["dev"], let source = disk.child("source")?["file"] else { continue }
            if source == path { return (target, .exchanged) }
            guard source == old.path else { continue }
            guard let mirror = disk.child("mirror") else { return (target, .untouched) }
            guard self.path(of: mirror) == path else { return (target, .other) }
            return (target, .copied(isInSync: mirror["ready"] == "yes"))
        }
        return nil
    }

    /// The disk that is copied to a file.
    ///
    /// - Throws: `XMLParseError`.
    package static func copies(to path: String, xml: String) throws(XMLParseError) -> (target: String, isInSync: Bool)? {
        for disk in try disks(xml) {
            guard let mirror = disk.child("mirror"), self.path(of: mirror) == path, let target = disk.child("target")?["dev"] else {
                continue
            }
            return (target, mirror["ready"] == "yes")
        }
        return nil
    }

    /// The disk that the guest has on a file; nil if it has none.
    ///
    /// - Throws: `XMLParseError`.
    package static func target(of path: String, xml: String) throws(XMLParseError) -> String? {
        try disks(xml).first { $0.child("source")?["file"] == path }?.child("target")?["dev"]
    }

    /// The copy, as libvirt is told: an existing file whose format is not probed.
    package static func document(_ path: String, format: String) -> XMLTree {
        XMLTree("disk", ["type": "file"], [XMLTree("driver", ["type": format]), XMLTree("source", ["file": path])])
    }

    private static func disks(_ xml: String) throws(XMLParseError) -> [XMLTree] {
        try XMLTree.parse(xml).child("devices")?.all("disk") ?? []
    }

    private static func path(of mirror: XMLTree) -> String? { mirror.child("source")?["file"] ?? mirror["file"] }
}
