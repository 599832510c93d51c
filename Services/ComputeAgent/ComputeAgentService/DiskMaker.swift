package import Commands
package import DiskTool
import Kernel

/// Creates the contents of servers' disks. Calls block; they must be made on a thread of a `WorkerThreads`.
package protocol DiskMaker: Sendable {
    /// Creates a qcow2 disk.
    ///
    /// - Parameter size: the size of the disk in bytes.
    /// - Throws: `SandboxError`, `CommandError`, `FileError`.
    func create(_ path: String, size: Int, backing: DiskSource?) throws
    /// Enlarges a qcow2 disk to `size` bytes.
    ///
    /// - Throws: `SandboxError`, `CommandError`, `FileError`.
    func grow(_ path: String, to size: Int) throws
    /// Writes the files below `tree`, of `sizes` bytes, as an ISO 9660 file system with the label of a config drive.
    ///
    /// - Throws: `SandboxError`, `CommandError`, `FileError`.
    func makeISO(of tree: String, into file: String, sizes: [Int]) throws
    /// Whether the file of a volume exists.
    func hasVolume(_ path: String) -> Bool
}

/// Makes disks with tools in the sandbox.
package struct SandboxedDiskMaker: DiskMaker {
    private let sandbox: Sandbox

    package init(_ sandbox: Sandbox) { self.sandbox = sandbox }

    package func create(_ path: String, size: Int, backing: DiskSource?) throws {
        try DiskTool(sandbox).create(path, .qcow2, size: size, backing: backing)
    }

    package func grow(_ path: String, to size: Int) throws {
        try DiskTool(sandbox).resize(DiskSource(path: path, driver: .qcow2), to: size)
    }

    /// Maximum overhead of an ISO 9660 file system in bytes: two directory trees, and padding.
    private static let isoOverhead = 4 << 20

    /// The files contain data of tenants (user data, personality, metadata), so the tool that reads them is confined.
    package func makeISO(of tree: String, into file: String, sizes: [Int]) throws {
        let limit = sizes.reduce(SandboxedDiskMaker.isoOverhead) { $0 + $1 + 4096 }
        try sandbox.command(
            [
                "/usr/bin/genisoimage", "-quiet", "-o", Sandbox.name(1), "-ldots", "-allow-lowercase", "-allow-multidot",
                "-l", "-J", "-r", "-V", "config-2", "-publisher", "Wolke", Sandbox.name(0),
            ], files: [.readingTree(tree), .writing(file)],
            limits: Sandbox.Limits(fileSize: limit, cpuSeconds: 30, time: .seconds(60))
        ).run()
    }

    package func hasVolume(_ path: String) -> Bool { Files.exists(path) }
}
