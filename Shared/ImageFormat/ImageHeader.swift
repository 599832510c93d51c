/// Why data is not accepted as an image.
package struct ImageRefusal: Error, Sendable, Hashable, CustomStringConvertible {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }
    package var description: String { reason }
}

/// The properties of a disk image, read by our own parser before any tool opens it.
///
/// A disk image can refer to other files (backing files, external data files, extents), which a tool would open with the rights
/// of a host. Such images are refused, and so is data that differs from the declared format. The readers check every place that
/// QEMU 7.2 reads; if a size is stored in several places, the places must agree.
package struct ImageHeader: Sendable, Hashable {
    /// The format detected from the data; `raw` if there is no signature.
    package enum Content: String, Sendable, Hashable, CaseIterable {
        case raw, qcow2, vmdk, vdi, vhd, vhdx, qed, iso, luks, parallels, bochs, cloop, dmg
    }

    package let content: Content
    /// Size of the disk in the image, in bytes, as QEMU computes it; nil until it is known.
    package let virtualSize: Int?

    package init(content: Content, virtualSize: Int?) {
        self.content = content
        self.virtualSize = virtualSize
    }

    /// Largest virtual disk, in bytes (64 TiB).
    package static let virtualSizeMax = 64 << 40

    /// Number of leading bytes that are needed (all if there are fewer).
    package static let prefixLength = 128 * 1024
    /// Number of bytes at the end that are needed: VMDK's footer is the last three sectors.
    package static let tailLength = 1536

    /// Parses the header of an image that contains a single disk, and compares it with the declared format.
    ///
    /// - Parameters:
    ///   - prefix: the first `prefixLength` bytes.
    ///   - tail: the last `tailLength` bytes (all if there are fewer); nil until they have arrived.
    ///   - size: total size in bytes; nil while more data may arrive.
    ///   - declared: the image's `disk_format`.
    /// - Throws: `ImageRefusal`.
    package static func inspect(
        prefix: [UInt8], tail: [UInt8]?, size: Int?, declared: String
    ) throws(ImageRefusal) -> ImageHeader {
        let wanted = try expected(declared)
        var found = try detect(prefix: prefix, tail: tail)
        // An ISO of a live system is also valid as a raw disk.
        if found == .iso, wanted == .raw { found = .raw }
        // A fixed VHD has its signature only at the end, which has not arrived yet.
        if found == .raw, wanted == .vhd, tail == nil { return ImageHeader(content: .vhd, virtualSize: nil) }
        guard found == wanted else {
            throw ImageRefusal("disk_format is '\(declared)', but the content is '\(found.rawValue)'")
        }
        let excerpt = Excerpt(head: ByteView(prefix), tail: tail.map(ByteView.init), size: size)
        return ImageHeader(content: found, virtualSize: try virtualSize(found, excerpt))
    }

    /// The content formats that are valid for a declared `disk_format`.
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

    /// Detects the format by signatures.
    ///
    /// - Parameter tail: the last bytes if they are known, because a fixed VHD and a DMG have their signature there only.
    /// - Throws: `ImageRefusal` for data with the signatures of several formats, because two readers could interpret it as
    ///   different disks.
    package static func detect(prefix: [UInt8], tail: [UInt8]?) throws(ImageRefusal) -> Content {
        let marks = marks(ByteView(prefix), tail.map { ByteView(Array($0.suffix(512))) })
        if marks.count > 1 {
            let names = marks.map { "'\($0.rawValue)'" }.joined(separator: " and ")
            throw ImageRefusal("the content has the signatures of \(names)")
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

/// The parts of an image's data that contain headers.
struct Excerpt {
    let head: ByteView
    /// The last bytes; nil until they have arrived.
    let tail: ByteView?
    /// Total size in bytes; nil while more data may arrive.
    let size: Int?

    /// - Throws: `ImageRefusal` for an unsupported size.
    static func checked(_ value: UInt64, _ name: String) throws(ImageRefusal) -> Int {
        guard value > 0, value <= UInt64(ImageHeader.virtualSizeMax) else {
            throw ImageRefusal("the \(name) image's size of \(value) bytes is outside 1 to \(ImageHeader.virtualSizeMax)")
        }
        return Int(value)
    }

    /// Requires that a table is inside the file, so that the upload's size limits what a tool allocates for it.
    func require(_ name: String, at offset: UInt64, bytes: UInt64) throws(ImageRefusal) {
        let (end, overflow) = offset.addingReportingOverflow(bytes)
        guard !overflow, end <= UInt64(Int64.max) else { throw ImageRefusal("the \(name) is outside of the image") }
        // QEMU pads files to a whole sector.
        if let size, end > UInt64((size + 511) / 512 * 512) { throw ImageRefusal("the \(name) is outside of the image") }
    }
}
