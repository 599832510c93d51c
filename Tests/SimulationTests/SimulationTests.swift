import Foundation
import TestKit
import Testing

/// The simulation, as `make simulate` runs it: in a separate process, because it replaces the runtime's executor.
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

    private static func regressions() throws -> [String] {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Regression/seeds").path
        return try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").filter { !$0.hasPrefix("#") }
            .map { String($0.prefix { $0 != " " }) }
    }

    /// Seeds that failed once are clean. That the same seed gives the same run is compared by `deploy/test`, on a PostgreSQL of
    /// its own: here hundreds of other databases share the server.
    @Test func seedsThatOnceFailed() async throws {
        let seeds = try SimulationTests.regressions()
        #expect(seeds.count > 2)
        let (status, output) = try await simulate(["--seed", seeds.joined(separator: ",")])
        #expect(status == 0, "\(output)")
        #expect(output.split(separator: "\n").count { $0.contains(" clean ") } == seeds.count, "\(output)")
    }
}
