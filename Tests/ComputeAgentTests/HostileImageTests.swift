import CDispatch
import Commands
import Cryptography
import Foundation
import Glibc
import JSON
import Kernel
import Libvirt
import Logging
import TestKit
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

/// Images that the Image service should have refused, when a server's disk is created from them. Needs root, as the agent does.
@Suite(.enabled(if: geteuid() == 0, "needs root")) struct HostileImageTests {
    private struct Host {
        let directory: String
        let cache: ImageCache
        let disks: ServerDisks
    }

    private static let imageID = "ffffffff-0000-0000-0000-000000000009"

    private func with(_ image: [UInt8], _ body: (Host) async throws -> Void) async throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(
            "wolke-agent-" + SystemRandom().uuid().compact
        ).path
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let threads = WorkerThreads(name: "test", count: 2)
        var log = Logger(label: "agent")
        log.logLevel = .critical
        let cache = try ImageCache(
            directory: directory + "/images", source: TestImages([HostileImageTests.imageID: image]), sandbox: RecordedTools.shared.sandbox,
            threads: threads, ambient: Ambient(), log: log)
        let disks = try ServerDisks(
            directory: directory + "/servers", images: cache, maker: SandboxedDiskMaker(RecordedTools.shared.sandbox), threads: threads,
            copyThreads: threads)
        try await body(Host(directory: directory, cache: cache, disks: disks))
    }

    private func server(_ format: String, root: Int = 1, claimed: Int? = nil, userData: String? = nil) throws -> DesiredServer {
        try Fixture.server([
            "root_gb": JSONValue(root), "config_drive": .bool(userData != nil), "user_data": JSONValue(userData),
            "image": [
                "id": .string(HostileImageTests.imageID), "disk_format": .string(format), "properties": [:],
                "disk_gb": claimed.map { JSONValue($0) } ?? .null,
            ],
        ])
    }

    @Test("S1 S3: nothing is created from an image that our parser refuses")
    func s1_hostileImagesAreRefused() async throws {
        let corpus = HostileImages.corpus(canary: "/etc/hostname").filter {
            ["raw", "qcow2", "vmdk", "vdi", "vhd"].contains($0.declared)
        }
        #expect(corpus.count >= 60)
        for hostile in corpus {
            try await with(hostile.bytes) { host in
                let server = try server(hostile.declared)
                let failure = await #expect(throws: PermanentFailure.self, "\(hostile)") {
                    try await host.disks.provision(server, refreshConfigDrive: false)
                }
                #expect(failure?.reason.contains(hostile.reason) ?? false, "\(hostile): \(failure?.reason ?? "")")
                #expect(try Files.list(host.directory + "/images").isEmpty, "\(hostile)")
                #expect(!Files.exists(host.disks.files(server.id).root), "\(hostile)")
            }
        }
    }

    @Test("S1: an untrusted image is converted, so that a guest's QEMU only reads metadata that we wrote")
    func s1_imagesAreConverted() async throws {
        try await with(DiskImages.qcow2()) { host in
            let server = try server("qcow2")
            try await host.disks.provision(server, refreshConfigDrive: false)
            let backing = try #require(try await host.disks.backing(server))
            #expect(backing.format == "qcow2" && backing.path.hasSuffix(".disk.qcow2"))
            #expect(try Files.list(host.directory + "/images").count == 1)
            for path in [backing.path, host.disks.files(server.id).root] {
                var status = stat()
                #expect(stat(path, &status) == 0)
                #expect(status.st_mode & 0o027 == 0 && status.st_gid == getegid(), "\(path)")
            }
        }
    }

    @Test("S1: config drives with tenants' data are only created in the sandbox")
    func s1_configDrivesAreMadeInTheSandbox() async throws {
        try await with([UInt8](repeating: 1, count: 4096)) { host in
            let content = String(repeating: "WORDS-OF-A-TENANT ", count: 2000)
            let server = try server("raw", userData: Data(content.utf8).base64EncodedString())
            try await host.disks.provision(try self.server("raw"), refreshConfigDrive: false)
            let drive = host.disks.files(server.id).configDrive
            for broken in [Sandbox(bubblewrap: "/no/such/bwrap"), Sandbox(filter: nil)] {
                let disks = try ServerDisks(
                    directory: host.directory + "/servers", images: host.cache, maker: SandboxedDiskMaker(broken),
                    threads: WorkerThreads(name: "test", count: 1), copyThreads: WorkerThreads(name: "test", count: 1))
                let failure = await #expect(throws: PermanentFailure.self) {
                    try await disks.provision(server, refreshConfigDrive: true)
                }
                #expect(failure?.reason == "its host cannot make the server's config drive")
                #expect(!Files.exists(drive))
            }
            try await host.disks.provision(server, refreshConfigDrive: true)
            let bytes = try #require(try Files.read(drive))
            #expect(String(decoding: bytes[0x8001..<0x8006], as: UTF8.self) == "CD001")
            #expect(Data(bytes).range(of: Data(content.utf8)) != nil)
            var status = stat()
            #expect(stat(drive, &status) == 0 && status.st_mode & 0o7777 == 0o600 && status.st_gid == getegid())
            #expect(try Files.list(host.disks.files(server.id).directory).filter { $0.hasPrefix("config") }.count == 1)
        }
    }

    @Test("S3: the disk in an image is not larger than the flavor's")
    func s3_tooLargeForTheFlavor() async throws {
        try await with(DiskImages.qcow2(size: 5 << 30)) { host in
            let failure = await #expect(throws: PermanentFailure.self) {
                try await host.disks.provision(try server("qcow2"), refreshConfigDrive: false)
            }
            #expect(failure?.reason == "the flavor's root disk of 1 GiB is too small for the image, which needs 5 GiB")
            try await host.disks.provision(try server("qcow2", root: 5), refreshConfigDrive: false)
        }
    }

    @Test("S3: for a flavor without a disk, the disk in an image is not larger than what was claimed for it")
    func s3_tooLargeForTheClaim() async throws {
        try await with(DiskImages.qcow2(size: 5 << 30)) { host in
            await #expect(throws: (any Error).self) {
                try await host.disks.provision(try server("qcow2", root: 0, claimed: 4), refreshConfigDrive: false)
            }
            let fitting = try server("qcow2", root: 0, claimed: 5)
            #expect(!Files.exists(host.disks.files(fitting.id).root))
            try await host.disks.provision(fitting, refreshConfigDrive: false)
            #expect(Files.exists(host.disks.files(fitting.id).root))
        }
    }

    @Test("S24: no data of an image is used before its hash is verified")
    func s24_hashesAreCheckedFirst() async throws {
        let bytes = DiskImages.qcow2()
        try await with(bytes) { host in
            func server(_ algorithm: String, _ hash: String, size: Int) throws -> DesiredServer {
                try Fixture.server([
                    "root_gb": 1,
                    "image": [
                        "id": .string(HostileImageTests.imageID), "disk_format": "qcow2", "properties": [:], "size": JSONValue(size),
                        "os_hash_algo": .string(algorithm), "os_hash_value": .string(hash),
                    ],
                ])
            }
            let (right512, right256) = (
                Hexadecimal.encode(HashAlgorithm.sha512.hash(bytes)), Hexadecimal.encode(HashAlgorithm.sha256.hash(bytes))
            )
            for (algorithm, hash, size, word) in [
                ("sha512", right256, bytes.count, "does not match"), ("sha256", right512, bytes.count, "does not match"),
                ("sha3", right512, bytes.count, "not supported"), ("sha512", right512, bytes.count - 1, "larger than its recorded size"),
                ("sha512", right512, bytes.count + 1, "bytes arrived"),
            ] {
                let error = await #expect(throws: (any Error).self) {
                    try await host.disks.provision(try server(algorithm, hash, size: size), refreshConfigDrive: false)
                }
                #expect("\(error.map { "\($0)" } ?? "")".contains(word), "\(algorithm): \(error.map { "\($0)" } ?? "")")
                #expect(try Files.list(host.directory + "/images").isEmpty, "\(algorithm)")
            }
            try await host.disks.provision(try server("sha512", right512.uppercased(), size: bytes.count), refreshConfigDrive: false)
        }
    }

    @Test("S2: a server whose root disk refers to another file than its image is not started")
    func s2_aChangedRootDiskIsNotStarted() async throws {
        try await with([UInt8](repeating: 1, count: 4096)) { host in
            let server = try server("raw")
            try await host.disks.provision(server, refreshConfigDrive: false)
            #expect(try await host.disks.backing(server)?.format == "raw")
            let root = host.disks.files(server.id).root
            try Files.replace(root, with: HostileImages.qcow2WithBacking("/etc/shadow"))
            let failure = await #expect(throws: PermanentFailure.self) { _ = try await host.disks.backing(server) }
            #expect(failure?.reason == "the server's root disk names a file that is not its image")
        }
    }
}
