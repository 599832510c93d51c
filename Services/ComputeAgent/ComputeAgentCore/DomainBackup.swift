/// libvirt's description of a backup of a running guest's disks at one point in time.
package enum DomainBackup {
    /// A disk to copy.
    package struct Disk: Sendable, Hashable {
        /// The serial number of the disk: `root`, or the id of a volume.
        package let serial: String
        /// The new file.
        package let path: String
        /// `raw` or `qcow2`.
        package let format: String
        /// The file that the guest has, which decides before the serial number.
        package let source: String?

        package init(serial: String, path: String, format: String, source: String? = nil) {
            self.source = source
            self.serial = serial
            self.path = path
            self.format = format
        }

        /// The root disk, as a qcow2 file.
        package static func root(into path: String) -> Disk { Disk(serial: "root", path: path, format: "qcow2") }
    }

    /// Complete copies of a domain's disks, including the content of backing files, in new files.
    ///
    /// - Parameter xml: the domain's definition, which contains the disks' names.
    /// - Returns: nil if the domain lacks one of the disks.
    /// - Throws: `XMLParseError`.
    package static func document(_ disks: [Disk], xml: String) throws(XMLParseError) -> XMLTree? {
        let present = try XMLTree.parse(xml).child("devices")?.all("disk") ?? []
        var copies: [XMLTree] = []
        for disk in disks {
            let found =
                present.first { disk.source != nil && $0.child("source")?["file"] == disk.source }
                ?? present.first { $0.child("serial")?.text == disk.serial }
            guard let name = found?.child("target")?["dev"] else { return nil }
            copies.append(
                XMLTree(
                    "disk", ["name": name, "backup": "yes", "type": "file"],
                    [XMLTree("target", ["file": disk.path]), XMLTree("driver", ["type": disk.format])]))
        }
        return XMLTree("domainbackup", ["mode": "push"], [XMLTree("disks", [:], copies)])
    }

    /// Whether the definition of a domain has the channel of a guest agent.
    ///
    /// - Throws: `XMLParseError`.
    package static func hasGuestAgent(xml: String) throws(XMLParseError) -> Bool {
        try XMLTree.parse(xml).child("devices")?.all("channel").contains { channel in
            channel.child("target")?["name"] == "org.qemu.guest_agent.0"
        } ?? false
    }
}
