import Foundation
import Glibc
import Kernel
import Testing

@testable import Commands

@Suite struct SpawnTests {
    @Test func onlyGivenDescriptorsAreInherited() async throws {
        // As a library opens them: without close-on-exec.
        let leaking = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(leaking) }
        let pid = try Spawn.start(["sleep", "60"], environment: ["PATH=/usr/bin:/bin"], descriptors: [nil, nil, nil, leaking])
        defer {
            kill(pid, SIGKILL)
            Spawn.wait(for: pid)
        }
        // The file actions are done before the program runs, and posix_spawn returns when it does.
        let open = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").sorted()
        #expect(open == ["0", "1", "2", "3"])
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/fd/3").hasPrefix("socket:"))
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/fd/0") == "/dev/null")
    }

    @Test func aCommandEndsAsItsToolDid() throws {
        #expect(try Command(["/bin/sh", "-c", "echo out; echo err >&2; echo $HOME"]).run() == "out\nerr\n/\n")
        #expect(try Command(["/bin/sh", "-c", "exit 7"]).outcome().status == 7)
        #expect(try Command(["/bin/sh", "-c", "kill -9 $$"]).outcome().status == nil)
        #expect(throws: CommandError.self) { try Command(["/no/such/tool"]).run() }
    }

    @Test func theDeadlineReachesChildren() throws {
        let started = SystemTime().monotonicNanoseconds()
        #expect(try Command(["/bin/sh", "-c", "sleep 60 & sleep 60"]).outcome(timeout: .milliseconds(200)).status == nil)
        #expect(SystemTime().monotonicNanoseconds() - started < 30_000_000_000)
    }

    @Test func outputIsBounded() throws {
        let output = try Command(["/bin/sh", "-c", "yes | head -c 100000"], outputMax: 1000).run()
        #expect(output.utf8.count < 70_000)
        #expect(output.hasPrefix("y\ny\n"))
    }
}
