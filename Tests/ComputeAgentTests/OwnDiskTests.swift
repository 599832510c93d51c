import Kernel
import Testing

@testable import ComputeAgentCore

@Suite struct OwnDiskTests {
    private func qcow2(_ change: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        bytes.replaceSubrange(0..<8, with: [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3])
        bytes[28] = 0x40  // 1 GiB
        bytes[103] = 104
        change(&bytes)
        return bytes
    }

    @Test func backingFilesAreReadFromDisks() {
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
