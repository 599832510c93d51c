/// An image that must be refused.
package struct HostileImage: Sendable, CustomStringConvertible {
    package let name: String
    /// The `disk_format` it is uploaded as.
    package let declared: String
    package let bytes: [UInt8]
    /// A word of the expected refusal.
    package let reason: String

    package var description: String { name }
}

/// Images that attack the program that opens them: the classes of CVE-2015-5163, CVE-2022-47951, CVE-2024-32498 and
/// CVE-2024-40767, and similar attacks on formats without a known CVE.
package enum HostileImages {
    /// - Parameter canary: a file of the host to which the images refer.
    package static func corpus(canary: String) -> [HostileImage] {
        qcow2(canary) + vmdk(canary) + vhd() + vdi() + disguised(canary) + refusedFormats()
    }

    private static func image(_ name: String, _ declared: String, _ reason: String, _ bytes: [UInt8]) -> HostileImage {
        HostileImage(name: name, declared: declared, bytes: bytes, reason: reason)
    }

    // MARK: qcow2

    /// A qcow2 disk with the canary as backing file (CVE-2015-5163).
    package static func qcow2WithBacking(_ canary: String, version: UInt32 = 3) -> [UInt8] {
        DiskImages.qcow2(version: version) { image in
            image.big(8, UInt64(1024))
            image.big(16, UInt32(canary.utf8.count))
            image.text(1024, canary)
        }
    }

    /// A qcow2 disk with the canary as external data file (CVE-2024-32498).
    package static func qcow2WithDataFile(_ canary: String) -> [UInt8] {
        DiskImages.qcow2(incompatible: 4) { $0.put(112, DiskImages.qcow2Extension(0x4441_5441, canary)) }
    }

    private static func qcow2(_ canary: String) -> [HostileImage] {
        func with(_ kind: UInt32, _ text: String) -> [UInt8] {
            DiskImages.qcow2 { $0.put(112, DiskImages.qcow2Extension(kind, text)) }
        }
        func changed(_ change: (inout DiskImages.Bytes) -> Void) -> [UInt8] { DiskImages.qcow2(change) }
        let sound = DiskImages.qcow2()
        let list: [(String, String, [UInt8])] = [
            ("backing file", "backing file", qcow2WithBacking(canary)),
            ("backing file, version 2", "backing file", qcow2WithBacking(canary, version: 2)),
            ("backing file as JSON", "backing file", qcow2WithBacking("json:{\"driver\":\"file\",\"filename\":\"\(canary)\"}")),
            ("data file", "data file", qcow2WithDataFile(canary)),
            ("data file without the feature bit", "data file", with(0x4441_5441, canary)),
            ("raw data file bit", "data file", changed { $0.big(88, UInt64(2)) }),
            ("backing format", "backing format", with(0xe279_2aca, "raw")),
            ("LUKS inside", "encrypted", changed { $0.big(32, UInt32(2)) }),
            ("AES inside", "encrypted", changed { $0.big(32, UInt32(1)) }),
            ("encryption header", "encrypted", with(0x0537_be77, "0123456789abcdef")),
            ("unknown feature", "unknown features", DiskImages.qcow2(incompatible: 1 << 5)),
            ("unknown autoclear feature", "unknown features", changed { $0.big(88, UInt64(4)) }),
            ("unknown extension", "unknown header extension", with(0x1234_5678, "x")),
            ("corrupt bit", "corrupt", DiskImages.qcow2(incompatible: 2)),
            ("version 1", "version", changed { $0.big(4, UInt32(1)) }),
            ("version 4", "version", changed { $0.big(4, UInt32(4)) }),
            ("1 EiB", "outside", DiskImages.qcow2(size: 1 << 60)),
            ("2^64 - 1 bytes", "outside", DiskImages.qcow2(size: .max)),
            ("no size", "outside", changed { $0.big(24, UInt64(0)) }),
            ("odd size", "multiple", DiskImages.qcow2(size: (1 << 20) + 1)),
            ("table too small for the size", "does not match", changed { $0.big(24, UInt64(1 << 40)) }),
            ("table of 4 billion entries", "does not match", changed { $0.big(36, UInt32.max) }),
            ("table outside", "outside", changed { $0.big(40, UInt64(1 << 40)) }),
            ("table at the end of the address space", "outside", changed { $0.big(40, UInt64.max - 65535) }),
            ("reference counts outside", "outside", changed { $0.big(48, UInt64(1 << 40)) }),
            ("4 billion clusters of reference counts", "reference count", changed { $0.big(56, UInt32.max) }),
            ("reference counts of 2^32 bits", "wider", changed { $0.big(96, UInt32(32)) }),
            ("clusters of 2^63 bytes", "cluster size", changed { $0.big(20, UInt32(63)) }),
            ("clusters of 2 bytes", "cluster size", changed { $0.big(20, UInt32(1)) }),
            ("a billion snapshots", "snapshots", changed { $0.big(60, UInt32(1 << 30)) }),
            ("header longer than a cluster", "length", DiskImages.qcow2(headerLength: 1 << 20)),
            ("compression without its bit", "compression", changed { $0.put(104, [1]) }),
            ("unknown compression", "compression", DiskImages.qcow2(incompatible: 8) { $0.put(104, [7]) }),
            ("extension larger than a cluster", "truncated", changed { $0.put(112, [0x68, 3, 0xf8, 0x57, 0xff, 0xff, 0xff, 0xff]) }),
            ("only a magic number", "truncated", Array(sound.prefix(4))),
            ("half a header", "truncated", Array(sound.prefix(60))),
            ("header without its table", "outside", Array(sound.prefix(65536))),
        ]
        return list.map { image("qcow2: " + $0.0, "qcow2", $0.1, $0.2) }
    }

    // MARK: VMDK

    /// Valid line by line, but with a parent for a reader that searches the text: in a comment, in a place other than the
    /// header's, or after the end of the text.
    package static func vmdkWithParent(_ parent: String) -> [UInt8] {
        DiskImages.vmdk(
            DiskImages.descriptor(parentCID: "bc609ba4", more: "# note: parentFileNameHint=\"\(parent)\""))
    }

    /// A text that QEMU's VMDK driver opens as a disk with the canary's data.
    package static func descriptor(flat path: String, sectors: Int = 20480) -> String {
        DiskImages.descriptor(type: "monolithicFlat", extents: "RW \(sectors) FLAT \"\(path)\" 0")
    }

    private static func vmdk(_ canary: String) -> [HostileImage] {
        func text(_ more: String) -> [UInt8] { DiskImages.vmdk(DiskImages.descriptor(more: more)) }
        let elsewhere = DiskImages.vmdk { image in
            // The header points to a valid descriptor; where QEMU looks there is a parent.
            image.text(30 * 512, DiskImages.descriptor())
            image.little(28, UInt64(30))
            image.put(512, [UInt8](repeating: 0, count: 4096))
            image.text(512, "CID=1\nparentCID=1\nparentFileNameHint=\"\(canary)\"\n")
        }
        let behind = DiskImages.vmdk { $0.text(20 * 512, "parentFileNameHint=\"\(canary)\"\n") }
        let list: [(String, String, [UInt8])] = [
            ("parent in a comment", "parent", vmdkWithParent(canary)),
            ("parent in a line", "parent", text("parentFileNameHint=\"\(canary)\"")),
            ("parent with another case", "parent", text("PARENTfileNAMEhint=\"\(canary)\"")),
            ("parent behind the text's end", "parent", behind),
            ("descriptor elsewhere", "no embedded descriptor", elsewhere),
            ("parent's id only", "parent", DiskImages.vmdk(DiskImages.descriptor(parentCID: "12345678"))),
            ("parent's id in a comment first", "parent", text("# parentCID=00000001")),
            (
                "extent of an absolute path", "outside of itself",
                DiskImages.vmdk(DiskImages.descriptor(extents: "RW 20480 SPARSE \"\(canary)\""))
            ),
            ("flat extent", "outside of itself", DiskImages.vmdk(DiskImages.descriptor(extents: "RW 20480 FLAT \"x\" 0"))),
            (
                "extent of a URL", "outside of itself",
                DiskImages.vmdk(DiskImages.descriptor(extents: "RW 20480 SPARSE \"nbd:localhost:1\""))
            ),
            (
                "second extent", "one extent",
                DiskImages.vmdk(DiskImages.descriptor(extents: "RW 20480 SPARSE \"a\"\nRW 20480 SPARSE \"b\""))
            ),
            ("monolithicFlat with a sparse header", "monolithicSparse", DiskImages.vmdk(DiskImages.descriptor(type: "monolithicFlat"))),
            ("capacity of 0: QEMU reads the extents", "sectors is outside", DiskImages.vmdk(descriptor(flat: canary), capacity: 0)),
            ("capacity of 1 EiB", "sectors is outside", DiskImages.vmdk(capacity: 1 << 51)),
            ("capacity unlike its extent", "in its descriptor", DiskImages.vmdk(capacity: 40960)),
            ("footer with another capacity", "footer", DiskImages.streamOptimizedVMDK(footerCapacity: 1 << 25)),
            ("stream without a footer", "footer", DiskImages.streamOptimizedVMDK { $0.put(130 * 512, [0, 0, 0, 0]) }),
            ("compressed, but not a stream", "do not agree", DiskImages.streamOptimizedVMDK(DiskImages.descriptor())),
            ("grain directory outside", "outside", DiskImages.vmdk { $0.little(56, UInt64(1 << 30)) }),
            ("grains of 2^40 sectors", "grain", DiskImages.vmdk { $0.little(20, UInt64(1) << 40) }),
            ("tables of 2^31 entries", "entries", DiskImages.vmdk { $0.little(44, UInt32(1) << 31) }),
            ("unknown version", "unknown", DiskImages.vmdk { $0.little(4, UInt32(9)) }),
            ("unknown flag", "unknown", DiskImages.vmdk { $0.little(8, UInt32(1) << 30) }),
            ("COWD", "COWD", DiskImages.raw("COWD")),
            ("descriptor", "descriptor", DiskImages.raw(descriptor(flat: canary))),
            ("only a magic number", "truncated", Array("KDMV".utf8)),
        ]
        return list.map { image("vmdk: " + $0.0, "vmdk", $0.1, $0.2) }
    }

    // MARK: VHD and VDI

    private static func vhd() -> [HostileImage] {
        typealias Images = DiskImages
        let geometry = Images.vhdFooter(creator: "vpc ", geometry: (65000, 16, 255))
        let small = Images.vhdFooter(creator: "vpc ", geometry: (1, 4, 17))
        let list: [(String, String, [UInt8])] = [
            ("differencing", "without a parent", Images.vhd(footer: Images.vhdFooter(kind: 4))),
            ("fixed by its kind, dynamic by its place", "without a parent", Images.vhd(footer: Images.vhdFooter(kind: 2))),
            ("parent's name", "parent", Images.vhd { $0.text(512 + 64, "/\u{0}e\u{0}t\u{0}c") }),
            ("parent's UUID", "parent", Images.vhd { $0.put(512 + 40, [1]) }),
            ("parent's locator", "parent", Images.vhd { $0.text(512 + 576, "W2ku") }),
            ("geometry of 127 GiB for a size of 10 MiB", "geometry", Images.vhd(footer: geometry)),
            ("geometry smaller than the size", "geometry", Images.vhd(footer: small)),
            ("1 EiB", "outside", Images.vhd(footer: Images.vhdFooter(size: 1 << 60))),
            ("two footers", "do not agree", Images.vhd(last: Images.vhdFooter(size: 10 << 30))),
            ("checksum", "checksum", Images.vhd { $0.put(84, [9]) }),
            ("table outside", "outside", Images.vhd { $0.big(528, UInt64(1 << 40)) }),
            ("table of 4 billion blocks", "table", Images.vhd { $0.big(540, UInt32.max) }),
            ("table too small for the size", "does not match", Images.vhd { $0.big(540, UInt32(1)) }),
            ("blocks of 1 byte", "block size", Images.vhd { $0.big(544, UInt32(1)) }),
            ("dynamic header elsewhere", "not at its beginning", Images.vhd(footer: Images.vhdFooter { $0.big(16, UInt64(1 << 40)) })),
            ("fixed, larger than its data", "does not agree", Images.fixedVHD(size: 10 << 30)),
        ]
        return list.map { image("vhd: " + $0.0, "vhd", $0.1, $0.2) }
    }

    private static func vdi() -> [HostileImage] {
        let list: [(String, String, [UInt8])] = [
            ("parent's UUID", "parent", DiskImages.vdi { $0.put(0x1b8, [1, 2, 3]) }),
            ("link's UUID", "parent", DiskImages.vdi { $0.put(0x1a8, [1]) }),
            ("differencing", "without a parent", DiskImages.vdi { $0.little(0x4c, UInt32(4)) }),
            ("1 EiB", "outside", DiskImages.vdi(size: 1 << 60)),
            ("larger than its blocks", "does not agree", DiskImages.vdi(size: 10 << 30)),
            ("a billion blocks", "does not agree", DiskImages.vdi { $0.little(0x180, UInt32(1 << 30)) }),
            ("map outside", "outside", DiskImages.vdi { $0.little(0x154, UInt32(1 << 30)) }),
            ("blocks of 1 byte", "block size", DiskImages.vdi { $0.little(0x178, UInt32(1)) }),
            ("version", "version", DiskImages.vdi { $0.little(0x44, UInt32(7)) }),
        ]
        return list.map { image("vdi: " + $0.0, "vdi", $0.1, $0.2) }
    }

    // MARK: not what they are declared to be

    private static func disguised(_ canary: String) -> [HostileImage] {
        let fixed = DiskImages.fixedVHD()
        var result = [
            image("raw: qcow2", "raw", "content is", qcow2WithBacking(canary)),
            image("raw: VMDK descriptor", "raw", "content is", DiskImages.raw(descriptor(flat: canary))),
            image(
                "raw: VMDK descriptor without its first line", "raw", "content is",
                DiskImages.raw("x=1\n" + descriptor(flat: canary).dropFirst(22))),
            image("raw: what QEMU's probe takes for VMDK", "raw", "content is", DiskImages.raw("#\n# x\n  \r\nversion=1\n")),
            image("raw: VMDK", "raw", "content is", DiskImages.vmdk()),
            image("raw: VDI", "raw", "content is", DiskImages.vdi()),
            image("raw: fixed VHD", "raw", "content is", fixed),
            image("raw: ISO and qcow2", "raw", "content is", DiskImages.iso { $0.put(0, Array(qcow2WithBacking(canary).prefix(1200))) }),
            image("iso: qcow2", "iso", "content is", DiskImages.iso { $0.put(0, Array(qcow2WithDataFile(canary).prefix(1200))) }),
            image("iso: VMDK descriptor", "iso", "content is", DiskImages.iso { $0.text(0, descriptor(flat: canary)) }),
            image("qcow2 and VDI", "qcow2", "signatures", DiskImages.qcow2 { $0.put(0x40, [0x7f, 0x10, 0xda, 0xbe]) }),
            image("qcow2 and fixed VHD", "qcow2", "signatures", DiskImages.qcow2() + DiskImages.vhdFooter(kind: 2)),
            image("aki: qcow2", "aki", "content is", qcow2WithBacking(canary)),
        ]
        result += partitioned(canary)
        for declared in ["vmdk", "vdi", "vhd", "iso"] {
            result.append(image("\(declared): qcow2 with a data file", declared, "content is", qcow2WithDataFile(canary)))
        }
        return result
    }

    /// Disks with a partition table (MBR, GPT) that another reader takes for an image.
    private static func partitioned(_ canary: String) -> [HostileImage] {
        func table(_ bytes: [UInt8]) -> [UInt8] {
            var image = DiskImages.Bytes(bytes)
            image.put(510, [0x55, 0xaa])
            image.text(512, "EFI PART")
            return image.bytes
        }
        let plain = [UInt8](repeating: 0, count: 1 << 20)
        var vdi = DiskImages.Bytes(table(plain))
        vdi.put(0x40, [0x7f, 0x10, 0xda, 0xbe])
        return [
            image("raw: GPT and qcow2", "raw", "content is", table(qcow2WithBacking(canary))),
            image("raw: GPT and qcow2 with a data file", "raw", "content is", table(qcow2WithDataFile(canary))),
            image("raw: MBR and VMDK descriptor", "raw", "content is", table(DiskImages.raw(descriptor(flat: canary)))),
            image("raw: GPT and VMDK", "raw", "content is", table(DiskImages.vmdk())),
            image("raw: GPT and VDI", "raw", "content is", vdi.bytes),
            image("raw: GPT and fixed VHD", "raw", "content is", table(DiskImages.fixedVHD())),
            image("raw: GPT and QED", "raw", "content is", table(DiskImages.raw("QED\u{0}"))),
            image("raw: GPT and VHDX", "raw", "content is", table(DiskImages.raw("vhdxfile"))),
            image("raw: GPT and LUKS", "raw", "content is", table([0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe, 0, 1] + plain)),
            image("raw: GPT and DMG", "raw", "content is", table(plain) + DiskImages.raw("koly", count: 512)),
            image("vmdk: GPT", "vmdk", "content is", table(plain)),
            image(
                "iso: MBR and qcow2", "iso", "content is", DiskImages.iso { $0.put(0, Array(table(qcow2WithBacking(canary)).prefix(1200))) }
            ),
        ]
    }

    private static func refusedFormats() -> [HostileImage] {
        let headers: [(String, String)] = [
            ("QED", "QED\u{0}"), ("parallels", "WithoutFreeSpace"), ("parallels 2", "WithouFreSpacExt"),
            ("bochs", "Bochs Virtual HD Image"), ("VHDX", "vhdxfile"),
            ("cloop", "#!/bin/" + "sh\n#V2.0 Format\nmodprobe cloop file=$0"),
        ]
        var result = headers.map { image("raw: " + $0.0, "raw", "content is", DiskImages.raw($0.1)) }
        let luks = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe, 0, 1] + [UInt8](repeating: 0, count: 4088)
        result.append(image("raw: LUKS", "raw", "content is", luks))
        result.append(image("raw: DMG", "raw", "content is", [UInt8](repeating: 7, count: 4096) + DiskImages.raw("koly", count: 512)))
        result.append(image("vhdx", "vhdx", "not accepted", DiskImages.raw("vhdxfile")))
        return result
    }
}
