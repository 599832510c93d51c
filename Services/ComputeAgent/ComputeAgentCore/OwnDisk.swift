/// qcow2 disks created by this agent.
package enum OwnDisk {
    /// Number of leading bytes that `backingFile` needs: qemu-img writes the name into the first cluster.
    package static let prefixLength = 64 * 1024

    /// A disk's size in bytes; nil if it is not a qcow2 disk. QEMU can change it.
    package static func size(prefix: [UInt8]) -> Int? {
        guard prefix.count >= 72, prefix.starts(with: [0x51, 0x46, 0x49, 0xfb]) else { return nil }
        return Int(exactly: prefix[24..<32].reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
    }

    /// A disk's backing file; nil if it has none or is not a qcow2 disk.
    package static func backingFile(prefix: [UInt8]) -> String? {
        func number(_ offset: Int, _ bytes: Int) -> UInt64 {
            prefix[offset..<offset + bytes].reduce(0) { $0 << 8 | UInt64($1) }
        }
        guard prefix.count >= 72, prefix.starts(with: [0x51, 0x46, 0x49, 0xfb]) else { return nil }
        let (offset, length) = (number(8, 8), number(16, 4))
        guard offset > 0, offset < UInt64(prefix.count), length <= UInt64(prefix.count) - offset else { return nil }
        return String(decoding: prefix[Int(offset)..<Int(offset + length)], as: UTF8.self)
    }
}
