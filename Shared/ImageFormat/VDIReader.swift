/// Reads VDI headers as QEMU's `block/vdi.c` does.
enum VDIReader {
    private static let blockBytes: UInt64 = 1 << 20

    static func virtualSize(_ data: Excerpt) throws(ImageRefusal) -> Int {
        let head = data.head
        guard let version = head.little32(0x44), let kind = head.little32(0x4c), let map = head.little32(0x154),
            let start = head.little32(0x158), let sector = head.little32(0x168), let size = head.little64(0x170),
            let block = head.little32(0x178), let blocks = head.little32(0x180), head.slice(0, 512) != nil
        else { throw ImageRefusal("the VDI header is truncated") }
        guard version == 0x1_0001 else { throw ImageRefusal("the VDI image's version is unknown") }
        guard kind == 1 || kind == 2 else { throw ImageRefusal("a VDI image must be dynamic or fixed, without a parent") }
        // The UUIDs of the linked image and of the parent image.
        guard head.isZero(0x1a8, 32) else { throw ImageRefusal("the VDI image has a parent") }
        guard sector == 512, UInt64(block) == blockBytes, map % 512 == 0, start % 512 == 0 else {
            throw ImageRefusal("the VDI image's block size or alignment is not supported")
        }
        _ = try Excerpt.checked(size, "VDI")
        // Rounded in the same way as in QEMU.
        let rounded = (size + 511) / 512 * 512
        guard (rounded + blockBytes - 1) / blockBytes == UInt64(blocks) else {
            throw ImageRefusal("the VDI image's size of \(size) bytes does not agree with its \(blocks) blocks")
        }
        try data.require("VDI image's block map", at: UInt64(map), bytes: UInt64(blocks) * 4)
        return try Excerpt.checked(rounded, "VDI")
    }
}
