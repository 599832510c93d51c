/// Why data is not accepted as an image.
package struct ImageRefusal: Error, Sendable, Hashable, CustomStringConvertible {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }
    package var description: String { reason }
}

/// What image data says about itself, read by ourselves before any tool opens it.
///
/// A disk image can name other files (backing files, external data files, extents) that a tool would then open with
/// the rights of a host. Such images are refused, and so is data that is not what the image is declared to be. The
/// readers look at every place in which QEMU 7.2 looks; where a size stands in several places, the places must agree.
package struct ImageHeader: Sendable, Hashable {
    /// What the bytes say that the data is; `raw` when they say nothing.
    package enum Content: String, Sendable, Hashable, CaseIterable {
        case raw, qcow2, vmdk, vdi, vhd, vhdx, qed, iso, luks, parallels, bochs, cloop, dmg
    }

    package let content: Content
    /// Size of the disk inside, in bytes, as QEMU computes it; nil while it is not known yet.
    package let virtualSize: Int?

    package init(content: Content, virtualSize: Int?) {
        self.content = content
        self.virtualSize = virtualSize
    }

    /// Largest virtual disk, in bytes (64 TiB).
    package static let virtualSizeMax = 64 << 40

    /// How many leading bytes are wanted (all of them when there are fewer).
    package static let prefixLength = 128 * 1024
    /// How many bytes of the end are wanted: VMDK's footer is the last three sectors.
    package static let tailLength = 1536

    /// Reads the header of an image with a bare disk, and compares it with what the image is declared to be.
    ///
    /// - Parameters:
    ///   - prefix: the first `prefixLength` bytes.
    ///   - tail: the last `tailLength` bytes (all of them when there are fewer); nil while they have not arrived.
    ///   - size: bytes in all; nil while more may come.
    ///   - declared: the image's `disk_format`.
    /// - Throws: `ImageRefusal`.
    package static func inspect(
        prefix: [UInt8], tail: [UInt8]?, size: Int?, declared: String
    ) throws(ImageRefusal) -> ImageHeader {
        let wanted = try expected(declared)
        var found = try detect(prefix: prefix, tail: tail)
        // A live system's ISO is a fine raw disk too.
        if found == .iso, wanted == .raw { found = .raw }
        // A fixed VHD has its mark at the end only, which is still to come.
        if found == .raw, wanted == .vhd, tail == nil { return ImageHeader(content: .vhd, virtualSize: nil) }
        guard found == wanted else {
            throw ImageRefusal("disk_format is '\(declared)', but the content is '\(found.rawValue)'")
        }
        let excerpt = Excerpt(head: ByteView(prefix), tail: tail.map(ByteView.init), size: size)
        return ImageHeader(content: found, virtualSize: try virtualSize(found, excerpt))
    }

    /// What data must be that is declared as `disk_format`.
    ///
    /// - Throws: `ImageRefusal` for formats that are not accepted.
    private static func expected(_ declared: String) throws(ImageRefusal) -> Content {
        switch declared {
        case "raw", "ami", "ari", "aki": .raw
        case "qcow2": .qcow2
        case "vmdk": .vmdk
        case "vdi": .vdi
        case "vhd": .vhd
        case "iso": .iso
        case "vhdx":
            throw ImageRefusal("disk_format 'vhdx' is not accepted; convert the image to qcow2 or raw")
        default: throw ImageRefusal("disk_format '\(declared)' is not supported")
        }
    }

    private static func virtualSize(_ content: Content, _ data: Excerpt) throws(ImageRefusal) -> Int? {
        switch content {
        case .raw, .iso: data.size
        case .qcow2: try Qcow2Reader.virtualSize(data)
        case .vmdk: try VMDKReader.virtualSize(data)
        case .vdi: try VDIReader.virtualSize(data)
        case .vhd: try VHDReader.virtualSize(data)
        case .vhdx, .qed, .luks, .parallels, .bochs, .cloop, .dmg:
            throw ImageRefusal("content of the format '\(content.rawValue)' is not accepted")
        }
    }

    // MARK: marks

    /// What the content is, by its marks.
    ///
    /// - Parameter tail: the last bytes where they are known: a fixed VHD and a DMG have their mark there only.
    /// - Throws: `ImageRefusal` for data that has the marks of several formats: two readers could take it for
    ///   different disks.
    package static func detect(prefix: [UInt8], tail: [UInt8]?) throws(ImageRefusal) -> Content {
        let marks = marks(ByteView(prefix), tail.map { ByteView(Array($0.suffix(512))) })
        if marks.count > 1 {
            let names = marks.map { "'\($0.rawValue)'" }.joined(separator: " and ")
            throw ImageRefusal("the content has the marks of \(names)")
        }
        if let mark = marks.first { return mark }
        return ByteView(prefix).has("CD001", at: 0x8001) ? .iso : .raw
    }

    private static func marks(_ head: ByteView, _ lastSector: ByteView?) -> [Content] {
        var found: [Content] = []
        if head.hasBytes([0x51, 0x46, 0x49, 0xfb], at: 0) { found.append(.qcow2) }
        if head.has("KDMV", at: 0) || head.has("COWD", at: 0) || VMDKReader.isDescriptor(head) { found.append(.vmdk) }
        if head.has("vhdxfile", at: 0) { found.append(.vhdx) }
        if head.has("conectix", at: 0) || lastSector?.has("conectix", at: 0) ?? false { found.append(.vhd) }
        if head.hasBytes([0x7f, 0x10, 0xda, 0xbe], at: 0x40) { found.append(.vdi) }
        if head.has("QED\u{0}", at: 0) { found.append(.qed) }
        if head.hasBytes([0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe], at: 0) { found.append(.luks) }
        if head.has("WithoutFreeSpace", at: 0) || head.has("WithouFreSpacExt", at: 0) { found.append(.parallels) }
        if head.has("Bochs Virtual HD Image", at: 0) { found.append(.bochs) }
        if head.has("#!/bin/" + "sh\n#V2.0 Format\nmodprobe cloop", at: 0) { found.append(.cloop) }
        if lastSector?.has("koly", at: 0) ?? false { found.append(.dmg) }
        return found
    }
}

/// The parts of an image's data that headers stand in.
struct Excerpt {
    let head: ByteView
    /// The last bytes; nil while they have not arrived.
    let tail: ByteView?
    /// Bytes in all; nil while more may come.
    let size: Int?

    /// - Throws: `ImageRefusal` for sizes that no disk here has.
    static func checked(_ value: UInt64, _ name: String) throws(ImageRefusal) -> Int {
        guard value > 0, value <= UInt64(ImageHeader.virtualSizeMax) else {
            throw ImageRefusal("the \(name) image's size of \(value) bytes is outside 1 to \(ImageHeader.virtualSizeMax)")
        }
        return Int(value)
    }

    /// A table that the header announces must be in the file: so what a tool allocates for it is bounded by the upload.
    func require(_ name: String, at offset: UInt64, bytes: UInt64) throws(ImageRefusal) {
        let (end, overflow) = offset.addingReportingOverflow(bytes)
        guard !overflow, end <= UInt64(Int64.max) else { throw ImageRefusal("the \(name) is outside of the image") }
        // QEMU's files end at a whole sector.
        if let size, end > UInt64((size + 511) / 512 * 512) { throw ImageRefusal("the \(name) is outside of the image") }
    }
}
