import ImageFormat

extension ImageHeader {
    /// Reads the header of an image that is to become a root disk.
    ///
    /// - Parameters:
    ///   - prefix: the first `prefixLength` bytes of the file.
    ///   - fileSize: the file's size in bytes.
    ///   - declared: the image's `disk_format`.
    /// - Throws: `ImageRefusal`.
    package static func inspect(
        prefix: [UInt8], fileSize: Int, declared: String
    ) throws(ImageRefusal) -> ImageHeader {
        guard let wanted = Content(rawValue: declared) else {
            throw ImageRefusal("disk_format \"\(declared)\" is not supported on this host")
        }
        guard wanted.qemuName != nil else {
            throw ImageRefusal("disk_format \"\(declared)\" cannot be a server's root disk on this host")
        }
        var found = detect(prefix: prefix, tail: nil)
        // A live system's ISO is a fine raw disk too.
        if found == .iso, wanted == .raw { found = .raw }
        guard found == wanted else {
            throw ImageRefusal("disk_format is \(wanted.rawValue), but the content is \(found.rawValue)")
        }
        return try read(found, prefix: prefix, tail: nil, size: fileSize)
    }
}

extension ImageHeader.Content {
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
