package import Commands
import Foundation
import Kernel
import Synchronization

/// A sandbox that records the command line of every tool that runs in it: the program that starts the sandbox is wrapped.
package final class RecordedTools: Sendable {
    package static let shared = RecordedTools()

    private let directory: String
    private let read = Mutex(0)
    private static let all = Mutex<Set<String>>([])

    private var log: String { directory + "/log" }

    /// Ends every record.
    private static let end = "end of the command line"

    private init() {
        directory = NSTemporaryDirectory() + "wolke-tools-\(ProcessInfo.processInfo.processIdentifier)"
        let script = """
            #!/usr/bin/perl
            open(my $log, '>>', '\(directory)/log') or die $!;
            syswrite($log, join("\\0", @ARGV, '\(RecordedTools.end)') . "\\0");
            exec '/usr/bin/bwrap', @ARGV;
            """
        let manager = FileManager.default
        do {
            try manager.createDirectory(atPath: directory, withIntermediateDirectories: true)
            try Data(script.utf8).write(to: URL(fileURLWithPath: directory + "/bwrap"))
            try manager.setAttributes([.posixPermissions: 0o755], ofItemAtPath: directory + "/bwrap")
        } catch {
            fatalError("no place for the records of tools: \(error)")
        }
        _ = RecordedTools.all.withLock { $0.insert(directory) }
        atexit { for directory in RecordedTools.all.withLock({ $0 }) { try? FileManager.default.removeItem(atPath: directory) } }
    }

    /// The default sandbox, recorded.
    package var sandbox: Sandbox { Sandbox(bubblewrap: directory + "/bwrap") }

    /// The command lines of all tools so far: the program and its arguments.
    package var commands: [[String]] { RecordedTools.parse(records(from: 0).bytes) }

    /// The disks that tools have opened without an explicit format since the last call.
    package func newProblems() -> [String] {
        let bytes = read.withLock { position in
            let (bytes, end) = records(from: position)
            position = end
            return bytes
        }
        return RecordedTools.parse(bytes).flatMap(DiskArguments.problems)
    }

    /// Complete records after a position, and the position after them.
    private func records(from position: Int) -> (bytes: [UInt8], end: Int) {
        guard let data = FileManager.default.contents(atPath: log), data.count > position else { return ([], position) }
        let bytes = Array(data[position...])
        let mark = Array("\0\(RecordedTools.end)\0".utf8)
        // The last record may still be being written.
        guard bytes.count >= mark.count, let last = (mark.count...bytes.count).last(where: { bytes[($0 - mark.count)..<$0] == mark[...] })
        else {
            return ([], position)
        }
        return (Array(bytes[..<last]), position + last)
    }

    private static func parse(_ bytes: [UInt8]) -> [[String]] {
        var found: [[String]] = []
        var current: [String] = []
        for part in bytes.split(separator: 0, omittingEmptySubsequences: false) {
            let word = String(decoding: part, as: UTF8.self)
            guard word == end else {
                current.append(word)
                continue
            }
            // The tool comes after the arguments of the programs that confine it.
            found.append(Array(current[(current.lastIndex(of: "--").map { $0 + 1 } ?? 0)...]))
            current = []
        }
        return found
    }
}
