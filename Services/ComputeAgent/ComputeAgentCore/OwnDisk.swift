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
        guard isQcow2(prefix) else { return nil }
        let (offset, length) = (number(prefix, 8, 8), number(prefix, 16, 4))
        guard offset > 0, offset < UInt64(prefix.count), length <= UInt64(prefix.count) - offset else { return nil }
        return String(decoding: prefix[Int(offset)..<Int(offset + length)], as: UTF8.self)
    }

    /// Bytes of the disk; nil if it is not a qcow2 disk.
    package static func virtualSize(prefix: [UInt8]) -> Int? { isQcow2(prefix) ? Int(clamping: number(prefix, 24, 8)) : nil }

    private static func isQcow2(_ prefix: [UInt8]) -> Bool { prefix.count >= 72 && prefix.starts(with: [0x51, 0x46, 0x49, 0xfb]) }

    private static func number(_ prefix: [UInt8], _ offset: Int, _ bytes: Int) -> UInt64 {
        prefix[offset..<offset + bytes].reduce(0) { $0 << 8 | UInt64($1) }
    }
}
