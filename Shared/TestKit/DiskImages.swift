/// Small disk images, valid unless parameters say otherwise. QEMU's tool opens each of them.
package enum DiskImages {
    /// Writes numbers into bytes.
    package struct Bytes: Sendable {
        package var bytes: [UInt8]
        package init(_ bytes: [UInt8]) { self.bytes = bytes }
        package init(count: Int) { bytes = [UInt8](repeating: 0, count: count) }

        package mutating func big<Number: FixedWidthInteger>(_ offset: Int, _ value: Number) {
            put(offset, withUnsafeBytes(of: value.bigEndian) { Array($0) })
        }
        package mutating func little<Number: FixedWidthInteger>(_ offset: Int, _ value: Number) {
            put(offset, withUnsafeBytes(of: value.littleEndian) { Array($0) })
        }
        package mutating func text(_ offset: Int, _ value: String) { put(offset, Array(value.utf8)) }
        package mutating func put(_ offset: Int, _ values: [UInt8]) {
            bytes.replaceSubrange(offset..<offset + values.count, with: values)
        }
    }

    // MARK: qcow2

    /// A qcow2 disk without data: header, reference counts and one table, a cluster of 64 KiB each.
    package static func qcow2(
        version: UInt32 = 3, size: UInt64 = 1 << 20, incompatible: UInt64 = 0, headerLength: UInt32 = 112,
        _ change: (inout Bytes) -> Void = { _ in }
    ) -> [UInt8] {
        let cluster = 65536
        var image = Bytes(count: 4 * cluster)
        image.put(0, [0x51, 0x46, 0x49, 0xfb])
        image.big(4, version)
        image.big(20, UInt32(16))
        image.big(24, size)
        image.big(36, UInt32(clamping: (Int(clamping: size) - 1) / (8192 * cluster) + 1))
        image.big(40, UInt64(3 * cluster))
        image.big(48, UInt64(cluster))
        image.big(56, UInt32(1))
        if version == 3 {
            image.big(72, incompatible)
            image.big(96, UInt32(4))
            image.big(100, headerLength)
        }
        image.big(cluster, UInt64(2 * cluster))
        for index in 0..<4 { image.big(2 * cluster + 2 * index, UInt16(1)) }
        change(&image)
        return image.bytes
    }

    /// A qcow2 disk without holes in a small file: all entries of its tables name the same cluster.
    ///
    /// - Parameter mebibytes: its size, up to 512.
    package static func expandingQcow2(mebibytes: Int) -> [UInt8] {
        let cluster = 65536
        let copied = UInt64(1) << 63
        var image = Bytes(
            qcow2(size: UInt64(mebibytes) << 20) + [UInt8](repeating: 0, count: cluster) + [UInt8](repeating: 7, count: cluster))
        for index in 4..<6 { image.big(2 * cluster + 2 * index, UInt16(1)) }
        image.big(3 * cluster, UInt64(4 * cluster) | copied)
        for index in 0..<mebibytes * 16 { image.big(4 * cluster + 8 * index, UInt64(5 * cluster) | copied) }
        return image.bytes
    }

    /// The bytes of a qcow2 header extension.
    package static func qcow2Extension(_ kind: UInt32, _ text: String) -> [UInt8] {
        var bytes = Bytes(count: 8 + (text.utf8.count + 7) / 8 * 8)
        bytes.big(0, kind)
        bytes.big(4, UInt32(text.utf8.count))
        bytes.text(8, text)
        return bytes.bytes
    }

    // MARK: VMDK

    /// The text of a VMDK descriptor.
    package static func descriptor(
        type: String = "monolithicSparse", parentCID: String = "ffffffff", more: String = "",
        extents: String = "RW 20480 SPARSE \"disk.vmdk\""
    ) -> String {
        "# Disk DescriptorFile\nversion=1\nCID=bc609ba4\nparentCID=\(parentCID)\ncreateType=\"\(type)\"\n\(more)\n"
            + "# Extent description\n\(extents)\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"ide\"\n"
    }

    /// A monolithicSparse disk of 20480 sectors without data.
    package static func vmdk(
        _ descriptor: String = DiskImages.descriptor(), capacity: UInt64 = 20480, _ change: (inout Bytes) -> Void = { _ in }
    ) -> [UInt8] {
        var image = Bytes(count: 128 * 512)
        sparseHeader(&image, 0, capacity: capacity)
        image.text(512, descriptor)
        change(&image)
        return image.bytes
    }

    private static func sparseHeader(
        _ image: inout Bytes, _ at: Int, capacity: UInt64, flags: UInt32 = 3, directory: UInt64 = 21,
        compression: UInt16 = 0
    ) {
        image.text(at, "KDMV")
        image.little(at + 4, UInt32(1))
        image.little(at + 8, flags)
        image.little(at + 12, capacity)
        image.little(at + 20, UInt64(128))
        image.little(at + 28, UInt64(1))
        image.little(at + 36, UInt64(20))
        image.little(at + 44, UInt32(512))
        image.little(at + 48, UInt64(21))
        image.little(at + 56, directory)
        image.little(at + 64, UInt64(128))
        image.put(at + 73, [0x0a, 0x20, 0x0d, 0x0a])
        image.little(at + 77, compression)
    }

    /// A streamOptimized disk without data: its grain directory is named in a footer.
    package static func streamOptimizedVMDK(
        _ descriptor: String = DiskImages.descriptor(type: "streamOptimized"), footerCapacity: UInt64 = 20480,
        _ change: (inout Bytes) -> Void = { _ in }
    ) -> [UInt8] {
        let (flags, sectors) = (UInt32(0x30001), 132)
        var image = Bytes(count: sectors * 512)
        sparseHeader(&image, 0, capacity: 20480, flags: flags, directory: .max, compression: 1)
        image.text(512, descriptor)
        let footer = (sectors - 3) * 512
        image.little(footer + 12, UInt32(3))
        sparseHeader(&image, footer + 512, capacity: footerCapacity, flags: flags, directory: 128, compression: 1)
        change(&image)
        return image.bytes
    }

    // MARK: VDI

    /// A dynamic VDI of 10 blocks without data.
    package static func vdi(size: UInt64 = 10 << 20, _ change: (inout Bytes) -> Void = { _ in }) -> [UInt8] {
        var image = Bytes(count: 1024)
        image.text(0, "<<< QEMU VM Virtual Disk Image >>>\n")
        image.put(0x40, [0x7f, 0x10, 0xda, 0xbe])
        image.little(0x44, UInt32(0x1_0001))
        image.little(0x48, UInt32(0x180))
        image.little(0x4c, UInt32(1))
        image.little(0x154, UInt32(512))
        image.little(0x158, UInt32(1024))
        image.little(0x168, UInt32(512))
        image.little(0x170, size)
        image.little(0x178, UInt32(1 << 20))
        image.little(0x180, UInt32(10))
        for index in 0..<10 { image.little(512 + 4 * index, UInt32.max) }
        change(&image)
        return image.bytes
    }

    /// A VDI disk of 10 MiB without holes whose blocks are one and the same.
    package static func expandingVDI() -> [UInt8] {
        vdi { image in for index in 0..<10 { image.little(512 + 4 * index, UInt32(0)) } } + [UInt8](repeating: 7, count: 1 << 20)
    }

    // MARK: VHD

    /// The footer of a VHD, with its checksum.
    package static func vhdFooter(
        size: UInt64 = 10 << 20, kind: UInt32 = 3, creator: String = "win ", geometry: (UInt16, UInt8, UInt8) = (301, 4, 17),
        _ change: (inout Bytes) -> Void = { _ in }
    ) -> [UInt8] {
        var footer = Bytes(count: 512)
        footer.text(0, "conectix")
        footer.big(8, UInt32(2))
        footer.big(12, UInt32(0x1_0000))
        footer.big(16, kind == 2 ? UInt64.max : 512)
        footer.text(28, creator)
        footer.big(40, size)
        footer.big(48, size)
        footer.big(56, geometry.0)
        footer.put(58, [geometry.1, geometry.2])
        footer.big(60, kind)
        change(&footer)
        footer.big(64, UInt32(0))
        footer.big(64, ~footer.bytes.reduce(UInt32(0)) { $0 &+ UInt32($1) })
        return footer.bytes
    }

    /// A dynamic VHD of five blocks of 2 MiB without data.
    package static func vhd(
        footer: [UInt8] = vhdFooter(), last: [UInt8]? = nil, _ change: (inout Bytes) -> Void = { _ in }
    ) -> [UInt8] {
        var image = Bytes(count: 4 * 512 + 512)
        image.put(0, footer)
        image.text(512, "cxsparse")
        image.big(520, UInt64.max)
        image.big(528, UInt64(1536))
        image.big(536, UInt32(0x1_0000))
        image.big(540, UInt32(5))
        image.big(544, UInt32(2 << 20))
        for index in 0..<5 { image.big(1536 + 4 * index, UInt32.max) }
        image.put(2048, last ?? footer)
        change(&image)
        return image.bytes
    }

    /// A fixed VHD of 64 KiB.
    package static func fixedVHD(size: UInt64 = 65536, creator: String = "win ") -> [UInt8] {
        [UInt8](repeating: 0, count: 65536) + vhdFooter(size: size, kind: 2, creator: creator)
    }

    // MARK: others

    /// A disk of text, filled up to whole sectors.
    package static func raw(_ text: String, count: Int = 4096) -> [UInt8] {
        var image = Bytes(count: max(count, text.utf8.count))
        image.text(0, text)
        return image.bytes
    }

    /// The first sectors of a live CD.
    package static func iso(_ change: (inout Bytes) -> Void = { _ in }) -> [UInt8] {
        var image = Bytes(count: 40960)
        image.text(0x8001, "CD001")
        change(&image)
        return image.bytes
    }
}
