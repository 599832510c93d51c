import Commands
import Foundation
import Glibc
import ImageFormat
import Kernel
import TestKit
import Testing

@testable import DiskTool

/// Hostile images against each layer separately: what QEMU does without protection, what explicit drivers prevent, what the
/// sandbox prevents, and what the tool refuses if our own parser was deceived.
@Suite(.enabled(if: geteuid() == 0, "needs root"), .serialized) struct DiskToolTests {
    private static let secret = "CANARY-4711-\(SystemRandom().uuid().compact)"
    private static let megabytes10 = 10 << 20

    /// A directory with a canary, and hostile images that refer to it.
    private func withCanary(_ body: (borrowing DiskScratch, String) throws -> Void) throws {
        let scratch = try DiskScratch()
        let bytes = Array(DiskToolTests.secret.utf8)
        let canary = try scratch.file("canary", bytes + [UInt8](repeating: 0, count: 65536 - bytes.count))
        try body(scratch, canary)
    }

    private func leaks(_ path: String) throws -> Bool {
        guard let data = FileManager.default.contents(atPath: path) else { return false }
        return data.range(of: Data(DiskToolTests.secret.utf8)) != nil
    }

    /// References that QEMU follows if nothing prevents it: name, driver and image.
    private func attacks(_ scratch: borrowing DiskScratch, _ canary: String) throws -> [(String, DiskDriver, String)] {
        let flat = try scratch.file(
            "flat", DiskImages.raw(HostileImages.descriptor(flat: canary, sectors: 128)))
        return [
            ("backing file", .qcow2, try scratch.file("backing", withFormat(HostileImages.qcow2WithBacking(canary)))),
            ("data file", .qcow2, try scratch.file("data", dataFile(canary))),
            ("extent", .vmdk, flat),
            ("parent in a comment, and its extent", .vmdk, try scratch.file("parent", HostileImages.vmdkWithParent(flat))),
        ]
    }

    private func withFormat(_ image: [UInt8]) -> [UInt8] {
        var bytes = DiskImages.Bytes(image)
        bytes.put(112, DiskImages.qcow2Extension(0xe279_2aca, "raw"))
        return bytes.bytes
    }

    /// A qcow2 disk whose first cluster is the canary's.
    private func dataFile(_ canary: String) -> [UInt8] {
        var image = DiskImages.Bytes(HostileImages.qcow2WithDataFile(canary) + [UInt8](repeating: 0, count: 65536))
        image.big(3 * 65536, UInt64(4 * 65536) | 1 << 63)
        image.big(4 * 65536, UInt64(1) << 63)
        image.big(2 * 65536 + 8, UInt16(1))
        return image.bytes
    }

    private func plainConvert(_ source: String, _ target: String, options: [String] = []) -> Bool {
        (try? Command(["qemu-img", "convert"] + options + ["-O", "raw", source, target]).run(timeout: .seconds(30))) != nil
    }

    @Test("S1: the attacks work on a bare qemu-img, so the other tests show something")
    func s1_theAttacksAreReal() throws {
        try withCanary { scratch, canary in
            for (name, driver, image) in try attacks(scratch, canary) {
                let out = scratch.path + "/out"
                #expect(plainConvert(image, out, options: ["-f", driver.rawValue]), "\(name)")
                #expect(try leaks(out), "\(name)")
                unlink(out)
            }
        }
    }

    @Test("S1: named drivers and an empty backing stop every reference below a disk, without a sandbox")
    func s1_namedDriversAlone() throws {
        try withCanary { scratch, canary in
            for (name, driver, image) in try attacks(scratch, canary) where !["data file", "extent"].contains(name) {
                let out = scratch.path + "/out"
                _ = plainConvert(DiskNode(driver: driver, path: image).filename, out)
                #expect(try !leaks(out), "\(name)")
                unlink(out)
            }
        }
    }

    @Test("S1: the sandbox stops every reference, without named drivers")
    func s1_sandboxAlone() throws {
        try withCanary { scratch, canary in
            for (name, driver, image) in try attacks(scratch, canary) {
                let out = try scratch.file("out")
                let command = try Sandbox().command(
                    ["/usr/bin/qemu-img", "convert", "-n", "-f", driver.rawValue, "-O", "raw", "/disk0", "/disk1"],
                    files: [.reading(image), .writing(out)], limits: Sandbox.Limits(fileSize: 1 << 30))
                #expect(throws: CommandError.self, "\(name)") { try command.run() }
                #expect(try !leaks(out), "\(name)")
                unlink(out)
            }
        }
    }

    @Test("S1: the tool refuses what our parser should have refused")
    func s1_toolWithADeceivedParser() throws {
        try withCanary { scratch, canary in
            for (name, driver, image) in try attacks(scratch, canary) {
                let size = driver == .qcow2 ? 1 << 20 : DiskToolTests.megabytes10
                let deceived = ForeignDisk(
                    path: image, driver: driver, header: ImageHeader(content: .qcow2, virtualSize: size))
                let out = scratch.path + "/out"
                _ = #expect(throws: (any Error).self, "\(name)") { try DiskTool(Sandbox()).convert(deceived, to: out, .raw, size: size) }
                #expect(try !leaks(out), "\(name)")
                unlink(out)
            }
        }
    }

    @Test("S2: what a guest writes on a raw disk is copied as bytes")
    func s2_guestsHeadersAreBytes() throws {
        try withCanary { scratch, canary in
            for (name, _, image) in try attacks(scratch, canary) {
                let bytes = try #require(FileManager.default.contents(atPath: image))
                let out = scratch.path + "/out"
                try DiskTool(Sandbox()).copy(DiskSource(path: image, driver: .raw), to: out, .raw, size: 1 << 20)
                #expect(FileManager.default.contents(atPath: out)?.prefix(bytes.count) == bytes, "\(name)")
                try DiskTool(Sandbox()).resize(DiskSource(path: out, driver: .raw), to: 2 << 20)
                #expect(FileManager.default.contents(atPath: out)?.prefix(bytes.count) == bytes, "\(name)")
                unlink(out)
            }
        }
    }

    @Test("S3: a size that is unknown, larger than asked for, or not what the parser found is refused")
    func s3_sizes() throws {
        let scratch = try DiskScratch()
        let image = try scratch.file("image", DiskImages.qcow2(size: 20 << 30))
        let sound = try ForeignDisk(path: image, declared: "qcow2")
        let tool = DiskTool(Sandbox())
        #expect(try tool.measure(sound, largest: 20 << 30) == 20 << 30)
        func refused(_ virtualSize: Int?, _ largest: Int) -> String {
            let disk = ForeignDisk(path: image, driver: .qcow2, header: ImageHeader(content: .qcow2, virtualSize: virtualSize))
            return #expect(throws: ImageRefusal.self) { try tool.measure(disk, largest: largest) }?.reason ?? ""
        }
        #expect(refused(20 << 30, 1 << 30).contains("more than the requested 1073741824"))
        #expect(refused(1 << 30, 20 << 30).contains("header says 1073741824 bytes"))
        #expect(refused(nil, 20 << 30).contains("unknown"))
        let target = scratch.path + "/out"
        #expect(throws: ImageRefusal.self) { try tool.convert(sound, to: target, .raw, size: 1 << 30) }
        #expect(!FileManager.default.fileExists(atPath: target))
    }

    @Test("S3: a disk cannot outgrow what is asked for, whatever its tables say")
    func s3_fileSizeLimit() throws {
        let scratch = try DiskScratch()
        let target = try scratch.file("out")
        let image = try scratch.file("image", [UInt8](repeating: 1, count: 1 << 20))
        let command = try Sandbox().command(
            ["/usr/bin/qemu-img", "convert", "-f", "raw", "-O", "raw", "/disk0", "/disk1"],
            files: [.reading(image), .writing(target)], limits: Sandbox.Limits(fileSize: 500_000))
        #expect(throws: CommandError.self) { try command.run() }
        #expect(try FileManager.default.attributesOfItem(atPath: target)[.size] as? Int ?? .max <= 500_000)
    }

    @Test("S3: an image whose tables name one cluster many times becomes no larger than it may, in any format")
    func s3_expandingTables() throws {
        let scratch = try DiskScratch()
        let tool = DiskTool(Sandbox())
        let bomb = try ForeignDisk(path: try scratch.file("bomb", DiskImages.expandingQcow2(mebibytes: 256)), declared: "qcow2")
        #expect(try tool.measure(bomb, largest: 256 << 20) == 256 << 20)
        for format in [DiskDriver.raw, .qcow2] {
            let target = scratch.path + "/out-\(format)"
            #expect(throws: DiskTooLarge.self, "\(format)") {
                try tool.convert(bomb, to: target, format, size: 256 << 20, bytesMax: 8 << 20)
            }
            var status = stat()
            #expect(stat(target, &status) == 0 && Int(status.st_blocks) * 512 <= 9 << 20, "\(format): \(Int(status.st_blocks) * 512)")
        }
        let whole = scratch.path + "/whole"
        try tool.convert(bomb, to: whole, .qcow2, size: 256 << 20, bytesMax: 1 << 30)
        #expect(try tool.measure(try ForeignDisk(path: whole, declared: "qcow2"), largest: 256 << 20) == 256 << 20)
    }

    @Test("S5: a new disk reads as zeros, and is no file that was there before")
    func s5_newDisksAreEmpty() throws {
        let scratch = try DiskScratch()
        let tool = DiskTool(Sandbox())
        let left = try scratch.file("left", [UInt8](repeating: 0x5a, count: 1 << 20))
        for format in [DiskDriver.raw, .qcow2] {
            #expect(throws: FileError.self, "\(format)") { try tool.create(left, format, size: 1 << 20) }
        }
        // A disk that is larger than its source ends in zeros.
        let source = try scratch.file("source", [UInt8](repeating: 0x11, count: 4096))
        let copy = scratch.path + "/copy"
        try tool.copy(DiskSource(path: source, driver: .raw), to: copy, .raw, size: 1 << 20)
        let bytes = try #require(FileManager.default.contents(atPath: copy))
        #expect(bytes.count == 1 << 20 && bytes.dropFirst(4096).allSatisfy { $0 == 0 })
    }

    @Test func soundImagesOfAllFormatsBecomeDisks() throws {
        let scratch = try DiskScratch()
        let images: [(String, [UInt8])] = [
            ("qcow2", DiskImages.qcow2()), ("qcow2", DiskImages.qcow2(version: 2)), ("vmdk", DiskImages.vmdk()),
            ("vmdk", DiskImages.streamOptimizedVMDK()), ("vdi", DiskImages.vdi()), ("vhd", DiskImages.vhd()),
            ("vhd", DiskImages.vhd(footer: DiskImages.vhdFooter(creator: "vpc "))), ("vhd", DiskImages.fixedVHD()),
            ("raw", Array("some text".utf8)), ("raw", []), ("iso", DiskImages.iso()),
        ]
        for (index, (format, bytes)) in images.enumerated() {
            let source = try scratch.file("source\(index)", bytes)
            let disk = try ForeignDisk(path: source, declared: format)
            for (driver, size) in [(DiskDriver.raw, 64 << 20), (.qcow2, 64 << 20)] {
                let target = scratch.path + "/\(index).\(driver.rawValue)"
                try DiskTool(Sandbox()).convert(disk, to: target, driver, size: size)
                #expect(scratch.mode(target) == 0o600 && scratch.mode(source) == 0o600)
                let creation = try ForeignDisk(path: target, declared: driver.rawValue)
                #expect(creation.header.virtualSize == size, "\(index) \(format)")
            }
        }
    }

    /// Data is unchanged after conversion through each format that qemu-img can write.
    @Test func imagesOfTheToolItself() throws {
        let scratch = try DiskScratch()
        let random = SeededRandom(seed: 5)
        let data = (0..<(3 << 20)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        let raw = try scratch.file("raw", data)
        let kinds: [(String, [String])] = [
            ("qcow2", ["-O", "qcow2"]), ("qcow2", ["-O", "qcow2", "-c"]), ("qcow2", ["-O", "qcow2", "-c", "-o", "compression_type=zstd"]),
            ("qcow2", ["-O", "qcow2", "-o", "extended_l2=on"]), ("qcow2", ["-O", "qcow2", "-o", "cluster_size=512"]),
            ("qcow2", ["-O", "qcow2", "-o", "cluster_size=2M"]), ("qcow2", ["-O", "qcow2", "-o", "compat=0.10"]),
            ("vmdk", ["-O", "vmdk"]), ("vmdk", ["-O", "vmdk", "-o", "subformat=streamOptimized"]), ("vdi", ["-O", "vdi"]),
            ("vdi", ["-O", "vdi", "-o", "static=on"]), ("vhd", ["-O", "vpc"]), ("vhd", ["-O", "vpc", "-o", "subformat=fixed"]),
            ("vhd", ["-O", "vpc", "-o", "force_size=on"]),
        ]
        for (index, (format, options)) in kinds.enumerated() {
            let image = scratch.path + "/image\(index)"
            _ = try Command(["qemu-img", "convert", "-f", "raw"] + options + [raw, image]).run()
            let out = scratch.path + "/out\(index)"
            try DiskTool(Sandbox()).convert(try ForeignDisk(path: image, declared: format), to: out, .raw, size: 8 << 20)
            #expect(FileManager.default.contents(atPath: out)?.prefix(data.count) == Data(data), "\(options)")
            for file in [image, out] { unlink(file) }
        }
    }

    @Test func ownDisksAreCopiedAndGrow() throws {
        let scratch = try DiskScratch()
        let tool = DiskTool(Sandbox())
        let base = try scratch.file("base", Array("base".utf8) + [UInt8](repeating: 0, count: 508))
        let overlay = scratch.path + "/overlay"
        try tool.create(overlay, .qcow2, size: 1 << 20, backing: DiskSource(path: base, driver: .raw))
        let info = try Command(["qemu-img", "info", overlay]).run()
        #expect(info.contains("backing file: \(base)") && info.contains("backing file format: raw"))
        let own = scratch.path + "/own"
        try tool.create(own, .qcow2, size: 1 << 20)
        try tool.resize(DiskSource(path: own, driver: .qcow2), to: 3 << 20)
        #expect(try ForeignDisk(path: own, declared: "qcow2").header.virtualSize == 3 << 20)
        try tool.copy(DiskSource(path: own, driver: .qcow2), to: scratch.path + "/copy", .raw, size: 4 << 20)
        #expect(try ForeignDisk(path: scratch.path + "/copy", declared: "raw").header.virtualSize == 4 << 20)
        tool.cancel()
        #expect(throws: CancellationError.self) { try tool.resize(DiskSource(path: own, driver: .qcow2), to: 5 << 20) }
    }
}
