import ImageFormat

extension ImageHeader {
    /// Reads the header of an image with a bare disk, and compares it with what the image is declared to be.
    ///
    /// - Parameters:
    ///   - prefix: the first `prefixLength` bytes.
    ///   - tail: the last `tailLength` bytes; nil while they have not arrived.
    ///   - size: bytes in all; nil while more may come.
    /// - Throws: `ImageRefusal`.
    package static func inspect(
        prefix: [UInt8], tail: [UInt8]?, size: Int?, declared: DiskFormat
    ) throws(ImageRefusal) -> ImageHeader {
        var found = detect(prefix: prefix, tail: declared == .vhd ? tail : nil)
        // A fixed VHD has its mark at the end only, which is still to come.
        if found == .raw, declared == .vhd, tail == nil { found = .vhd }
        guard found == expected(declared, found) else {
            throw ImageRefusal("disk_format is '\(declared.rawValue)', but the content is '\(found.rawValue)'")
        }
        return try read(found, prefix: prefix, tail: tail, size: size)
    }

    private static func expected(_ declared: DiskFormat, _ found: Content) -> Content {
        switch declared {
        case .qcow2: .qcow2
        case .vmdk: .vmdk
        case .vdi: .vdi
        case .vhd: .vhd
        case .vhdx: .vhdx
        case .iso: .iso
        // A live system's ISO is a fine raw disk too.
        case .raw, .ami: found == .iso ? .iso : .raw
        case .ari, .aki: .raw
        }
    }
}
