import Kernel

/// Why an image may not be used as a disk.
package struct ImageRefusal: Error, Sendable, Hashable, CustomStringConvertible {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }
    package var description: String { reason }
}

/// What an image's first bytes say about it, read by ourselves before any tool opens it.
///
/// A disk image can name other files (backing files, external data files, extents) that a tool would then open with
/// the host's rights. Such images are refused, and so are images that are not what they are declared to be.
package struct ImageHeader: Sendable, Hashable {
    package enum Format: String, Sendable, Hashable, CaseIterable {
        case raw, qcow2, vmdk, vdi, vhd, vhdx, qed, iso, luks

        /// The name that qemu-img knows it by; nil when this agent does not convert it.
        package var qemuName: String? {
            switch self {
            case .raw: "raw"
            case .qcow2: "qcow2"
            case .vmdk: "vmdk"
            case .vdi: "vdi"
            case .vhd: "vpc"
            case .vhdx: "vhdx"
            case .qed, .iso, .luks: nil
            }
        }
    }

    package let format: Format
    /// Size of the disk inside, in bytes; nil when the header does not say it.
    package let virtualSize: Int?

    /// How many leading bytes `inspect` wants to see (all of them when the file is shorter).
    package static let prefixLength = 128 * 1024

    /// Reads the header.
    ///
    /// - Parameters:
    ///   - prefix: the first `prefixLength` bytes of the file.
    ///   - fileSize: the file's size in bytes.
    ///   - declared: the image's `disk_format`.
    /// - Throws: `ImageRefusal`.
    package static func inspect(
        prefix: [UInt8], fileSize: Int, declared: String
    ) throws(ImageRefusal) -> ImageHeader {
        guard let wanted = Format(rawValue: declared) else {
            throw ImageRefusal("disk_format \"\(declared)\" is not supported on this host")
        }
        let bytes = ByteView(prefix)
        let found = detect(bytes)
        guard found == wanted else {
            throw ImageRefusal("disk_format is \(wanted.rawValue), but the content is \(found.rawValue)")
        }
        switch found {
        case .raw: return ImageHeader(format: .raw, virtualSize: fileSize)
        case .qcow2: return ImageHeader(format: .qcow2, virtualSize: try qcow2(bytes))
        case .vmdk: return ImageHeader(format: .vmdk, virtualSize: try vmdk(bytes))
        case .vdi: return ImageHeader(format: .vdi, virtualSize: try vdi(bytes))
        case .vhd, .vhdx: return ImageHeader(format: found, virtualSize: nil)
        case .qed, .iso, .luks:
            throw ImageRefusal("disk_format \"\(declared)\" cannot be a server's root disk on this host")
        }
    }

    private static func detect(_ bytes: ByteView) -> Format {
        if bytes.hasBytes([0x51, 0x46, 0x49, 0xfb], at: 0) { return .qcow2 }
        if bytes.has("KDMV", at: 0) || bytes.has("COWD", at: 0) || bytes.has("# Disk DescriptorFile", at: 0) {
            return .vmdk
        }
        if bytes.has("vhdxfile", at: 0) { return .vhdx }
        if bytes.has("conectix", at: 0) { return .vhd }
        if bytes.hasBytes([0x7f, 0x10, 0xda, 0xbe], at: 0x40) { return .vdi }
        if bytes.has("QED\u{0}", at: 0) { return .qed }
        if bytes.hasBytes([0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe], at: 0) { return .luks }
        // A hybrid image is both, a boot sector and an ISO: bootable as a disk, so the boot sector decides.
        if bytes.has("CD001", at: 0x8001), !bytes.hasBytes([0x55, 0xaa], at: 510) { return .iso }
        return .raw
    }

    private static func qcow2(_ bytes: ByteView) throws(ImageRefusal) -> Int {
        guard let version = bytes.big32(4), let backing = bytes.big64(8), let size = bytes.big64(24),
            let encryption = bytes.big32(32)
        else { throw ImageRefusal("the qcow2 header is cut off") }
        guard version == 2 || version == 3 else { throw ImageRefusal("qcow2 version \(version) is not supported") }
        guard backing == 0 else { throw ImageRefusal("the qcow2 image has a backing file") }
        guard encryption == 0 else { throw ImageRefusal("the qcow2 image is encrypted") }
        guard size > 0, size <= UInt64(Int.max) else { throw ImageRefusal("the qcow2 image has no size") }
        guard version == 3 else { return Int(size) }
        guard let incompatible = bytes.big64(72), let length = bytes.big32(100) else {
            throw ImageRefusal("the qcow2 header is cut off")
        }
        // Bit 2: the data is in another file. Bits above 4 are unknown here, and unknown means unsafe.
        guard incompatible & 0b100 == 0 else { throw ImageRefusal("the qcow2 image has an external data file") }
        guard incompatible >> 5 == 0 else { throw ImageRefusal("the qcow2 image uses unknown features") }
        var offset = Int(length)
        while true {
            guard let kind = bytes.big32(offset), let size = bytes.big32(offset + 4) else {
                throw ImageRefusal("the qcow2 header extensions are cut off")
            }
            if kind == 0 { break }
            if kind == 0x4441_5441 { throw ImageRefusal("the qcow2 image names an external data file") }
            if kind == 0xe279_2aca { throw ImageRefusal("the qcow2 image names a backing format") }
            offset += 8 + (Int(size) + 7) / 8 * 8
        }
        return Int(size)
    }

    private static func vmdk(_ bytes: ByteView) throws(ImageRefusal) -> Int {
        guard bytes.has("KDMV", at: 0) else {
            throw ImageRefusal("a VMDK descriptor that names other files is not accepted")
        }
        guard let capacity = bytes.little64(12), let offset = bytes.little64(28), let sectors = bytes.little64(36),
            capacity > 0, capacity < 1 << 50, offset > 0, sectors > 0, sectors <= 128, offset < 128
        else { throw ImageRefusal("the VMDK header has no embedded descriptor") }
        guard let raw = bytes.slice(Int(offset) * 512, Int(sectors) * 512) else {
            throw ImageRefusal("the VMDK descriptor is cut off")
        }
        let descriptor = String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
        var extents = 0
        var type = ""
        for line in descriptor.split(whereSeparator: \.isNewline) {
            let text = line.trimmingSpaces
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
        return Int(capacity) * 512
    }

    private static func vdi(_ bytes: ByteView) throws(ImageRefusal) -> Int {
        guard let kind = bytes.little32(0x4c), let size = bytes.little64(0x170) else {
            throw ImageRefusal("the VDI header is cut off")
        }
        guard kind == 1 || kind == 2 else { throw ImageRefusal("a VDI image must be dynamic or fixed, without a parent") }
        guard size > 0, size <= UInt64(Int.max) else { throw ImageRefusal("the VDI image has no size") }
        return Int(size)
    }
}

extension Substring {
    fileprivate var trimmingSpaces: Substring {
        var text = self
        while text.first == " " || text.first == "\t" { text = text.dropFirst() }
        return text
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
