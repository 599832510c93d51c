/// Reads VHD files as QEMU's `block/vpc.c` does (specification: Microsoft, Virtual Hard Disk Image Format 1.0).
enum VHDReader {
    private static let footerBytes = 512
    private static let sectorsMax: UInt64 = 0xff00_0000
    /// The maximum geometry; the size of a disk that has it is in its size field.
    private static let geometryMax: UInt64 = 65535 * 16 * 255
    /// Creator applications whose disks use the size field instead of the geometry.
    private static let sizedCreators: [[UInt8]] = ["win ", "qem2", "d2v ", "CTXS", "tap\u{0}"].map { Array($0.utf8) }

    private enum Kind {
        static let fixed: UInt32 = 2
        static let dynamic: UInt32 = 3
    }

    static func virtualSize(_ data: Excerpt) throws(ImageRefusal) -> Int? {
        let isAtStart = data.head.has("conectix", at: 0)
        guard let tail = data.tail else {
            if isAtStart { return try footer(data.head, Kind.dynamic) }
            return nil
        }
        guard let bytes = tail.slice(tail.count - footerBytes, footerBytes) else {
            throw ImageRefusal("the VHD footer is truncated")
        }
        let last = ByteView(Array(bytes))
        guard isAtStart else {
            let size = try footer(last, Kind.fixed)
            guard let stored = data.size, let declared = last.big64(48), UInt64(stored - footerBytes) == declared else {
                throw ImageRefusal("the VHD image's size does not agree with its data")
            }
            return size
        }
        let size = try footer(data.head, Kind.dynamic)
        guard data.head.slice(0, footerBytes).map({ $0.elementsEqual(bytes) }) ?? false else {
            throw ImageRefusal("the VHD image's first footer and its last do not agree")
        }
        try dynamicHeader(data, size)
        return size
    }

    private static func footer(_ footer: ByteView, _ kind: UInt32) throws(ImageRefusal) -> Int {
        guard let bytes = footer.slice(0, footerBytes), let size = footer.big64(48), let cylinders = footer.big16(56),
            let heads = footer.byte(58), let perTrack = footer.byte(59), let found = footer.big32(60),
            let checksum = footer.big32(64), let creator = footer.slice(28, 4)
        else { throw ImageRefusal("the VHD footer is truncated") }
        guard found == kind else { throw ImageRefusal("a VHD image must be fixed or dynamic, without a parent") }
        var sum: UInt32 = 0
        for (index, byte) in bytes.enumerated() where !(64..<68).contains(index) { sum &+= UInt32(byte) }
        guard ~sum == checksum else { throw ImageRefusal("the VHD footer's checksum is wrong") }
        let declared = try Excerpt.checked(size, "VHD")
        guard declared % 512 == 0, UInt64(declared / 512) <= sectorsMax else {
            throw ImageRefusal("the VHD image's size of \(size) bytes is not supported")
        }
        let geometry = UInt64(cylinders) * UInt64(heads) * UInt64(perTrack)
        if sizedCreators.contains(Array(creator)) || geometry == geometryMax { return declared }
        // The size follows from the geometry, which may omit less than one cylinder.
        let cylinder = UInt64(heads) * UInt64(perTrack)
        guard geometry > 0, geometry <= UInt64(declared / 512), UInt64(declared / 512) - geometry < cylinder else {
            throw ImageRefusal(
                "the VHD image's size of \(size) bytes does not agree with its geometry of \(geometry) sectors")
        }
        return Int(geometry) * 512
    }

    private static func dynamicHeader(_ data: Excerpt, _ size: Int) throws(ImageRefusal) {
        guard let offset = data.head.big64(16), offset <= UInt64(ImageHeader.prefixLength - 1024), offset % 512 == 0,
            let bytes = data.head.slice(Int(offset), 1024)
        else { throw ImageRefusal("the VHD image's dynamic header is not at its beginning") }
        let header = ByteView(Array(bytes))
        guard header.has("cxsparse", at: 0), let table = header.big64(16), let entries = header.big32(28),
            let block = header.big32(32)
        else { throw ImageRefusal("the VHD image has no dynamic header") }
        // The parent's UUID, timestamp, reserved bytes and name, followed by its locators.
        guard header.isZero(40, 536), header.isZero(576, 192) else { throw ImageRefusal("the VHD image has a parent") }
        guard block.nonzeroBitCount == 1, (512...(256 << 20)).contains(block) else {
            throw ImageRefusal("the VHD image's block size of \(block) bytes is not supported")
        }
        guard UInt64(entries) * UInt64(block) >= UInt64(size), entries <= UInt32(Int32.max) / 4 else {
            throw ImageRefusal("the VHD image's table of \(entries) blocks does not match its size")
        }
        try data.require("VHD image's block table", at: table, bytes: UInt64(entries) * 4)
    }
}
