import Glibc
import TestKit
import Testing

@testable import DiskTool

/// What counts as an explicit format, and that the disk tool always has one.
@Suite struct DiskArgumentTests {
    private static let safe: [[String]] = [
        ["/usr/bin/qemu-img", "info", "--output=json", #"json:{"driver":"raw","backing":null,"file":{"driver":"file","filename":"/d"}}"#],
        ["/usr/bin/qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/base", "-F", "raw", "/d", "1"],
        ["/usr/bin/qemu-img", "resize", "-q", "-f", "raw", "/d", "2"], ["/usr/bin/qemu-img", "--version"],
        ["/usr/bin/qemu-img", "convert", "-f", "raw", "-O", "qcow2", "/d", "/e"], ["qemu-nbd", "--format=raw", "/d"],
        [
            "/usr/bin/qemu-system-x86_64", "-blockdev", #"{"driver":"file","filename":"/d","node-name":"s"}"#, "-blockdev",
            #"{"driver":"qcow2","file":"s","backing":null,"node-name":"f"}"#, "-device", #"{"driver":"virtio-blk-pci","drive":"f"}"#,
        ],
        ["/usr/bin/genisoimage", "-o", "/d"],
    ]

    private static let unsafe: [[String]] = [
        ["qemu-img", "info", "/d"], ["qemu-img", "create", "/d", "1"], ["qemu-img", "resize", "/d", "2"],
        ["qemu-img", "create", "-f", "qcow2", "-b", "/base", "/d", "1"],
        ["qemu-img", "create", "-f", "qcow2", "-b", "/base", "-F", "raw", "/d"],
        ["qemu-img", "convert", "-O", "qcow2", "/d", "/e"], ["qemu-img", "convert", "-f", "raw", "/d", "/e"],
        ["qemu-img", "convert", "-n", "--target-image-opts", "-f", "raw", "/d", "file.filename=/e"],
        ["qemu-img", "info", #"json:{"driver":"qcow2","file":{"driver":"file","filename":"/d"}}"#],
        ["qemu-img", "info", #"json:{"driver":"raw","file":{"filename":"/d"}}"#],
        [
            "qemu-img", "info",
            #"json:{"driver":"qcow2","file":{"driver":"file","filename":"/d"},"backing":{"file":{"driver":"file","filename":"/b"}}}"#,
        ],
        ["qemu-img", "commit", "/d"], ["qemu-img", "rebase", "-f", "qcow2", "--unheard-of", "/d"],
        ["qemu-nbd", "/d"], ["qemu-io", "-c", "read 0 1", "/d"],
        ["qemu-system-x86_64", "-drive", "file=/d,if=virtio"], ["qemu-system-x86_64", "-hda", "/d"],
        [
            "qemu-system-x86_64", "-blockdev", #"{"driver":"file","filename":"/d","node-name":"s"}"#, "-device",
            "virtio-blk-pci,drive=s",
        ],
        ["qemu-system-x86_64", "-blockdev", #"{"driver":"qcow2","file":"s","node-name":"f"}"#],
    ]

    @Test("S2: command lines that open disks without a format are noticed", arguments: safe)
    func s2_explicitFormatsAreKnown(arguments: [String]) { #expect(DiskArguments.problems(arguments) == []) }

    @Test("S2: and each kind of guess is", arguments: unsafe)
    func s2_guessesAreFound(arguments: [String]) { #expect(!DiskArguments.problems(arguments).isEmpty, "\(arguments)") }

    @Test func libvirtsLogIsRead() {
        let log = """
            2026-11-30 18:00:00.000+0000: starting up libvirt version: 9.0.0
            LC_ALL=C \\
            /usr/bin/qemu-system-x86_64 \\
            -name guest=a,debug-threads=on \\
            -S \\
            -drive 'file=/d,if=virtio' \\
            -msg timestamp=on
            char device redirected to /dev/pts/0
            """
        let found = DiskArguments.commandLines(inLog: log)
        #expect(found.map(\.count) == [8])
        #expect(found.flatMap(DiskArguments.problems).count == 1)
    }

    @Test("S2: the disk tool opens every disk with an explicit format", .enabled(if: geteuid() == 0, "needs root"))
    func s2_theToolNamesEveryFormat() throws {
        let scratch = try DiskScratch()
        let tool = DiskTool(RecordedTools.shared.sandbox)
        let (base, disk, copy) = (scratch.path + "/base", scratch.path + "/disk", scratch.path + "/copy")
        try tool.create(base, .raw, size: 1 << 20)
        try tool.create(disk, .qcow2, size: 1 << 20, backing: DiskSource(path: base, driver: .raw))
        try tool.resize(DiskSource(path: disk, driver: .qcow2), to: 2 << 20)
        try tool.flatten(
            [DiskSource(path: disk, driver: .qcow2), DiskSource(path: base, driver: .raw)], to: copy, .qcow2, size: 2 << 20)
        try tool.convert(try ForeignDisk(path: copy, declared: "qcow2"), to: scratch.path + "/raw", .raw, size: 2 << 20)
        let commands = Set(RecordedTools.shared.commands.filter { $0.contains("/usr/bin/qemu-img") }.map { $0[1] })
        #expect(commands.isSuperset(of: ["create", "resize", "convert", "info"]), "\(commands)")
        #expect(RecordedTools.shared.newProblems() == [])
    }
}
