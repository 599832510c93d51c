/// Reads qcow2 headers as QEMU's `block/qcow2.c` does (specification: QEMU's `docs/interop/qcow2.txt`).
enum Qcow2Reader {
    /// Supported incompatible features: dirty, compression type, extended L2 entries.
    private static let featuresAccepted: UInt64 = 0b1_1001
    private static let activeTableMax: UInt64 = 32 << 20
    private static let refcountTableMax: UInt64 = 8 << 20

    private enum Extension {
        static let end: UInt32 = 0
        static let featureNames: UInt32 = 0x6803_f857
        static let bitmaps: UInt32 = 0x2385_2875
        static let backingFormat: UInt32 = 0xe279_2aca
        static let dataFile: UInt32 = 0x4441_5441
        static let encryption: UInt32 = 0x0537_be77
    }

    static func virtualSize(_ data: Excerpt) throws(ImageRefusal) -> Int {
        let head = data.head
        guard let version = head.big32(4), let backing = head.big64(8), let clusterBits = head.big32(20),
            let size = head.big64(24), let encryption = head.big32(32), let snapshots = head.big32(60)
        else { throw ImageRefusal("the qcow2 header is truncated") }
        guard version == 2 || version == 3 else { throw ImageRefusal("qcow2 version \(version) is unknown") }
        guard backing == 0 else { throw ImageRefusal("the qcow2 image has a backing file") }
        guard encryption == 0 else { throw ImageRefusal("the qcow2 image is encrypted") }
        guard (9...21).contains(clusterBits) else {
            throw ImageRefusal("the qcow2 image's cluster size of 2^\(clusterBits) bytes is outside 2^9 to 2^21")
        }
        guard snapshots == 0 else { throw ImageRefusal("the qcow2 image has internal snapshots; remove them first") }
        let virtualSize = try Excerpt.checked(size, "qcow2")
        guard virtualSize % 512 == 0 else { throw ImageRefusal("the qcow2 image's size is not a multiple of 512") }
        let cluster = 1 << Int(clusterBits)
        let hasSubclusters = version == 3 ? try features(head, cluster) : false
        try tables(data, virtualSize, cluster, hasSubclusters)
        try extensions(head, from: version == 3 ? Int(head.big32(100) ?? 0) : 72, to: cluster)
        return virtualSize
    }

    /// - Returns: whether L2 entries are extended.
    private static func features(_ head: ByteView, _ cluster: Int) throws(ImageRefusal) -> Bool {
        guard let incompatible = head.big64(72), let autoclear = head.big64(88), let refcountOrder = head.big32(96),
            let length = head.big32(100)
        else { throw ImageRefusal("the qcow2 header is truncated") }
        guard incompatible & 0b100 == 0, autoclear & 0b10 == 0 else {
            throw ImageRefusal("the qcow2 image has an external data file")
        }
        guard incompatible & 0b10 == 0 else { throw ImageRefusal("the qcow2 image is marked as corrupt") }
        guard incompatible & ~featuresAccepted == 0 else { throw ImageRefusal("the qcow2 image uses unknown features") }
        guard autoclear & ~0b11 == 0 else { throw ImageRefusal("the qcow2 image uses unknown features") }
        guard refcountOrder <= 6 else { throw ImageRefusal("the qcow2 image's reference counts are wider than 64 bits") }
        guard length >= 104, length <= UInt32(cluster), length % 8 == 0 else {
            throw ImageRefusal("the qcow2 header's length of \(length) bytes is not supported")
        }
        let compression = length > 104 ? head.byte(104) : 0
        guard compression == (incompatible & 0b1000 == 0 ? 0 : 1) else {
            throw ImageRefusal("the qcow2 image's compression type is unknown")
        }
        let hasSubclusters = incompatible & 0b1_0000 != 0
        guard !hasSubclusters || cluster >= 1 << 14 else {
            throw ImageRefusal("the qcow2 image's clusters are too small for subclusters")
        }
        return hasSubclusters
    }

    private static func tables(
        _ data: Excerpt, _ virtualSize: Int, _ cluster: Int, _ hasSubclusters: Bool
    ) throws(ImageRefusal) {
        guard let entries = data.head.big32(36), let active = data.head.big64(40), let refcounts = data.head.big64(48),
            let refcountClusters = data.head.big32(56)
        else { throw ImageRefusal("the qcow2 header is truncated") }
        let activeBytes = UInt64(entries) * 8
        let perEntry = cluster / (hasSubclusters ? 16 : 8) * cluster
        guard activeBytes <= activeTableMax, Int(entries) >= (virtualSize + perEntry - 1) / perEntry else {
            throw ImageRefusal("the qcow2 image's table of \(entries) entries does not match its size")
        }
        let refcountBytes = UInt64(refcountClusters) * UInt64(cluster)
        guard refcountClusters > 0, refcountBytes <= refcountTableMax else {
            throw ImageRefusal("the qcow2 image's reference count table of \(refcountClusters) clusters is not supported")
        }
        guard active % UInt64(cluster) == 0, refcounts % UInt64(cluster) == 0, refcounts > 0 else {
            throw ImageRefusal("the qcow2 image's tables are not aligned")
        }
        try data.require("qcow2 image's table", at: active, bytes: activeBytes)
        try data.require("qcow2 image's reference count table", at: refcounts, bytes: refcountBytes)
    }

    private static func extensions(_ head: ByteView, from start: Int, to end: Int) throws(ImageRefusal) {
        var offset = start
        while offset < end {
            guard let kind = head.big32(offset), let count = head.big32(offset + 4), Int(count) <= end - offset - 8 else {
                throw ImageRefusal("the qcow2 header extensions are truncated")
            }
            switch kind {
            case Extension.end: return
            case Extension.featureNames, Extension.bitmaps: break
            case Extension.dataFile: throw ImageRefusal("the qcow2 image refers to an external data file")
            case Extension.backingFormat: throw ImageRefusal("the qcow2 image refers to a backing format")
            case Extension.encryption: throw ImageRefusal("the qcow2 image is encrypted")
            default:
                throw ImageRefusal("the qcow2 image has an unknown header extension 0x\(String(kind, radix: 16))")
            }
            offset += 8 + (Int(count) + 7) / 8 * 8
        }
    }
}
