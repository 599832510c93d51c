import Commands
import Foundation
import Glibc
import Kernel
import TestKit
import Testing

/// A private directory of the test.
struct DiskScratch: ~Copyable {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("wolke-disks-" + SystemRandom().uuid().compact).path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String, _ bytes: [UInt8] = []) throws -> String {
        let file = path + "/" + name
        #expect(FileManager.default.createFile(atPath: file, contents: Data(bytes), attributes: [.posixPermissions: 0o600]))
        return file
    }

    func mode(_ file: String) -> mode_t {
        var status = stat()
        return stat(file, &status) == 0 ? status.st_mode & 0o7777 : 0
    }

    func group(_ file: String) -> gid_t? {
        var status = stat()
        return stat(file, &status) == 0 ? status.st_gid : nil
    }
}

/// The capabilities of a tool in the sandbox. Needs root, as the services do.
@Suite(.enabled(if: geteuid() == 0, "needs root")) struct SandboxTests {
    private let sandbox = Sandbox()

    private func run(
        _ arguments: [String], files: [Sandbox.File] = [], limits: Sandbox.Limits = Sandbox.Limits(fileSize: 1 << 20)
    ) throws -> String {
        try sandbox.command(arguments, files: files, limits: limits).run()
    }

    private func perl(
        _ code: String, files: [Sandbox.File] = [], limits: Sandbox.Limits = Sandbox.Limits(fileSize: 1 << 20)
    ) throws -> String {
        try run(["/usr/bin/perl", "-e", code], files: files, limits: limits)
    }

    @Test("S1: the tool is another user, without groups and capabilities")
    func s1_anotherUser() throws {
        #expect(try run(["/usr/bin/id", "-u"]) == "\(Sandbox.defaultUser)\n")
        #expect(try run(["/usr/bin/id", "-G"]) == "\(Sandbox.defaultUser)\n")
        // prctl(PR_CAPBSET_READ, n) for all n, PR_GET_NO_NEW_PRIVS and PR_GET_SECCOMP.
        let text = try perl(
            "print join ',', (map { syscall(157, 23, $_, 0, 0, 0) } 0..40), syscall(157, 39, 0, 0, 0, 0), syscall(157, 21, 0, 0, 0, 0)")
        #expect(text == String(repeating: "0,", count: 41) + "1,2")
    }

    /// A service that was started with additional groups, for example by an operator's login.
    @Test("S1: the tool has none of the groups of the process that starts it")
    func s1_noGroupsOfTheStarter() throws {
        let scratch = try DiskScratch()
        let starter = scratch.path + "/starter"
        try TestProgram.write("#!/usr/bin/perl\n$) = '0 4 24 27'; exec '/usr/bin/bwrap', @ARGV;\n", to: starter)
        let command = try Sandbox(bubblewrap: starter).command(["/usr/bin/id", "-G"], files: [], limits: Sandbox.Limits(fileSize: 0))
        #expect(try command.run() == "\(Sandbox.defaultUser)\n")
    }

    @Test("S1: the tool can only access the given files")
    func s1_onlyItsFiles() throws {
        let scratch = try DiskScratch()
        let canary = try scratch.file("canary", Array("CANARY".utf8))
        let given = try scratch.file("given", Array("given".utf8))
        chmod(canary, 0o644)
        #expect(try run(["/usr/bin/cat", "/disk0"], files: [.reading(given)]) == "given")
        for path in [canary, given, "/etc/shadow", "/etc/passwd", "/proc/1/environ", "/sys/kernel", "/root", "/var/lib", "/run"] {
            let error = #expect(throws: CommandError.self) { try run(["/usr/bin/cat", path], files: [.reading(given)]) }
            #expect(error?.output.contains("No such file") ?? false, "\(path): \(error?.output ?? "")")
        }
        #expect(try run(["/usr/bin/ls", "/"], files: [.reading(given)]) == "bin\ndev\ndisk0\nlib\nlib64\nusr\n")
    }

    @Test("S1: the tool can only write files that are given as writable")
    func s1_writes() throws {
        let scratch = try DiskScratch()
        let (source, target) = (try scratch.file("source", [1]), try scratch.file("target"))
        let files: [Sandbox.File] = [.reading(source), .writing(target)]
        _ = try run(["/usr/bin/cp", "/disk0", "/disk1"], files: files)
        #expect(FileManager.default.contents(atPath: target) == Data([1]))
        for path in ["/disk0", "/new", "/usr/new", "/dev/new", "/tmp/new"] {
            #expect(throws: CommandError.self, "\(path)") { try run(["/usr/bin/cp", "/disk1", path], files: files) }
        }
    }

    @Test("S1: only the owner can access files after the run")
    func s1_filesAreTakenBack() throws {
        let scratch = try DiskScratch()
        let (source, target) = (try scratch.file("source", [1]), try scratch.file("target"))
        let files: [Sandbox.File] = [.reading(source), .writing(target)]
        let during = try run(["/usr/bin/stat", "-c", "%a:%g", Sandbox.name(0), Sandbox.name(1)], files: files)
        #expect(during == "640:\(Sandbox.defaultUser)\n660:\(Sandbox.defaultUser)\n")
        #expect(throws: CommandError.self) { try run(["/usr/bin/false"], files: files) }
        for file in [source, target] {
            #expect(scratch.mode(file) == 0o600)
            #expect(scratch.group(file) == getegid())
        }
        // Prepared but never started.
        do { _ = try sandbox.command(["/usr/bin/true"], files: files, limits: Sandbox.Limits(fileSize: 0)) }
        #expect(scratch.mode(source) == 0o600 && scratch.mode(target) == 0o600)
    }

    @Test("S1: runs that share a file do not revoke each other's access")
    func s1_sharedFiles() async throws {
        let scratch = try DiskScratch()
        let source = try scratch.file("source", [7])
        try await withThrowingTaskGroup(of: String.self) { group in
            for index in 0..<8 {
                let command = try sandbox.command(
                    [
                        "/usr/bin/perl", "-e",
                        "select undef, undef, undef, 0.1 * \(index % 3); open F, '<', '/disk0' or die $!; read F, $_, 1; print ord",
                    ],
                    files: [.reading(source)], limits: Sandbox.Limits(fileSize: 0))
                group.addTask {
                    try await withCheckedThrowingContinuation { continuation in
                        Thread.detachNewThread { continuation.resume(with: Result { try command.run() }) }
                    }
                }
            }
            for try await output in group { #expect(output == "7") }
        }
        #expect(scratch.mode(source) == 0o600)
        #expect(scratch.group(source) == getegid())
    }

    @Test("S1: a directory tree is read-only and must not contain links")
    func s1_trees() throws {
        let scratch = try DiskScratch()
        let tree = scratch.path + "/tree"
        try FileManager.default.createDirectory(
            atPath: tree + "/a/b", withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        _ = try scratch.file("tree/a/b/one", Array("one".utf8))
        #expect(try run(["/usr/bin/cat", "/disk0/a/b/one"], files: [.readingTree(tree)]) == "one")
        #expect(throws: CommandError.self) { try run(["/usr/bin/cp", "/disk0/a/b/one", "/disk0/two"], files: [.readingTree(tree)]) }
        #expect(throws: CommandError.self) { try run(["/usr/bin/rm", "/disk0/a/b/one"], files: [.readingTree(tree)]) }
        // Only the owner has access again.
        #expect(scratch.mode(tree + "/a/b") == 0o700 && scratch.mode(tree + "/a/b/one") == 0o600)
        symlink("/etc/shadow", tree + "/a/link")
        #expect(throws: FileError.self) { try run(["/usr/bin/ls", "/disk0"], files: [.readingTree(tree)]) }
    }

    @Test("S1: a link is not followed, and only regular files are given")
    func s1_links() throws {
        let scratch = try DiskScratch()
        let link = scratch.path + "/link"
        symlink("/etc/shadow", link)
        #expect(throws: FileError.self) { try run(["/usr/bin/cat", "/disk0"], files: [.reading(link)]) }
        #expect(throws: SandboxError.self) { try run(["/usr/bin/ls", "/disk0"], files: [.reading(scratch.path)]) }
    }

    @Test("S1: the tool has no network, and no sockets at all")
    func s1_noNetwork() throws {
        // socket(AF_INET), socket(AF_UNIX), unshare(CLONE_NEWUSER), ptrace, mount: all EPERM.
        for call in ["41, 2, 1, 0", "41, 1, 1, 0", "272, 0x10000000", "101, 0, 0, 0, 0", "165, 0, 0, 0, 0, 0", "321, 0, 0, 0"] {
            #expect(try perl("my $r = syscall(\(call)); print $r, ' ', $! + 0") == "-1 1", "\(call)")
        }
        #expect(try perl("my $r = syscall(56, 0x10000000 | 17, 0, 0, 0, 0); print $r, ' ', $! + 0") == "-1 1")
        #expect(try perl("my $r = fork; if ($r == 0) { exit 0 } waitpid($r, 0); print $?") == "0")
        // clone3, whose flags a filter cannot read: the C library falls back to clone.
        #expect(try perl("my $r = syscall(435, 0, 0); print $r, ' ', $! + 0") == "-1 38")
    }

    @Test("S3: files, memory, processor time and time are limited")
    func s3_limits() throws {
        let scratch = try DiskScratch()
        let target = try scratch.file("target")
        var limits = Sandbox.Limits(fileSize: 100_000)
        #expect(throws: CommandError.self) {
            try run(["/usr/bin/truncate", "-s", "200000", "/disk0"], files: [.writing(target)], limits: limits)
        }
        _ = try? perl("open F, '>', '/disk0'; print F 'x' x 300000; close F", files: [.writing(target)], limits: limits)
        #expect(try FileManager.default.attributesOfItem(atPath: target)[.size] as? Int ?? .max <= 100_000)

        limits.memory = 200 << 20
        #expect(throws: CommandError.self) { try perl("my $x = 'x' x (400 << 20); print length $x", limits: limits) }
        #expect(try perl("my $x = 'x' x (20 << 20); print length $x", limits: limits) == "\(20 << 20)")

        limits.cpuSeconds = 1
        let started = SystemTime().monotonicNanoseconds()
        #expect(throws: CommandError.self) { try perl("1 while 1", limits: limits) }
        limits.cpuSeconds = 60
        limits.time = .milliseconds(500)
        #expect(throws: CommandError.self) { try run(["/usr/bin/sleep", "60"], limits: limits) }
        #expect(SystemTime().monotonicNanoseconds() - started < 20_000_000_000)
    }

    @Test("S1 S3: the kernel confines the tool with namespaces and limits")
    func s1_namespacesAndLimits() throws {
        let scratch = try DiskScratch()
        let (target, source) = (try scratch.file("target"), try scratch.file("source"))
        // A unique process name, searched from outside, because there is no /proc inside.
        let seconds = "3\(UInt32.random(in: 100_000...999_999))"
        var limits = Sandbox.Limits(fileSize: 123_904, cpuSeconds: 77)
        limits.memory = 345 << 20
        let command = try sandbox.command(["/usr/bin/sleep", seconds], files: [.writing(target), .reading(source)], limits: limits)
        let thread = Thread { _ = try? command.run() }
        thread.start()
        defer { command.cancel() }
        var found: String?
        for _ in 0..<2000 where found == nil {
            usleep(20_000)
            found = try FileManager.default.contentsOfDirectory(atPath: "/proc").first { pid in
                text("/proc/\(pid)/cmdline") == "/usr/bin/sleep\0\(seconds)\0"
            }
        }
        let pid = try #require(found)
        for kind in ["net", "pid", "ipc", "uts", "mnt"] {
            let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/\(kind)")
            #expect(try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/ns/\(kind)") != own, "\(kind)")
        }
        let status = text("/proc/\(pid)/status").split(separator: "\n").map { $0.split(whereSeparator: \.isWhitespace).map(String.init) }
        func field(_ name: String) -> [String] { status.first { $0.first == name + ":" }.map { Array($0.dropFirst()) } ?? ["missing"] }
        let user = String(repeating: "\(Sandbox.defaultUser) ", count: 4).split(separator: " ").map(String.init)
        #expect(field("Uid") == user && field("Gid") == user && field("Groups") == [])
        for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] { #expect(field(name) == ["0000000000000000"], "\(name)") }
        #expect(field("NoNewPrivs") == ["1"] && field("Seccomp") == ["2"])
        let mounts = text("/proc/\(pid)/mountinfo").split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
        for (place, mode) in [("/usr", "ro"), ("/disk0", "rw"), ("/disk1", "ro")] {
            let options = mounts.first { $0.count > 5 && $0[4] == place }?[5].split(separator: ",").first.map(String.init)
            #expect(options == mode, "\(place)")
        }
        let held = text("/proc/\(pid)/limits").split(separator: "\n").map(String.init)
        for (name, value) in [
            ("Max address space", 345 << 20), ("Max file size", 123_904), ("Max cpu time", 77), ("Max core file size", 0),
            ("Max open files", 64), ("Max processes", 512),
        ] {
            let line = held.first { $0.hasPrefix(name) }?.dropFirst(name.count).split(separator: " ").map(String.init) ?? []
            #expect(line.prefix(2).elementsEqual(["\(value)", "\(value)"]), "\(name): \(line)")
        }
    }

    private func text(_ path: String) -> String {
        // Files in /proc do not report their size.
        let bytes = try? FileHandle(forReadingFrom: URL(fileURLWithPath: path)).readToEnd()
        return String(decoding: bytes ?? Data(), as: UTF8.self)
    }

    @Test("S1: nothing runs when the sandbox cannot be set up")
    func s1_neverUnconfined() throws {
        let scratch = try DiskScratch()
        let given = try scratch.file("given", Array("given".utf8))
        let command = ["/usr/bin/cat", "/disk0"]
        let limits = Sandbox.Limits(fileSize: 0)
        for broken in [
            Sandbox(user: 0), Sandbox(user: 70_000), Sandbox(bubblewrap: "/no/such/bwrap"), Sandbox(bubblewrap: "/usr/bin/false"),
            Sandbox(filter: nil),
        ] {
            let error = #expect(throws: (any Error).self) {
                try broken.command(command, files: [.reading(given)], limits: limits).run()
            }
            #expect(!"\(error.map { "\($0)" } ?? "given")".contains("given:"))
        }
        let missing = #expect(throws: SandboxError.self) {
            try Sandbox(bubblewrap: "/no/such/bwrap").command(command, files: [.reading(given)], limits: limits).run()
        }
        #expect(missing?.description.contains("No such file") ?? false)
        let unfiltered = #expect(throws: SandboxError.self) {
            try Sandbox(filter: nil).command(command, files: [.reading(given)], limits: limits).run()
        }
        #expect(unfiltered?.description.contains("no system call filter") ?? false)
        #expect(Sandbox.systemCallFilter != nil)
    }

    @Test func aLockIsHeldAsLongAsTheToolLives() throws {
        let scratch = try DiskScratch()
        let lock = try scratch.file("lock")
        let descriptor = open(lock, O_RDWR | O_CLOEXEC)
        #expect(flock(descriptor, LOCK_EX | LOCK_NB) == 0)
        let command = try sandbox.command(["/usr/bin/sleep", "30"], files: [], limits: Sandbox.Limits(fileSize: 0))
        let thread = Thread { _ = try? command.run(inheriting: descriptor) }
        thread.start()
        usleep(300_000)
        close(descriptor)
        let other = open(lock, O_RDWR | O_CLOEXEC)
        #expect(flock(other, LOCK_EX | LOCK_NB) != 0)
        command.cancel()
        for _ in 0..<1000 where flock(other, LOCK_EX | LOCK_NB) != 0 { usleep(50_000) }
        #expect(flock(other, LOCK_EX | LOCK_NB) == 0)
        close(other)
    }
}
