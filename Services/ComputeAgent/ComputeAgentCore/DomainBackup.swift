/// libvirt's description of a copy of a running guest's disk, as the disk is at one moment.
package enum DomainBackup {
    /// A complete copy of the root disk, with what its backing file has, in a new qcow2 file.
    package static func rootDisk(_ name: String, into path: String) -> XMLTree {
        XMLTree(
            "domainbackup", ["mode": "push"],
            [
                XMLTree(
                    "disks", [:],
                    [
                        XMLTree(
                            "disk", ["name": name, "backup": "yes", "type": "file"],
                            [XMLTree("target", ["file": path]), XMLTree("driver", ["type": "qcow2"])])
                    ])
            ])
    }

    /// The name of the root disk in the definition of a domain; nil if the server boots from a volume.
    ///
    /// - Throws: `XMLParseError`.
    package static func rootDisk(xml: String) throws(XMLParseError) -> String? {
        try XMLTree.parse(xml).child("devices")?.all("disk").first { $0.child("serial")?.text == "root" }?.child("target")?["dev"]
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
