import Kernel
import Testing

@testable import ComputeAgentCore
import ImageFormat

@Suite struct ImageHeaderTests {
    private func qcow2(_ change: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        bytes.replaceSubrange(0..<8, with: [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3])
        bytes[28] = 0x40  // 1 GiB
        bytes[103] = 104
        change(&bytes)
        return bytes
    }

    @Test func soundImages() throws {
        let header = try ImageHeader.inspect(prefix: qcow2(), fileSize: 65536, declared: "qcow2")
        #expect(header == ImageHeader(content: .qcow2, virtualSize: 1 << 30))
        #expect(try ImageHeader.inspect(prefix: [1, 2, 3], fileSize: 3, declared: "raw").virtualSize == 3)
    }

    @Test func imagesThatNameOtherFiles() {
        let changes: [(inout [UInt8]) -> Void] = [
            { $0[15] = 1 },  // backing file
            { $0[79] = 4 },  // external data file
            { $0[72] = 1 },  // unknown feature
            { $0.replaceSubrange(104..<112, with: [0x44, 0x41, 0x54, 0x41, 0, 0, 0, 8]) },
            { $0.replaceSubrange(104..<112, with: [0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 8]) },
            { $0[35] = 1 },  // encrypted
            { $0[7] = 9 },
            { $0 = Array($0.prefix(60)) },
        ]
        for change in changes {
            let bytes = qcow2(change)
            #expect(throws: ImageRefusal.self) {
                try ImageHeader.inspect(prefix: bytes, fileSize: 65536, declared: "qcow2")
            }
        }
    }

    @Test func contentMustBeWhatIsDeclared() {
        #expect(throws: ImageRefusal.self) {
            try ImageHeader.inspect(prefix: qcow2(), fileSize: 65536, declared: "raw")
        }
        #expect(throws: ImageRefusal.self) { try ImageHeader.inspect(prefix: [0], fileSize: 1, declared: "qcow2") }
        #expect(throws: ImageRefusal.self) { try ImageHeader.inspect(prefix: [0], fileSize: 1, declared: "ami") }
        let descriptor = Array("# Disk DescriptorFile\nRW 1 FLAT \"/etc/passwd\" 0\n".utf8)
        #expect(throws: ImageRefusal.self) {
            try ImageHeader.inspect(prefix: descriptor, fileSize: descriptor.count, declared: "vmdk")
        }
    }

    @Test func randomBytesNeverCrash() {
        let random = SeededRandom(seed: 3)
        for round in 0..<300 {
            var bytes = qcow2()
            for _ in 0..<8 { bytes[random.below(256)] = UInt8(truncatingIfNeeded: random.next()) }
            if round % 3 == 0 { bytes = Array(bytes.prefix(random.below(200))) }
            for format in ImageHeader.Content.allCases {
                _ = try? ImageHeader.inspect(prefix: bytes, fileSize: bytes.count, declared: format.rawValue)
            }
        }
    }

    @Test func disksSayWhatTheyLieOn() {
        let name = Array("/images/a.raw".utf8)
        let disk = qcow2 { bytes in
            (bytes[14], bytes[15], bytes[19]) = (1, 0, UInt8(name.count))
            bytes.replaceSubrange(256..<(256 + name.count), with: name)
        }
        #expect(OwnDisk.backingFile(prefix: disk) == "/images/a.raw")
        #expect(OwnDisk.backingFile(prefix: qcow2()) == nil)
        #expect(OwnDisk.backingFile(prefix: qcow2 { $0[8] = 0xff }) == nil)
    }

    @Test func theProbeIsOneFirmwareImage() {
        #expect(KVMProbe.rom.count == 65536)
        #expect(KVMProbe.rom[0] == 0xfa)
        #expect(KVMProbe.expectedExitCode == 85)
    }
}
