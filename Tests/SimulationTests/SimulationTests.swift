import Foundation
import TestKit
import Testing

/// The simulated plane, as `make simulate` runs it: in a process of its own, because it takes the runtime's executor.
@Suite struct SimulationTests {
    private static let program: String = {
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        let beside = (own as NSString).deletingLastPathComponent + "/wolke-simulate"
        let built = FileManager.default.currentDirectoryPath + "/.build/debug/wolke-simulate"
        return FileManager.default.isExecutableFile(atPath: beside) ? beside : built
    }()

    private func simulate(_ arguments: [String]) async throws -> (status: Int32, output: String) {
        let server = try await TestDatabase.with { test in
            test.connectionString.split(separator: " ").filter { !$0.hasPrefix("dbname=") }.joined(separator: " ") + " dbname=postgres"
        }
        return try await offPool {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: SimulationTests.program)
            process.arguments = arguments
            process.environment = ["WOLKE_TEST_PG": server, "PATH": "/usr/bin:/bin"]
            let output = Pipe()
            process.standardOutput = output
            process.standardInput = FileHandle.nullDevice
            try process.run()
            let data = output.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return (process.terminationStatus, String(decoding: data, as: UTF8.self))
        }
    }

    /// In one process and in two: the same events in the same order.
    @Test func aSeedIsOneRun() async throws {
        func hash() async throws -> Substring {
            let (status, output) = try await simulate(["--seed", "7", "--twice"])
            #expect(status == 0, "\(output)")
            return output.split(separator: " ").dropFirst(3).first ?? ""
        }
        let first = try await hash()
        #expect(try await hash() == first)
        #expect(first.count > 8)
    }

    @Test func seedsThatOnceFailed() async throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Regression/seeds").path
        let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").filter { !$0.hasPrefix("#") }
        #expect(!lines.isEmpty)
        for line in lines {
            let seed = String(line.prefix { $0 != " " })
            let (status, output) = try await simulate(["--seed", seed])
            #expect(status == 0, "\(line): \(output)")
        }
    }
}
