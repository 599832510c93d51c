package import Commands
import Glibc
import ImageFormat
import JSON
import Kernel
import Synchronization

/// The only access to QEMU's disk tool: every run is sandboxed, and every file is opened with an explicit driver.
///
/// A value is used for one task on one thread, which it blocks; `cancel` ends it from another thread.
package final class DiskTool: Sendable {
    private static let program = "/usr/bin/qemu-img"
    private let sandbox: Sandbox
    /// A lock of the caller that its tools also hold.
    private let lock: Int32?
    private let state = Mutex<State>(State())

    private struct State {
        var running: SandboxedCommand?
        var isCancelled = false
    }

    package init(_ sandbox: Sandbox, holding lock: Int32? = nil) {
        self.sandbox = sandbox
        self.lock = lock
    }

    /// Kills the tool; later calls throw `CancellationError`.
    package func cancel() {
        let running = state.withLock { state in
            state.isCancelled = true
            return state.running
        }
        running?.cancel()
    }

    // MARK: untrusted disks

    /// The size of the disk in the image, determined by QEMU.
    ///
    /// - Parameter largest: maximum size in bytes.
    /// - Throws: `ImageRefusal` if the size is unknown, differs from our parser's, or is too large, and if QEMU reports
    ///   properties that our parser should have refused; `SandboxError`, `CommandError`, `CancellationError`.
    package func measure(_ disk: ForeignDisk, largest: Int) throws -> Int {
        let text = try run(
            ["info", "--output=json", DiskNode(driver: disk.driver, path: Sandbox.name(0)).filename],
            files: [.reading(disk.path)], limits: Sandbox.Limits(fileSize: 0))
        // QEMU may print warnings before or after the document.
        guard let start = text.firstIndex(of: "{"), let end = text.lastIndex(of: "}"), start < end else {
            throw ImageRefusal("the size of the disk in the image is unknown")
        }
        let info: JSONValue
        do { info = try JSONValue.parse(String(text[start...end])) } catch {
            throw ImageRefusal("the size of the disk in the image is unknown")
        }
        guard let size = info["virtual-size"]?.intValue, let expected = disk.header.virtualSize else {
            throw ImageRefusal("the size of the disk in the image is unknown")
        }
        guard info["format"]?.stringValue == disk.driver.rawValue, info["backing-filename"] == nil,
            info["encrypted"]?.boolValue != true, info["snapshots"] == nil,
            info["format-specific"]?["data"]?["data-file"] == nil
        else { throw ImageRefusal("the image refers to other data, is encrypted or has snapshots") }
        guard size == (expected + 511) / 512 * 512 else {
            throw ImageRefusal("the image's header says \(expected) bytes, but the disk in it has \(size)")
        }
        guard size <= largest else {
            throw ImageRefusal("the disk in the image has \(size) bytes, more than the requested \(largest)")
        }
        return size
    }

    /// Copies an untrusted disk's content to a new disk of exactly `size` bytes.
    ///
    /// - Parameters:
    ///   - target: a path that does not exist yet.
    ///   - format: `raw` or `qcow2`.
    ///   - bytesMax: the largest file. A small image can contain a large disk without holes, by tables that refer to one cluster many times
    ///     or by compressed data.
    /// - Throws: `DiskTooLarge` if the file would be larger; otherwise like `measure`; `FileError`.
    package func convert(_ disk: ForeignDisk, to target: String, _ format: DiskDriver, size: Int, bytesMax: Int? = nil) throws {
        _ = try measure(disk, largest: (size + 511) / 512 * 512)
        try flatten([DiskSource(path: disk.path, driver: disk.driver)], to: target, format, size: size, bytesMax: bytesMax)
    }

    // MARK: own disks

    /// Copies the content of one of our own disks to a new disk of exactly `size` bytes; see `convert`.
    package func copy(_ source: DiskSource, to target: String, _ format: DiskDriver, size: Int) throws {
        try flatten([source], to: target, format, size: size)
    }

    /// Copies the content of one of our own disks and its backing files to a new disk of exactly `size` bytes without a backing file; see
    /// `convert`.
    ///
    /// - Parameters:
    ///   - layers: the disk and its backing files, from the top.
    ///   - bytesMax: the largest file. It also determines the time limit.
    package func flatten(_ layers: [DiskSource], to target: String, _ format: DiskDriver, size: Int, bytesMax: Int? = nil) throws {
        try create(target, format, size: size)
        let fileSize = DiskTool.fileSizeMax(format, size: size)
        let seconds = min(size, bytesMax ?? size) >> 24
        var limits = Sandbox.Limits(
            fileSize: min(fileSize, bytesMax ?? fileSize), cpuSeconds: 300 + seconds, time: .seconds(600 + 4 * seconds))
        limits.memory = 4 << 30
        let nodes = layers.enumerated().map { DiskNode(driver: $1.driver, path: Sandbox.name($0)) }
        guard let top = nodes.first else { return }
        do {
            try run(
                [
                    "convert", "-q", "-n", "--target-is-zero", "--target-image-opts",
                    DiskNode(driver: top.driver, path: top.path, below: Array(nodes.dropFirst())).filename,
                    DiskNode(driver: format, path: Sandbox.name(layers.count)).targetOptions,
                ],
                files: layers.map { .reading($0.path) } + [.writing(target)], limits: limits)
        } catch let error as CommandError where limits.fileSize < fileSize && DiskTool.isAtFileSize(error) {
            throw DiskTooLarge(bytesMax: limits.fileSize)
        }
    }

    /// Whether the tool ended because its file reached the limit (setrlimit(2), RLIMIT_FSIZE).
    private static func isAtFileSize(_ error: CommandError) -> Bool {
        error.status == nil || error.status == 128 + Int(SIGXFSZ) || error.output.contains("File too large")
    }

    /// Creates an empty disk of `size` bytes.
    ///
    /// - Parameters:
    ///   - path: a path that does not exist yet.
    ///   - backing: our own disk that becomes the backing file; only its name is written, it is not opened.
    package func create(_ path: String, _ format: DiskDriver, size: Int, backing: DiskSource? = nil) throws {
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileError.last("create", path) }
        defer { close(descriptor) }
        if format == .raw {
            guard ftruncate(descriptor, off_t(size)) == 0 else { throw FileError.last("extend", path) }
            return
        }
        let below = backing.map { ["-u", "-b", $0.path, "-F", $0.driver.rawValue] } ?? []
        try run(
            ["create", "-q", "-f", format.rawValue] + below + [Sandbox.name(0), String(size)], files: [.writing(path)],
            limits: Sandbox.Limits(fileSize: DiskTool.fileSizeMax(format, size: size)))
    }

    /// Changes the size of one of our own disks.
    ///
    /// - Parameter shrinks: whether a smaller size is allowed, with which the rest of the content is lost.
    package func resize(_ disk: DiskSource, to size: Int, shrinks: Bool = false) throws {
        try run(
            ["resize", "-q"] + (shrinks ? ["--shrink"] : []) + [
                DiskNode(driver: disk.driver, path: Sandbox.name(0)).filename, String(size),
            ],
            files: [.writing(disk.path)],
            limits: Sandbox.Limits(fileSize: DiskTool.fileSizeMax(disk.driver, size: size)))
    }

    /// The maximum file size of a disk: its size, and for qcow2 its tables (less than 1/1024 of it, and a minimum).
    static func fileSizeMax(_ format: DiskDriver, size: Int) -> Int {
        format == .raw ? size : size + size / 1024 + (16 << 20)
    }

    @discardableResult
    private func run(_ arguments: [String], files: [Sandbox.File], limits: Sandbox.Limits) throws -> String {
        let command = try sandbox.command([DiskTool.program] + arguments, files: files, limits: limits)
        try state.withLock { state in
            if state.isCancelled { throw CancellationError() }
            state.running = command
        }
        defer { state.withLock { $0.running = nil } }
        return try command.run(inheriting: lock)
    }
}

/// The disk needs a larger file than it may have.
package struct DiskTooLarge: Error, Sendable {
    package let bytesMax: Int
}

/// A disk that was created by this module.
package struct DiskSource: Sendable {
    package let path: String
    package let driver: DiskDriver

    package init(path: String, driver: DiskDriver) {
        self.path = path
        self.driver = driver
    }
}
