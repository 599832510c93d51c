import Commands
import Foundation
import Glibc
import Kernel
import Synchronization
import TestKit
import Testing

@testable import DiskTool

/// Problems that the check of a machine's sandbox detects. Needs root, as the services do.
@Suite(.enabled(if: geteuid() == 0, "needs root")) struct SandboxCheckTests {
    /// A sandbox whose `bwrap` is a program that changes the arguments and then runs the real one.
    private func sandbox(_ scratch: borrowing DiskScratch, _ change: String) throws -> Sandbox {
        let path = scratch.path + "/bwrap"
        try TestProgram.write("#!/usr/bin/perl\n\(change)\nexec '/usr/bin/bwrap', @ARGV;\n", to: path)
        return Sandbox(bubblewrap: path)
    }

    @Test("S1: a sandbox that is as it should be has no problem") func s1_sound() throws {
        #expect(SandboxCheck.problem(Sandbox()) == nil)
        let scratch = try DiskScratch()
        #expect(SandboxCheck.problem(try sandbox(scratch, "")) == nil)
    }

    @Test("S1: a sandbox that does not start, or does not confine, is reported")
    func s1_problems() throws {
        let scratch = try DiskScratch()
        #expect(try #require(SandboxCheck.problem(Sandbox(bubblewrap: "/no/such/bwrap"))).contains("could not be set up"))
        #expect(try #require(SandboxCheck.problem(Sandbox(user: 0))).contains("user id"))
        let bare = try sandbox(
            scratch, "shift @ARGV until !@ARGV || $ARGV[0] eq '--'; shift @ARGV; exec grep { !/^--(reuid|regid|clear-groups)/ } @ARGV;")
        let unconfined = try #require(SandboxCheck.problem(bare))
        #expect(unconfined.contains("does not run as user"), "\(unconfined)")
        let other = try DiskScratch()
        let files = try sandbox(other, "unshift @ARGV, '--ro-bind', '/etc', '/etc';")
        #expect(try #require(SandboxCheck.problem(files)).contains("machine's files"))
        let third = try DiskScratch()
        let network = try sandbox(
            third,
            "@ARGV = grep { $_ ne '--unshare-net' } @ARGV; for (0..$#ARGV) { if ($ARGV[$_] eq '--seccomp') { splice @ARGV, $_, 2; last } }")
        let problem = try #require(SandboxCheck.problem(network))
        #expect(problem.contains("network"), "\(problem)")
    }

    @Test func watchKeepsTheLastResult() async throws {
        let answers = Mutex<[String?]>(["broken", nil])
        let watch = SandboxWatch(time: SystemTime()) { answers.withLock { $0.removeFirst() } }
        #expect(await watch.problem() == "broken")
        #expect(await watch.problem() == "broken")
        #expect(await watch.check() == nil)
        #expect(await watch.problem() == nil)
    }
}
