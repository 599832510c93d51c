import Commands
import Foundation
import Glibc
import ImageCore
import Kernel
import Synchronization
import TestKit
import Testing

@testable import ImageService

private final class EndFlag: Sendable {
    private let value = Mutex(false)

    var isSet: Bool { value.withLock { $0 } }
    func set(_ new: Bool = true) { value.withLock { $0 = new } }
}

/// Conversions concurrent with uploads and downloads.
@Suite struct ConversionThreadTests {
    @Test("S18: a conversion holds none of the threads on which images are read and written")
    func s18ConversionsHoldNoThreadOfTheStore() async throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("wolke-threads-\(SystemRandom().uuid())").path
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let files = try FileStore(directory: directory + "/store", threads: 1)
        let source = SystemRandom().uuid().description
        try Data(DiskImages.qcow2()).write(to: URL(fileURLWithPath: files.path(source)))
        // A tool that runs until it is killed, for at most 20 s.
        let script = """
            #!/bin/sh
            touch \(directory)/begun
            for i in $(seq 200); do [ -e \(directory)/end ] && exit 1; sleep 0.1; done
            exit 1

            """
        try TestProgram.write(script, to: directory + "/tool")
        let converter = try #require(ImageConverter(to: .raw, in: Sandbox(bubblewrap: directory + "/tool")))
        let ended = EndFlag()
        func begin() -> Task<Void, any Error> {
            Task {
                defer { ended.set() }
                _ = try await converter.convert(
                    source, .qcow2, to: SystemRandom().uuid().description, in: files, bytesMax: 1 << 30,
                    tooLarge: ResourceError.badRequest("too large"))
            }
        }
        var conversion = begin()
        var attempts = 1
        while access(directory + "/begun", F_OK) != 0 {
            try await Task.sleep(for: .milliseconds(10))
            guard ended.isSet else { continue }
            // A process that another test was starting had the tool open for writing (ETXTBSY).
            attempts += 1
            try #require(attempts < 100)
            ended.set(false)
            conversion = begin()
        }
        let data = try await files.open(source)
        #expect(data.size == DiskImages.qcow2().count)
        #expect(!ended.isSet)
        try Data().write(to: URL(fileURLWithPath: directory + "/end"))
        let last = conversion
        await #expect(throws: (any Error).self) { try await last.value }
    }
}
