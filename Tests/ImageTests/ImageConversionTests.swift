import Commands
import Foundation
import Glibc
import ImageCore
import ImageService
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import WebAPI
import Workflow

/// Conversion of imported images to the cloud's format.
@Suite(.enabled(if: geteuid() == 0, "needs root"), .serialized) struct ImageConversionTests {
    private static func limits(to format: DiskFormat, bytes: Int = 1 << 30) -> ImageServiceLimits {
        ImageServiceLimits(uploadBytesMax: bytes, converter: ImageConverter(to: format, in: RecordedTools.shared.sandbox))
    }

    private static func imported(_ cloud: ImageFixture, _ format: String, _ bytes: [UInt8]) async throws -> String {
        let id = try await cloud.create(["disk_format": .string(format), "container_format": "bare"])
        #expect(try await cloud.stage(id, bytes).status == 204)
        #expect(try await cloud.beginImport(id).status == 202)
        try await cloud.settle()
        #expect(RecordedTools.shared.newProblems() == [], "S2: disks are opened without a format")
        return id
    }

    private static func used(_ cloud: ImageFixture) async throws -> Int? {
        try await cloud.call("GET", "/v2/info/usage")["usage"]?["image_size_total"]?["usage"]?.intValue
    }

    @Test func importsAreConvertedToRaw() async throws {
        try await ImageFixture.with(limits: ImageConversionTests.limits(to: .raw)) { cloud in
            for (format, bytes, size) in [
                ("qcow2", DiskImages.qcow2(), 1 << 20), ("vmdk", DiskImages.vmdk(), 10 << 20), ("vdi", DiskImages.vdi(), 10 << 20),
                ("vhd", DiskImages.vhd(), 10 << 20), ("qcow2", GzipSample.stored(DiskImages.qcow2()), 1 << 20),
            ] {
                let id = try await ImageConversionTests.imported(cloud, format, bytes)
                let image = try await cloud.call("GET", "/v2/images/\(id)")
                let task = try await cloud.task(id)
                #expect(image["status"] == "active" && image["disk_format"] == "raw", "\(format): \(task)")
                #expect(image["size"]?.intValue == size && image["virtual_size"]?.intValue == size, "\(format)")
                let data = try await cloud.call("GET", "/v2/images/\(id)/file")
                #expect(data.bytes.count == size && data.bytes.allSatisfy { $0 == 0 }, "\(format)")
                #expect(cloud.stored.count == 1, "\(format): \(cloud.stored)")
                #expect(try await ImageConversionTests.used(cloud) == size >> 20)
                #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204)
                #expect(cloud.stored.isEmpty)
            }
            // Images that already have the format, and data that is not a disk.
            for (format, bytes) in [("raw", [UInt8](repeating: 7, count: 1000)), ("iso", DiskImages.iso())] {
                let id = try await ImageConversionTests.imported(cloud, format, bytes)
                #expect(try await cloud.call("GET", "/v2/images/\(id)")["disk_format"] == .string(format))
                #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes == bytes)
            }
        }
    }

    @Test func importsAreConvertedToQcow2() async throws {
        try await ImageFixture.with(limits: ImageConversionTests.limits(to: .qcow2)) { cloud in
            let id = try await ImageConversionTests.imported(cloud, "raw", [UInt8](repeating: 7, count: 1 << 20))
            let image = try await cloud.call("GET", "/v2/images/\(id)")
            #expect(image["disk_format"] == "qcow2" && image["virtual_size"]?.intValue == 1 << 20)
            #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes.starts(with: [0x51, 0x46, 0x49, 0xfb]))
        }
    }

    @Test("S3: a conversion ends at the limit of the size, and leaves nothing") func s3LargeDisksAreNotConverted() async throws {
        try await ImageFixture.with(limits: ImageConversionTests.limits(to: .raw, bytes: 8 << 20)) { cloud in
            for (format, bytes) in [("qcow2", DiskImages.qcow2(size: 1 << 40)), ("vdi", DiskImages.vdi())] {
                let id = try await ImageConversionTests.imported(cloud, format, bytes)
                let task = try await cloud.task(id)
                #expect(try await cloud.status(id) == "queued")
                #expect(task["message"]?.stringValue?.contains("larger than the maximum") == true, "\(task)")
                try await cloud.cleanupTask.runOnce()
                #expect(cloud.stored.isEmpty)
                #expect(try await ImageConversionTests.used(cloud) == 0)
            }
        }
    }

    @Test("S3: an image whose tables name one cluster many times ends at the limit of the size, and leaves nothing")
    func s3ExpandingTables() async throws {
        // qcow2 itself is not converted to qcow2; raw has the size of the disk.
        try await ImageFixture.with(limits: ImageConversionTests.limits(to: .raw, bytes: 64 << 20)) { cloud in
            let small = try await ImageConversionTests.imported(cloud, "qcow2", DiskImages.expandingQcow2(mebibytes: 32))
            #expect(try await cloud.call("GET", "/v2/images/\(small)")["size"]?.intValue == 32 << 20)
            let large = try await ImageConversionTests.imported(cloud, "qcow2", DiskImages.expandingQcow2(mebibytes: 256))
            let task = try await cloud.task(large)
            #expect(task["message"]?.stringValue?.contains("larger than the maximum") == true, "\(task)")
            #expect(try await cloud.call("DELETE", "/v2/images/\(small)").status == 204)
            try await cloud.cleanupTask.runOnce()
            #expect(cloud.stored.isEmpty)
        }
        try await ImageFixture.with(limits: ImageConversionTests.limits(to: .qcow2, bytes: 4 << 20)) { cloud in
            // A VDI of 10 MiB without holes: its blocks are one and the same.
            let id = try await ImageConversionTests.imported(cloud, "vdi", DiskImages.expandingVDI())
            let task = try await cloud.task(id)
            #expect(task["message"]?.stringValue?.contains("larger than the maximum") == true, "\(task)")
            try await cloud.cleanupTask.runOnce()
            #expect(cloud.stored.isEmpty)
            #expect(try await ImageConversionTests.used(cloud) == 0)
        }
    }

    @Test("S1: no hostile image reaches the conversion of an import", arguments: [DiskFormat.raw, .qcow2])
    func s1HostileImagesAreNotConverted(_ format: DiskFormat) async throws {
        let canary = "/tmp/wolke-canary-\(SystemRandom().uuid())"
        #expect(FileManager.default.createFile(atPath: canary, contents: Data(repeating: 0x43, count: 65536)))
        defer { unlink(canary) }
        try await ImageFixture.with(limits: ImageConversionTests.limits(to: format)) { cloud in
            let corpus = HostileImages.corpus(canary: canary).filter { DiskFormat.accepted.map(\.rawValue).contains($0.declared) }
            #expect(corpus.count >= 60)
            for hostile in corpus {
                let id = try await ImageConversionTests.imported(cloud, hostile.declared, hostile.bytes)
                let message = try await cloud.task(id)["message"]?.stringValue ?? ""
                #expect(message.contains("not accepted as an image"), "\(hostile.name): \(message)")
                #expect(try await cloud.status(id) == "queued", "\(hostile.name)")
                #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204)
            }
            try await cloud.cleanupTask.runOnce()
            #expect(cloud.stored.isEmpty)
        }
    }

    /// The process may die at any point of an import with a conversion.
    @Test func conversionUnderEveryDisturbance() async throws {
        let time = ManualTime()
        try await ImageFixture.with(limits: ImageConversionTests.limits(to: .raw), time: time) { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "image_import" })
            for variant in WorkflowChecks(definition).variants {
                let id = try await cloud.create(["disk_format": "qcow2", "container_format": "bare"])
                #expect(try await cloud.stage(id, DiskImages.qcow2()).status == 204)
                #expect(try await cloud.beginImport(id).status == 202)
                let ambient = Ambient(time: time, random: SeededRandom(seed: 9))
                try await cloud.settle(cloud.module.engine(replacing: [variant.definition], ambient: ambient))
                let isLate = variant.name.hasPrefix("publish fails after") || variant.name.hasPrefix("end fails")
                let isActive = variant.succeeds || isLate
                #expect(try await cloud.status(id) == (isActive ? "active" : "queued"), "\(variant.name)")
                try await cloud.cleanupTask.runOnce()
                #expect(cloud.stored.count == (isActive ? 1 : 0), "\(variant.name): \(cloud.stored)")
                #expect(try await ImageConversionTests.used(cloud) == (isActive ? 1 : 0), "\(variant.name)")
                if isActive { #expect(try await cloud.call("GET", "/v2/images/\(id)/file").bytes.count == 1 << 20, "\(variant.name)") }
                #expect(try await cloud.call("DELETE", "/v2/images/\(id)").status == 204)
            }
        }
    }
}
