import ImageFormat
import Kernel
import TestKit
import Testing

@Suite struct ImageHeaderTests {
    private func inspect(_ bytes: [UInt8], _ declared: String) throws -> ImageHeader {
        try ImageHeader.inspect(
            prefix: Array(bytes.prefix(ImageHeader.prefixLength)), tail: Array(bytes.suffix(ImageHeader.tailLength)),
            size: bytes.count, declared: declared)
    }

    @Test func soundImagesPass() throws {
        #expect(try inspect([1, 2, 3], "raw") == ImageHeader(content: .raw, virtualSize: 3))
        #expect(try inspect([], "raw").virtualSize == 0)
        #expect(try inspect(DiskImages.iso(), "iso") == ImageHeader(content: .iso, virtualSize: 40960))
        #expect(try inspect(DiskImages.iso(), "raw") == ImageHeader(content: .raw, virtualSize: 40960))
        #expect(try inspect(DiskImages.qcow2(size: 5 << 30), "qcow2").virtualSize == 5 << 30)
        #expect(try inspect(DiskImages.qcow2(version: 2), "qcow2").virtualSize == 1 << 20)
        #expect(try inspect(DiskImages.qcow2(headerLength: 104), "qcow2").virtualSize == 1 << 20)
        let named = DiskImages.qcow2 { $0.put(112, DiskImages.qcow2Extension(0x6803_f857, "dirty bit")) }
        #expect(try inspect(named, "qcow2").virtualSize == 1 << 20)
        #expect(try inspect(DiskImages.vmdk(), "vmdk").virtualSize == 10 << 20)
        #expect(try inspect(DiskImages.streamOptimizedVMDK(), "vmdk").virtualSize == 10 << 20)
        #expect(try inspect(DiskImages.vdi(), "vdi").virtualSize == 10 << 20)
        #expect(try inspect(DiskImages.vhd(), "vhd").virtualSize == 10 << 20)
        #expect(try inspect(DiskImages.fixedVHD(), "vhd").virtualSize == 65536)
    }

    @Test func theGeometryCountsWhereQEMUBelievesIt() throws {
        // 301 cylinders of 4 heads and 17 sectors are 10 479 616 bytes, 6 144 less than the size field says.
        let image = DiskImages.vhd(footer: DiskImages.vhdFooter(creator: "vpc "))
        #expect(try inspect(image, "vhd").virtualSize == 301 * 4 * 17 * 512)
    }

    @Test(
        "S1 S3: every image of the corpus is refused, for the reason that is meant", arguments: HostileImages.corpus(canary: "/etc/canary"))
    func s1_hostileImagesAreRefused(_ image: HostileImage) throws {
        let refusal = #expect(throws: ImageRefusal.self) { try inspect(image.bytes, image.declared) }
        #expect(refusal?.reason.contains(image.reason) ?? false, "\(refusal?.reason ?? "")")
    }

    @Test("S1: images that refer to other files are refused for every disk_format")
    func s1_hostileImagesAreRefusedForEveryDeclaredFormat() {
        // Images that are only declared with the wrong format may be valid for their own.
        for image in HostileImages.corpus(canary: "/etc/canary") where image.reason != "content is" {
            for declared in ["qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "raw", "ami", "ari", "aki", "ploop", ""] {
                #expect(throws: ImageRefusal.self, "\(image) as \(declared)") { try inspect(image.bytes, declared) }
            }
        }
    }

    @Test func contentMustMatchTheDeclaredFormat() {
        let sound: [(String, [UInt8])] = [
            ("qcow2", DiskImages.qcow2()), ("vmdk", DiskImages.vmdk()), ("vdi", DiskImages.vdi()), ("vhd", DiskImages.vhd()),
            ("vhd", DiskImages.fixedVHD()), ("raw", [UInt8](repeating: 7, count: 1024)),
        ]
        for (format, bytes) in sound {
            for declared in ["raw", "qcow2", "vmdk", "vdi", "vhd", "iso"] where declared != format {
                #expect(throws: ImageRefusal.self, "\(format) as \(declared)") { try inspect(bytes, declared) }
            }
        }
    }

    @Test func theBeginningIsEnoughForAnEarlyRefusal() throws {
        func early(_ bytes: [UInt8], _ declared: String) throws {
            _ = try ImageHeader.inspect(prefix: bytes, tail: nil, size: nil, declared: declared)
        }
        #expect(throws: ImageRefusal.self) { try early(HostileImages.qcow2WithBacking("/x"), "qcow2") }
        #expect(throws: ImageRefusal.self) { try early(HostileImages.vmdkWithParent("/x"), "vmdk") }
        try early(DiskImages.qcow2(), "qcow2")
        try early(DiskImages.streamOptimizedVMDK(), "vmdk")
        try early(DiskImages.vhd(), "vhd")
        try early(DiskImages.fixedVHD(), "vhd")
    }

    @Test func randomBytesNeverCrash() {
        let random = SeededRandom(seed: 3)
        let seeds = [
            DiskImages.qcow2(), DiskImages.vmdk(), DiskImages.streamOptimizedVMDK(), DiskImages.vdi(), DiskImages.vhd(),
            DiskImages.fixedVHD(),
        ]
        for round in 0..<300 {
            var bytes = seeds[round % seeds.count]
            for _ in 0..<8 { bytes[random.below(min(bytes.count, 1100))] = UInt8(truncatingIfNeeded: random.next()) }
            if round % 3 == 0 { bytes = Array(bytes.prefix(random.below(1500))) }
            for declared in ["raw", "qcow2", "vmdk", "vdi", "vhd"] { _ = try? inspect(bytes, declared) }
        }
    }
}
