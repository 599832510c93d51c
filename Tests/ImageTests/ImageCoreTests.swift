import ImageCore
import ImageFormat
import JSON
import Testing

@Suite struct ImageHeaderTests {
    private func inspect(_ bytes: [UInt8], _ declared: DiskFormat) throws -> ImageHeader {
        try ImageHeader.inspect(prefix: bytes, tail: Array(bytes.suffix(512)), size: bytes.count, declared: declared)
    }

    @Test func plainFormatsPass() throws {
        #expect(try inspect([1, 2, 3], .raw).virtualSize == 3)
        #expect(try inspect(Qcow2.header(size: 5 << 30), .qcow2).virtualSize == 5 << 30)
        #expect(try inspect(Qcow2.header(version: 2), .qcow2).virtualSize == 1 << 20)
        #expect(try inspect([], .raw).virtualSize == 0)
    }

    private static let dangerous: [[UInt8]] = [
        Qcow2.header(backing: 512), Qcow2.header(version: 2, backing: 512), Qcow2.header(incompatible: 4),
        Qcow2.header(incompatible: 1 << 5), Qcow2.header(version: 4), Qcow2.header(size: 0),
        Qcow2.header(size: UInt64.max), Array(Qcow2.header().prefix(60)), Array(Qcow2.header().prefix(104)),
        Qcow2.header(extensions: [0x44, 0x41, 0x54, 0x41, 0, 0, 0, 1, 0x2f, 0, 0, 0, 0, 0, 0, 0]),
        Qcow2.header(extensions: [0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 1, 0x2f, 0, 0, 0, 0, 0, 0, 0]),
        Qcow2.header(extensions: [0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff]), Array("# Disk DescriptorFile".utf8),
    ]

    @Test func dangerousContentIsRefused() {
        for (index, bytes) in ImageHeaderTests.dangerous.enumerated() {
            for declared in DiskFormat.allCases where declared != .iso {
                #expect(throws: ImageRefusal.self, "content \(index) as \(declared)") { try inspect(bytes, declared) }
            }
        }
    }

    @Test func contentMustBeWhatWasDeclared() {
        for declared in DiskFormat.allCases where declared != .qcow2 {
            #expect(throws: ImageRefusal.self) { try inspect(Qcow2.header(), declared) }
        }
        for declared in [DiskFormat.qcow2, .vmdk, .vdi, .vhd, .vhdx, .iso] {
            #expect(throws: ImageRefusal.self) { try inspect(Array(repeating: 7, count: 1024), declared) }
        }
    }

    @Test func aFixedDiskOfVirtualPCHasItsMarkAtTheEnd() throws {
        var footer = Array("conectix".utf8) + Array(repeating: UInt8(0), count: 504)
        footer[55] = 9
        footer[63] = 2
        let bytes = Array(repeating: UInt8(0), count: 4096) + footer
        #expect(try inspect(bytes, .vhd).virtualSize == 9)
        footer[63] = 4
        #expect(throws: ImageRefusal.self) { try inspect(Array(repeating: 0, count: 4096) + footer, .vhd) }
    }
}

@Suite struct ImageRuleTests {
    @Test func rangesAreRead() throws {
        #expect(try ByteRange.parse("bytes=0-3", size: 10)?.range == 0..<4)
        #expect(try ByteRange.parse("bytes=4-", size: 10)?.range == 4..<10)
        #expect(try ByteRange.parse("bytes=-3", size: 10)?.range == 7..<10)
        #expect(try ByteRange.parse("bytes=5-99", size: 10)?.range == 5..<10)
        #expect(try ByteRange.parse("lines=1-2", size: 10) == nil)
        #expect(try ByteRange.parse("bytes=5-1", size: 10) == nil)
        #expect(throws: ByteRange.Unsatisfiable.self) { try ByteRange.parse("bytes=10-", size: 10) }
        #expect(throws: ByteRange.Unsatisfiable.self) { try ByteRange.parse("bytes=-5", size: 0) }
    }

    @Test func filtersAreRead() throws {
        #expect(try ImageFilter.list("in:a,\"b,c\"", name: "name") == .oneOf(["a", "b,c"]))
        #expect(try ImageFilter.list("plain", name: "name") == .equals("plain"))
        #expect(throws: (any Error).self) { try ImageFilter.list("in:\"a", name: "name") }
        #expect(throws: (any Error).self) { try ImageFilter.time("gt:yesterday", name: "created_at") }
    }

    @Test func everyStateHasAWayOut() {
        for state in ImageStatus.allCases {
            #expect(ImageStatus.transitions.contains { $0.from == state && $0.to != state })
        }
        #expect(ImageStatus.queued.after(.deactivate) == nil)
        #expect(ImageStatus.active.after(.upload) == nil)
    }
}
