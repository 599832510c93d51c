import Foundation
import TestKit
import Testing

/// `deploy/swift` on machines where `swift` in PATH is another program.
@Suite struct ToolchainTests {
    private static let files = FileManager.default

    /// Runs `deploy/swift --find` with a PATH of `directories` and the few tools that the script itself uses.
    private static func find(in place: String, path directories: [String], swift: String? = nil) throws -> (status: Int32, output: String) {
        let tools = place + "/tools"
        if !files.fileExists(atPath: tools) {
            try files.createDirectory(atPath: tools, withIntermediateDirectories: true)
            for name in ["bash", "dirname", "head", "readlink", "sed", "timeout"] {
                try files.createSymbolicLink(atPath: "\(tools)/\(name)", withDestinationPath: "/usr/bin/\(name)")
            }
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/bash")
        process.arguments = [TidyTests.root + "/deploy/swift", "--find"]
        var environment = [
            "PATH": (directories.map { "\(place)/\($0)" } + [tools]).joined(separator: ":"), "SWIFT_ROOTS": place + "/roots",
        ]
        environment["SWIFT"] = swift
        process.environment = environment
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: data, as: UTF8.self))
    }

    /// Writes an executable that prints `words`, and empty ones next to it.
    private static func make(_ path: String, says words: String, beside names: [String] = []) throws {
        let directory = (path as NSString).deletingLastPathComponent
        try files.createDirectory(atPath: directory, withIntermediateDirectories: true)
        for file in [path] + names.map({ "\(directory)/\($0)" }) {
            try TestProgram.write("#!/bin/bash\necho '\(words)'\n", to: file)
        }
    }

    private static func withPlace(_ body: (String) throws -> Void) throws {
        let place = NSTemporaryDirectory() + "wolke-toolchain-\(ProcessInfo.processInfo.globallyUniqueString)"
        try files.createDirectory(atPath: place, withIntermediateDirectories: true)
        defer { do { try files.removeItem(atPath: place) } catch { Issue.record(error) } }
        try body(place)
    }

    private static let parts = ["swift-build", "swift-test"]
    private static let current = "Swift version 6.2.1 (swift-6.2.1-RELEASE)"

    @Test func theClientOfObjectStorageIsNotTheToolchain() throws {
        try ToolchainTests.withPlace { place in
            try ToolchainTests.make(place + "/client/swift", says: "usage: swift [--version] [--help]")
            let alone = try ToolchainTests.find(in: place, path: ["client"])
            #expect(alone.status == 1)
            #expect(alone.output.contains("client/swift: not Swift's toolchain (no swift-build beside it)"), "\(alone.output)")
            #expect(alone.output.contains("Swift 6.2 or newer is needed") && alone.output.contains("SWIFT="), "\(alone.output)")

            try ToolchainTests.make(place + "/own/swift", says: ToolchainTests.current, beside: ToolchainTests.parts)
            let both = try ToolchainTests.find(in: place, path: ["client", "own"])
            #expect(both.status == 0 && both.output == "\(place)/own/swift\n", "\(both.output)")
        }
    }

    @Test func theToolchainIsFoundWherePATHDoesNotHaveIt() throws {
        try ToolchainTests.withPlace { place in
            try ToolchainTests.make(place + "/client/swift", says: "usage: swift")
            try ToolchainTests.make(place + "/roots/swift-6.2/usr/bin/swift", says: ToolchainTests.current, beside: ToolchainTests.parts)
            let found = try ToolchainTests.find(in: place, path: ["client"])
            #expect(found.output == "\(place)/roots/swift-6.2/usr/bin/swift\n", "\(found.output)")
        }
    }

    @Test func anOldToolchainIsRefusedWithAReason() throws {
        try ToolchainTests.withPlace { place in
            try ToolchainTests.make(place + "/old/swift", says: "Swift version 5.10.1 (swift-5.10.1-RELEASE)", beside: ToolchainTests.parts)
            let found = try ToolchainTests.find(in: place, path: ["old"])
            #expect(found.status == 1 && found.output.contains("old/swift: Swift 5.10 is too old"), "\(found.output)")
        }
    }

    @Test func aNamedToolchainIsTheOnlyOneThatIsTried() throws {
        try ToolchainTests.withPlace { place in
            try ToolchainTests.make(place + "/own/swift", says: ToolchainTests.current, beside: ToolchainTests.parts)
            try ToolchainTests.make(place + "/named/usr/bin/swift", says: "Swift version 7.0", beside: ToolchainTests.parts)
            let directory = try ToolchainTests.find(in: place, path: ["own"], swift: place + "/named")
            #expect(directory.output == "\(place)/named/usr/bin/swift\n", "\(directory.output)")
            let wrong = try ToolchainTests.find(in: place, path: ["own"], swift: place + "/nowhere")
            #expect(wrong.status == 1 && wrong.output.contains("SWIFT=\(place)/nowhere is of no use"), "\(wrong.output)")
        }
    }

    /// `make up` does not build the executables that no cloud runs.
    @Test func aCloudIsBuiltWithoutBenchmarksAndSimulation() throws {
        let manifest = try #require(TidyTests.text("Package.swift"))
        let named = manifest.matches(of: /\.executableTarget\(\s+name: "([\w-]+)"/).map { String($0.1) }
        let list = try #require(manifest.firstMatch(of: /\["TestKit", ([^\]]+)\]\.contains/)).1
        let left = list.matches(of: /"([\w-]+)"/).map { String($0.1) }
        #expect(named.contains("osctl") && Set(named).subtracting(["osctl"]) == Set(left))
        let makefile = try #require(TidyTests.text("Makefile"))
        #expect(makefile.contains("@WOLKE_BUILD=cloud bash deploy/swift build -c $(CONFIGURATION)\n"))
    }

    private static let long = String(repeating: "ö", count: 73)
    /// Messages of commits, and whether they are accepted.
    private static let messages: [(String, Bool)] = [
        (String(long.dropLast()), true), (long, false), ("# A comment\n\nShort\n\n\(long)", true), ("Merge branch \(long)", true),
    ]

    @Test(arguments: messages) func subjectsOfCommitsAreShort(message: String, isAccepted: Bool) throws {
        try ToolchainTests.withPlace { place in
            try message.write(toFile: place + "/message", atomically: true, encoding: .utf8)
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/bin/bash")
            process.arguments = [TidyTests.root + "/deploy/hooks/commit-msg", place + "/message"]
            process.standardError = FileHandle.nullDevice
            try process.run()
            process.waitUntilExit()
            #expect((process.terminationStatus == 0) == isAccepted)
        }
    }

    /// The check of the history: from a commit on, and not where the history does not have that commit.
    @Test func subjectsOfTheHistoryAreShort() throws {
        func run(_ program: String, _ arguments: [String], in place: String) throws -> (status: Int32, output: String) {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: program)
            process.arguments = arguments
            process.currentDirectoryURL = URL(fileURLWithPath: place)
            process.environment = [
                "PATH": "/usr/bin:/bin", "HOME": place, "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b",
                "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
            ]
            let pipe = Pipe()
            process.standardOutput = pipe
            process.standardError = pipe
            try process.run()
            let data = pipe.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return (process.terminationStatus, String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines))
        }
        try ToolchainTests.withPlace { place in
            for script in ["deploy/commit-subjects", "deploy/hooks/commit-msg"] {
                let copy = "\(place)/\(script)"
                try ToolchainTests.files.createDirectory(
                    atPath: (copy as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
                try ToolchainTests.files.copyItem(atPath: "\(TidyTests.root)/\(script)", toPath: copy)
            }
            func check(_ commit: String) throws -> (status: Int32, output: String) {
                try run("/bin/bash", ["deploy/commit-subjects", commit], in: place)
            }
            #expect(try check("0123456789").status == 0, "there is no history")
            #expect(try run("/usr/bin/git", ["init", "-q"], in: place).status == 0)
            var commits: [String] = []
            for subject in [ToolchainTests.long, "Add a thing", ToolchainTests.long, "Remove a thing"] {
                #expect(try run("/usr/bin/git", ["commit", "-q", "--allow-empty", "-m", subject], in: place).status == 0)
                commits.append(try run("/usr/bin/git", ["rev-parse", "HEAD"], in: place).output)
            }
            let found = try check(commits[0])
            #expect(found.status == 1 && found.output.contains(commits[2]) && !found.output.contains(commits[0]), "\(found.output)")
            #expect(try check(commits[2]).status == 0)
            let unknown = try check(String(repeating: "0", count: 40))
            #expect(unknown.status == 0 && unknown.output.contains("not checked"), "\(unknown.output)")
        }
    }

    /// No script runs `swift` by its bare name.
    @Test func scriptsUseTheFinder() throws {
        var findings: [String] = []
        for path in TidyTests.tracked
        where path == "Makefile" || path.hasPrefix("deploy/") || path.hasPrefix("bench/") && !path.hasSuffix(".swift") {
            guard path != "deploy/swift", let text = TidyTests.text(path) else { continue }
            for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
                let bare = line.replacing("deploy/swift ", with: "")
                if ["swift build", "swift test", "swift run", "swift package"].contains(where: bare.contains) {
                    findings.append("\(path):\(index + 1)")
                }
            }
        }
        #expect(findings.isEmpty, "use deploy/swift: \(findings)")
    }
}
