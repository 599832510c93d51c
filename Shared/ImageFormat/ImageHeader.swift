/// Why data is not accepted as an image.
package struct ImageRefusal: Error, Sendable, Hashable, CustomStringConvertible {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }
    package var description: String { reason }
}

/// What image data says about itself, read by ourselves before any tool opens it.
///
/// A disk image can name other files (backing files, external data files, extents) that a tool would then open with
/// the rights of a host. Such images are refused, and so is data that is not what the image is declared to be.
package struct ImageHeader: Sendable, Hashable {
    /// What the first bytes say that the data is; `raw` when they say nothing.
    package enum Content: String, Sendable, Hashable, CaseIterable {
        case raw, qcow2, vmdk, vdi, vhd, vhdx, qed, iso, luks
    }

    package let content: Content
    /// Size of the disk inside, in bytes; nil when the header does not say it.
    package let virtualSize: Int?

    package init(content: Content, virtualSize: Int?) {
        self.content = content
        self.virtualSize = virtualSize
    }

    /// Largest virtual disk, in bytes (64 TiB).
    package static let virtualSizeMax = 64 << 40

    /// How many leading bytes are wanted (all of them when there are fewer).
    package static let prefixLength = 128 * 1024
    /// How many bytes of the end are wanted.
    package static let tailLength = 512

    /// What the content is, by its marks.
    ///
    /// - Parameters:
    ///   - prefix: the first `prefixLength` bytes.
    ///   - tail: the last `tailLength` bytes where they are known: a fixed VHD has its mark there only.
    package static func detect(prefix: [UInt8], tail: [UInt8]?) -> Content {
        let found = detect(ByteView(prefix))
        if found == .raw, let tail, ByteView(tail).has("conectix", at: 0) { return .vhd }
        return found
    }

    /// Reads the header of an image with a bare disk.
    ///
    /// - Parameters:
    ///   - content: what `detect` found.
    ///   - tail: nil while the last bytes have not arrived.
    ///   - size: bytes in all; nil while more may come.
    /// - Throws: `ImageRefusal`.
    package static func read(
        _ content: Content, prefix: [UInt8], tail: [UInt8]?, size: Int?
    ) throws(ImageRefusal) -> ImageHeader {
        let bytes = ByteView(prefix)
        switch content {
        case .raw, .iso: return ImageHeader(content: content, virtualSize: size)
        case .qcow2: return ImageHeader(content: .qcow2, virtualSize: try qcow2(bytes))
        case .vmdk: return ImageHeader(content: .vmdk, virtualSize: try vmdk(bytes))
        case .vdi: return ImageHeader(content: .vdi, virtualSize: try vdi(bytes))
        case .vhd:
            if bytes.has("conectix", at: 0) { return ImageHeader(content: .vhd, virtualSize: try vhd(bytes)) }
            return ImageHeader(content: .vhd, virtualSize: try tail.map { (bytes) throws(ImageRefusal) in try vhd(ByteView(bytes)) })
        case .vhdx: return ImageHeader(content: .vhdx, virtualSize: nil)
        case .qed, .luks: throw ImageRefusal("content of the format '\(content.rawValue)' is not accepted")
        }
    }

    private static func detect(_ bytes: ByteView) -> Content {
        if bytes.hasBytes([0x51, 0x46, 0x49, 0xfb], at: 0) { return .qcow2 }
        if bytes.has("KDMV", at: 0) || bytes.has("COWD", at: 0) || bytes.has("# Disk DescriptorFile", at: 0) {
            return .vmdk
        }
        if bytes.has("vhdxfile", at: 0) { return .vhdx }
        if bytes.has("conectix", at: 0) { return .vhd }
        if bytes.hasBytes([0x7f, 0x10, 0xda, 0xbe], at: 0x40) { return .vdi }
        if bytes.has("QED\u{0}", at: 0) { return .qed }
        if bytes.hasBytes([0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe], at: 0) { return .luks }
        if bytes.has("CD001", at: 0x8001) { return .iso }
        return .raw
    }

    private static func size(_ value: UInt64, _ name: String) throws(ImageRefusal) -> Int {
        guard value > 0, value <= UInt64(virtualSizeMax) else {
            throw ImageRefusal("the \(name) image's size of \(value) bytes is outside 1 to \(virtualSizeMax)")
        }
        return Int(value)
    }

    private static func qcow2(_ bytes: ByteView) throws(ImageRefusal) -> Int {
        guard let version = bytes.big32(4), let backing = bytes.big64(8), let size = bytes.big64(24),
            let encryption = bytes.big32(32)
        else { throw ImageRefusal("the qcow2 header is cut off") }
        guard version == 2 || version == 3 else { throw ImageRefusal("qcow2 version \(version) is unknown") }
        guard backing == 0 else { throw ImageRefusal("the qcow2 image has a backing file") }
        guard encryption == 0 else { throw ImageRefusal("the qcow2 image is encrypted") }
        let virtualSize = try self.size(size, "qcow2")
        guard version == 3 else { return virtualSize }
        guard let incompatible = bytes.big64(72), let length = bytes.big32(100) else {
            throw ImageRefusal("the qcow2 header is cut off")
        }
        // Bit 2: the data is in another file. Bits above 4 are unknown here, and unknown means unsafe.
        guard incompatible & 0b100 == 0 else { throw ImageRefusal("the qcow2 image has an external data file") }
        guard incompatible >> 5 == 0 else { throw ImageRefusal("the qcow2 image uses unknown features") }
        var offset = Int(length)
        while true {
            guard let kind = bytes.big32(offset), let count = bytes.big32(offset + 4) else {
                throw ImageRefusal("the qcow2 header extensions are cut off")
            }
            if kind == 0 { return virtualSize }
            if kind == 0x4441_5441 { throw ImageRefusal("the qcow2 image names an external data file") }
            if kind == 0xe279_2aca { throw ImageRefusal("the qcow2 image names a backing format") }
            offset += 8 + (Int(count) + 7) / 8 * 8
        }
    }

    private static func vmdk(_ bytes: ByteView) throws(ImageRefusal) -> Int {
        guard bytes.has("KDMV", at: 0) else {
            throw ImageRefusal("a VMDK descriptor that names other files is not accepted")
        }
        guard let capacity = bytes.little64(12), let offset = bytes.little64(28), let sectors = bytes.little64(36),
            capacity > 0, capacity < 1 << 50, offset > 0, sectors > 0, sectors <= 128, offset < 128,
            let raw = bytes.slice(Int(offset) * 512, Int(sectors) * 512)
        else { throw ImageRefusal("the VMDK header has no embedded descriptor") }
        let descriptor = String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
        var extents = 0
        var type = ""
        for line in descriptor.split(whereSeparator: \.isNewline) {
            let text = line.drop { $0 == " " || $0 == "\t" }
            if text.hasPrefix("createType=") { type = text.dropFirst(11).filter { $0 != "\"" } }
            if text.hasPrefix("parentFileNameHint") { throw ImageRefusal("the VMDK image has a parent") }
            if ["RW ", "RDONLY ", "NOACCESS "].contains(where: { text.hasPrefix($0) }) {
                extents += 1
                let words = text.split(separator: " ")
                guard words.count >= 4, words[2] == "SPARSE",
                    !words[3...].joined(separator: " ").contains(where: { $0 == "/" || $0 == "\\" })
                else { throw ImageRefusal("the VMDK image has an extent outside of itself") }
            }
        }
        guard type == "monolithicSparse" || type == "streamOptimized", extents == 1 else {
            throw ImageRefusal("a VMDK image must be monolithicSparse or streamOptimized with one extent")
        }
        return try size(capacity * 512, "VMDK")
    }

    private static func vdi(_ bytes: ByteView) throws(ImageRefusal) -> Int {
        guard let kind = bytes.little32(0x4c), let size = bytes.little64(0x170) else {
            throw ImageRefusal("the VDI header is cut off")
        }
        guard kind == 1 || kind == 2 else { throw ImageRefusal("a VDI image must be dynamic or fixed, without a parent") }
        return try self.size(size, "VDI")
    }

    private static func vhd(_ footer: ByteView) throws(ImageRefusal) -> Int {
        guard let size = footer.big64(48), let kind = footer.big32(60) else {
            throw ImageRefusal("the VHD footer is cut off")
        }
        guard kind == 2 || kind == 3 else { throw ImageRefusal("a VHD image must be fixed or dynamic, without a parent") }
        return try self.size(size, "VHD")
    }
}

/// Bounds-checked reads.
private struct ByteView {
    private let bytes: [UInt8]
    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func slice(_ offset: Int, _ count: Int) -> ArraySlice<UInt8>? {
        guard offset >= 0, count >= 0, offset <= bytes.count, count <= bytes.count - offset else { return nil }
        return bytes[offset..<offset + count]
    }
    func hasBytes(_ wanted: [UInt8], at offset: Int) -> Bool {
        slice(offset, wanted.count).map { $0.elementsEqual(wanted) } ?? false
    }
    func has(_ text: String, at offset: Int) -> Bool { hasBytes(Array(text.utf8), at: offset) }
    func big32(_ offset: Int) -> UInt32? { slice(offset, 4)?.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } }
    func big64(_ offset: Int) -> UInt64? { slice(offset, 8)?.reduce(UInt64(0)) { $0 << 8 | UInt64($1) } }
    func little32(_ offset: Int) -> UInt32? { slice(offset, 4)?.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) } }
    func little64(_ offset: Int) -> UInt64? { slice(offset, 8)?.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) } }
}
