/// Reads VMDK files as QEMU's `block/vmdk.c` does (specification: VMware, Virtual Disk Format 1.1).
///
/// Supported: one sparse extent with its descriptor in the same file, as in `monolithicSparse` and `streamOptimized`.
enum VMDKReader {
    /// The offset at which QEMU looks for the parent of a file with a sparse header, regardless of the header.
    private static let descriptorOffset = 512
    private static let descriptorLength = 20 * 512
    /// The grain directory's offset in a streamed image, which has it in the footer.
    private static let atEnd = UInt64.max
    private static let entriesPerTable: UInt64 = 512

    private enum Flag {
        static let newLines: UInt32 = 1
        static let redundantTable: UInt32 = 1 << 1
        static let zeroGrains: UInt32 = 1 << 2
        static let compressed: UInt32 = 1 << 16
        static let markers: UInt32 = 1 << 17
        static let known = newLines | redundantTable | zeroGrains | compressed | markers
    }

    /// The fields common to header and footer; sizes in sectors.
    private struct SparseHeader: Equatable {
        let version: UInt32
        let flags: UInt32
        let capacity: UInt64
        let granularity: UInt64
        let entriesPerTable: UInt32
        let compression: UInt16
    }

    static func virtualSize(_ data: Excerpt) throws(ImageRefusal) -> Int {
        guard data.head.has("KDMV", at: 0) else {
            throw ImageRefusal(
                data.head.has("COWD", at: 0)
                    ? "the VMDK subformat COWD is not accepted" : "a VMDK descriptor that refers to other files is not accepted")
        }
        let header = try sparseHeader(data.head)
        guard let offset = data.head.little64(28), let sectors = data.head.little64(36), offset == 1,
            (1...20).contains(sectors)
        else { throw ImageRefusal("the VMDK header has no embedded descriptor at sector 1") }
        let virtualSize = try capacity(header)
        try tables(data, header)
        try descriptor(data, header)
        return virtualSize
    }

    private static func sparseHeader(_ bytes: ByteView, at start: Int = 0) throws(ImageRefusal) -> SparseHeader {
        guard let version = bytes.little32(start + 4), let flags = bytes.little32(start + 8),
            let capacity = bytes.little64(start + 12), let granularity = bytes.little64(start + 20),
            let entries = bytes.little32(start + 44), let compression = bytes.little16(start + 77)
        else { throw ImageRefusal("the VMDK header is truncated") }
        return SparseHeader(
            version: version, flags: flags, capacity: capacity, granularity: granularity, entriesPerTable: entries,
            compression: compression)
    }

    private static func capacity(_ header: SparseHeader) throws(ImageRefusal) -> Int {
        guard (1...3).contains(header.version), header.flags & ~Flag.known == 0, header.compression <= 1 else {
            throw ImageRefusal("the VMDK image's version or features are unknown")
        }
        guard UInt64(header.entriesPerTable) == entriesPerTable else {
            throw ImageRefusal("the VMDK image's tables have \(header.entriesPerTable) entries instead of 512")
        }
        guard header.granularity.nonzeroBitCount == 1, (8...4096).contains(header.granularity) else {
            throw ImageRefusal("the VMDK image's grain of \(header.granularity) sectors is outside 8 to 4096")
        }
        // With a capacity of 0, QEMU reads the descriptor's extents instead.
        guard header.capacity > 0, header.capacity <= UInt64(ImageHeader.virtualSizeMax / 512) else {
            throw ImageRefusal(
                "the VMDK image's size of \(header.capacity) sectors is outside 1 to \(ImageHeader.virtualSizeMax / 512)")
        }
        return Int(header.capacity) * 512
    }

    /// Checks the footer, if there is one, and that the grain directories are in the file.
    private static func tables(_ data: Excerpt, _ header: SparseHeader) throws(ImageRefusal) {
        guard var directory = data.head.little64(56), let redundant = data.head.little64(48) else {
            throw ImageRefusal("the VMDK header is truncated")
        }
        if directory == atEnd {
            guard let tail = data.tail, let size = data.size else { return }
            guard size % 512 == 0, tail.count >= 1536 else { throw ImageRefusal("the VMDK image has no footer") }
            let start = tail.count - 1536
            guard tail.little32(start + 8) == 0, tail.little32(start + 12) == 3, tail.has("KDMV", at: start + 512),
                tail.isZero(start + 1024, 16)
            else { throw ImageRefusal("the VMDK image has no footer") }
            guard try sparseHeader(tail, at: start + 512) == header, let found = tail.little64(start + 512 + 56) else {
                throw ImageRefusal("the VMDK image's header and footer do not agree")
            }
            directory = found
        }
        let perEntry = entriesPerTable * header.granularity
        let bytes = (header.capacity + perEntry - 1) / perEntry * 4
        guard directory < 1 << 40, redundant < 1 << 40 else {
            throw ImageRefusal("the VMDK image's grain directory is outside of the image")
        }
        try data.require("VMDK image's grain directory", at: directory * 512, bytes: bytes)
        if header.flags & Flag.redundantTable != 0 {
            try data.require("VMDK image's redundant grain directory", at: redundant * 512, bytes: bytes)
        }
    }

    // MARK: descriptor

    private static func descriptor(_ data: Excerpt, _ header: SparseHeader) throws(ImageRefusal) {
        let region = data.head.available(descriptorOffset, descriptorLength)
        guard !ByteView.contains(region, "parentfilenamehint") else { throw ImageRefusal("the VMDK image has a parent") }
        let text = String(decoding: region.prefix { $0 != 0 }, as: UTF8.self)
        var types: [String] = []
        var parents: [String] = []
        var extents = 0
        for line in text.split(whereSeparator: { $0 == "\n" || $0 == "\r" || $0 == "\r\n" }) {
            let words = line.split(whereSeparator: \.isWhitespace)
            if let value = value("createType", line) { types.append(value) }
            if let value = value("parentCID", line) { parents.append(value.lowercased()) }
            if ["RW", "RDONLY", "NOACCESS"].contains(words.first.map(String.init) ?? "") {
                extents += 1
                try extent(line, words, header)
            }
        }
        // Also searched in the text, because QEMU takes the first occurrence, even in the middle of a line.
        guard parents == ["ffffffff"], text.ranges(of: "parentCID").count == 1 else {
            throw ImageRefusal("the VMDK image has a parent")
        }
        guard extents == 1, types == ["monolithicSparse"] || types == ["streamOptimized"] else {
            throw ImageRefusal("a VMDK image must be monolithicSparse or streamOptimized with one extent")
        }
        guard (types == ["streamOptimized"]) == (header.compression == 1) else {
            throw ImageRefusal("the VMDK image's type and its compression do not agree")
        }
    }

    private static func value(_ name: String, _ line: Substring) -> String? {
        let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].filter({ !$0.isWhitespace }) == name else { return nil }
        return parts[1].filter { $0 != "\"" && !$0.isWhitespace }
    }

    private static func extent(
        _ line: Substring, _ words: [Substring], _ header: SparseHeader
    ) throws(ImageRefusal) {
        guard words.count >= 4, words[2] == "SPARSE", !line.contains(where: { "/\\:".contains($0) }) else {
            throw ImageRefusal("the VMDK image has an extent outside of itself")
        }
        guard UInt64(words[1]) == header.capacity else {
            throw ImageRefusal("the VMDK image's size of \(header.capacity) sectors is \(words[1]) in its descriptor")
        }
    }

    /// Whether the data is a text descriptor: for QEMU's probe, and for its driver.
    static func isDescriptor(_ head: ByteView) -> Bool {
        let text = head.available(0, head.count).prefix { $0 != 0 }
        return probes(text) || ByteView.contains(text, "createtype") || ByteView.contains(text, "parentfilenamehint")
            || ByteView.contains(text.prefix(64), "# disk descriptorfile")
    }

    /// Comments and empty lines, followed by a version.
    private static func probes(_ text: ArraySlice<UInt8>) -> Bool {
        for line in text.split(separator: 0x0a, omittingEmptySubsequences: false) {
            if line.first == 0x23 || line.allSatisfy({ $0 == 0x20 || $0 == 0x0d }) { continue }
            return line.starts(with: Array("version=".utf8)) && (9...10).contains(line.count)
        }
        return false
    }
}
