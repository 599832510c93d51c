package import Commands
package import DiskTool
import Glibc
import Kernel
import Synchronization

/// Creates servers' disks. Calls block; make them on a thread of a `WorkerThreads`.
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
    /// Gives a raw or qcow2 disk at least a size in bytes, or exactly this size if it `shrinks`; what is beyond it is then lost.
    ///
    /// - Throws: `SandboxError`, `CommandError`, `FileError`.
    func resize(_ disk: DiskSource, to size: Int, shrinks: Bool) throws
    /// Writes the files below `tree`, of `sizes` bytes, as an ISO 9660 file system with the label of a config drive.
    ///
    /// - Throws: `SandboxError`, `CommandError`, `FileError`.
    func makeISO(of tree: String, into file: String, sizes: [Int]) throws
    /// Copies a disk and its backing files to a new disk without a backing file.
    ///
    /// - Parameters:
    ///   - layers: the disk and its backing files, from the top. No QEMU may have the disk open for writing.
    ///   - format: `raw` or `qcow2`.
    ///   - size: the size of the new disk in bytes.
    ///   - cancellation: ends it from another thread.
    /// - Throws: `SandboxError`, `CommandError`, `FileError`, `CancellationError`.
    func copy(_ layers: [DiskSource], to path: String, _ format: DiskDriver, size: Int, _ cancellation: CopyCancellation) throws
    /// Whether the file of a volume exists.
    func hasVolume(_ path: String) -> Bool
}

/// Ends a copy that runs on another thread.
package final class CopyCancellation: Sendable {
    private struct State {
        var isCancelled = false
        var tool: DiskTool?
    }

    private let state = Mutex(State())

    package init() {}

    /// Ends the copy, also one that begins later.
    package func cancel() {
        let tool = state.withLock { state in
            state.isCancelled = true
            return state.tool
        }
        tool?.cancel()
    }

    /// Cancels this tool from now on.
    func hold(_ tool: DiskTool) {
        let isCancelled = state.withLock { state in
            state.tool = tool
            return state.isCancelled
        }
        if isCancelled { tool.cancel() }
    }
}

/// Creates disks with tools in the sandbox.
package struct SandboxedDiskMaker: DiskMaker {
    private let sandbox: Sandbox

    package init(_ sandbox: Sandbox) { self.sandbox = sandbox }

    package func create(_ path: String, size: Int, backing: DiskSource?) throws {
        try DiskTool(sandbox).create(path, .qcow2, size: size, backing: backing)
    }

    package func copy(_ layers: [DiskSource], to path: String, _ format: DiskDriver, size: Int, _ cancellation: CopyCancellation) throws {
        let tool = DiskTool(sandbox)
        cancellation.hold(tool)
        try tool.flatten(layers, to: path, format, size: size)
    }

    package func grow(_ path: String, to size: Int) throws {
        try DiskTool(sandbox).resize(DiskSource(path: path, driver: .qcow2), to: size)
    }

    package func resize(_ disk: DiskSource, to size: Int, shrinks: Bool) throws {
        guard disk.driver == .raw else {
            try DiskTool(sandbox).resize(disk, to: size, shrinks: shrinks)
            return try ServerDisks.takeBack(disk.path)
        }
        if !shrinks, let present = Files.size(disk.path), present >= size { return }
        guard truncate(disk.path, off_t(size)) == 0 else { throw FileError.last("change the size of", disk.path) }
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
