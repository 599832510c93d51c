package import BlockStorageCore
import CDispatch
package import Commands
import Cryptography
import DiskTool
package import FileTransfer
import Glibc
import ImageFormat
package import JSON
import Kernel
import NIOCore
import Synchronization

/// Disks as files in one directory.
///
/// A disk appears under its name when it is complete and synced. Until then it is `NAME.part`, and its writers, including
/// tools, hold a lock on `NAME.lock`, which the kernel releases when the last of them has ended.
package final class FileDriver: VolumeDriver {
    package let name = "file"
    /// Files are sparse. Raw files can be shared, because all guests open the same file without a cache.
    package let capabilities: Set<String> = ["thin_provisioning_support", TypeRequirements.multiattach]
    let directory: String
    private let images: any ImageSource
    private let sandbox: Sandbox
    let threads = WorkerThreads(name: "volumes", count: FileDriver.copiesMax + 4)
    /// Told when a copy has ended, well or badly.
    private let ended: @Sendable (String) async -> Void
    private let jobs = Mutex<[String: Job]>([:])

    /// Copies under way at the same time at most.
    private static let copiesMax = 8
    /// Concurrent copies of one project, so that other projects can copy too.
    private static let copiesPerProjectMax = 4

    private enum Job: Sendable {
        case running(Task<Void, Never>, project: String)
        case failed(any Error)

        func isRunning(for project: String) -> Bool { if case .running(_, project) = self { true } else { false } }
    }

    /// - Parameter sandbox: runs the tools that read and write disks.
    /// - Throws: `FileError` if the directory cannot be created or written.
    package init(
        directory: String, images: any ImageSource, sandbox: Sandbox = Sandbox(),
        ended: @escaping @Sendable (String) async -> Void = { _ in }
    ) throws {
        guard directory.hasPrefix("/") else {
            throw ResourceError.badRequest("the volumes' directory must be an absolute path: \(directory)")
        }
        self.directory = directory
        self.images = images
        self.sandbox = sandbox
        self.ended = ended
        var partial = ""
        for part in directory.split(separator: "/") {
            partial += "/" + part
            guard mkdir(partial, partial.utf8.count < directory.utf8.count ? 0o755 : 0o711) == 0 || errno == EEXIST else {
                throw FileError.last("create the directory", partial)
            }
        }
        guard access(directory, W_OK | X_OK) == 0 else { throw FileError.last("write to", directory) }
        try FileDriver.closeToOthers(directory)
    }

    deinit { threads.close() }

    func path(_ object: StoredObject) -> String { "\(directory)/\(object.name)" }
    func partPath(_ object: StoredObject) -> String { path(object) + ".part" }
    func imagePath(_ object: StoredObject) -> String { path(object) + ".image" }
    func lockPath(_ object: StoredObject) -> String { path(object) + ".lock" }

    // MARK: VolumeDriver

    package func capacity() async throws -> DriverCapacity {
        try await threads.run { [directory] in
            var status = statvfs()
            guard statvfs(directory, &status) == 0 else { throw FileError.last("look at", directory) }
            let unit = Int(status.f_frsize)
            return DriverCapacity(
                total: Int(status.f_blocks) * unit >> 30, free: Int(status.f_bavail) * unit >> 30)
        }
    }

    package func create(_ object: StoredObject) async throws {
        try await threads.run { [self] in
            guard try !exists(path(object)) else { return }
            let part = partPath(object)
            try FileDriver.remove(part)
            try DiskTool(sandbox).create(part, object.format.driver, size: object.bytes)
            try publish(object)
        }
    }

    package func copy(_ source: StoredObject, to target: StoredObject) async throws -> Bool {
        try await advance(target) { [self] lock in
            let source = DiskSource(path: path(source), driver: source.format.driver)
            try await write(target, lock) { tool, part in
                try tool.copy(source, to: part, target.format.driver, size: target.bytes)
            }
        }
    }

    package func fill(_ target: StoredObject, from image: SourceImage) async throws -> Bool {
        try await advance(target) { [self] lock in
            let data = imagePath(target)
            do {
                try await fetch(image, into: data)
                try await write(target, lock) { tool, part in
                    let disk = try ForeignDisk(path: data, declared: image.diskFormat ?? "")
                    try tool.convert(disk, to: part, target.format.driver, size: target.bytes)
                }
                try await threads.run { try FileDriver.remove(data) }
            } catch {
                try await threads.run { try FileDriver.remove(data) }
                throw error
            }
        }
    }

    package func adopt(_ object: StoredObject) async throws {
        try await threads.run { [self] in
            guard try !exists(path(object)) else { return }
            let part = partPath(object)
            switch object.format {
            case .raw:
                var status = stat()
                guard lstat(part, &status) == 0 else { throw FileError.last("look at", part) }
                guard status.st_mode & S_IFMT == S_IFREG, Int(status.st_size) == object.bytes else {
                    throw ImageRefusal("the host's copy has \(status.st_size) bytes instead of \(object.bytes)")
                }
            case .qcow2:
                let size = try ForeignDisk(path: part, declared: "qcow2").header.virtualSize
                guard size == object.bytes else {
                    throw ImageRefusal("the host's copy has \(size ?? 0) bytes instead of \(object.bytes)")
                }
            }
            try publish(object)
        }
    }

    package func replace(_ object: StoredObject, by new: StoredObject) async throws {
        try await threads.run { [self] in
            guard try exists(path(new)) else { return }
            guard rename(path(new), path(object)) == 0 else { throw FileError.last("publish", path(object)) }
            try syncDirectory()
        }
    }

    package func extend(_ object: StoredObject, to size: Int) async throws {
        try await threads.run { [self] in
            switch object.format {
            case .raw: try FileDriver.resize(path(object), to: size << 30)
            case .qcow2: try DiskTool(sandbox).resize(DiskSource(path: path(object), driver: .qcow2), to: size << 30)
            }
        }
    }

    package func restoreSize(_ object: StoredObject) async throws {
        let isSmaller = try await threads.run { [self] () -> Bool in
            guard try exists(path(object)) else { return false }
            switch object.format {
            case .raw:
                var status = stat()
                guard lstat(path(object), &status) == 0 else { throw FileError.last("look at", path(object)) }
                return Int(status.st_size) < object.bytes
            case .qcow2: return try ForeignDisk(path: path(object), declared: "qcow2").header.virtualSize ?? 0 < object.bytes
            }
        }
        if isSmaller { try await extend(object, to: object.size) }
    }

    package func delete(_ object: StoredObject) async throws {
        let running = jobs.withLock { jobs -> Task<Void, Never>? in
            if case .running(let task, _) = jobs[object.name] { return task }
            jobs[object.name] = nil
            return nil
        }
        if let running {
            running.cancel()
            await running.value
            jobs.withLock { $0[object.name] = nil }
        }
        try await threads.run { [self] in
            guard let lock = try lock(object) else {
                throw ResourceError.unavailable("\(object.name) is still being written by another process")
            }
            defer { close(lock) }
            for path in [path(object), partPath(object), imagePath(object)] { try FileDriver.remove(path) }
            try syncDirectory()
            try FileDriver.remove(lockPath(object))
        }
    }

    package func file(of object: StoredObject) -> String { path(object) }

    package func connection(_ object: StoredObject, readOnly: Bool, isShared: Bool) -> JSONObject {
        var connection: JSONObject = [
            "driver": "file", "path": .string(path(object)), "format": .string(object.format.rawValue),
            "read_only": .bool(readOnly),
        ]
        if isShared { connection["multiattach"] = true }
        return connection
    }

    // MARK: copies

    /// Checks the job that creates `target`, or starts it.
    private func advance(
        _ target: StoredObject, _ work: @escaping @Sendable (Int32) async throws -> Void
    ) async throws -> Bool {
        // A job that has published its disk may still be cleaning up; its end wakes the waiting workflow.
        let isRunning = jobs.withLock { jobs in if case .running = jobs[target.name] { true } else { false } }
        if isRunning { return false }
        if try await threads.run({ [self] in try settle(target) }) {
            jobs.withLock { $0[target.name] = nil }
            return true
        }
        let isFull = try jobs.withLock { jobs -> Bool in
            if case .failed(let error) = jobs[target.name] {
                jobs[target.name] = nil
                throw error
            }
            return jobs.count >= FileDriver.copiesMax
                || jobs.values.count { $0.isRunning(for: target.project) } >= FileDriver.copiesPerProjectMax
        }
        if isFull { return false }
        // Another process holds the lock, or the tool of a dead process, which continues.
        guard let lock = try await threads.run({ [self] in try lock(target) }) else { return false }
        if try await threads.run({ [self] in try settle(target) }) {
            close(lock)
            return true
        }
        jobs.withLock { jobs in
            // Registered before the job can end, because its end waits for the mutex.
            jobs[target.name] = .running(
                Task { [self] in
                    var failure: (any Error)?
                    do { try await work(lock) } catch { failure = error }
                    close(lock)
                    self.jobs.withLock { jobs in jobs[target.name] = failure.map { .failed($0) } }
                    await ended(target.id)
                }, project: target.project)
        }
        return false
    }

    /// Whether the disk is published. If so, also removes leftovers of a process that died right after publishing it.
    private func settle(_ object: StoredObject) throws -> Bool {
        guard try exists(path(object)) else { return false }
        for path in [imagePath(object), lockPath(object)] { try FileDriver.remove(path) }
        return true
    }

    /// Runs a tool that writes the incomplete disk, and publishes it.
    private func write(
        _ target: StoredObject, _ lock: Int32, _ body: @escaping @Sendable (DiskTool, String) throws -> Void
    ) async throws {
        try Task.checkCancellation()
        let part = partPath(target)
        let tool = DiskTool(sandbox, holding: lock)
        try await withTaskCancellationHandler {
            try await threads.run { [self] in
                try FileDriver.remove(part)
                do { try body(tool, part) } catch {
                    try FileDriver.remove(part)
                    throw error
                }
                try publish(target)
            }
        } onCancel: {
            tool.cancel()
        }
    }

    /// Downloads an image and checks it on the way.
    private func fetch(_ image: SourceImage, into path: String) async throws {
        let writer = try await threads.run {
            try FileDriver.remove(path)
            return try HashingWriter(path: path, [.sha512])
        }
        try await images.download(image.id, as: image.subject) { [self] chunk in
            try Task.checkCancellation()
            try await threads.run { try writer.append(chunk) }
        }
        let hash = try await threads.run {
            writer.close()
            return writer.hash(.sha512)
        }
        guard writer.size == image.size else {
            throw ResourceError.unavailable("image \(image.id): \(writer.size) of \(image.size) bytes arrived")
        }
        if let wanted = image.hashValue, wanted.lowercased() != hash {
            throw ResourceError.unavailable("the data of image \(image.id) does not match its hash")
        }
    }

    // MARK: files

    private func exists(_ path: String) throws -> Bool {
        if access(path, F_OK) == 0 { return true }
        guard errno == ENOENT else { throw FileError.last("look at", path) }
        return false
    }

    /// The lock of a disk being created; nil while another process holds it.
    func lock(_ object: StoredObject) throws -> Int32? {
        let path = lockPath(object)
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileError.last("create", path) }
        if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return descriptor }
        let number = errno
        close(descriptor)
        guard number == EWOULDBLOCK else { throw FileError(operation: "lock", path: path, number: number) }
        return nil
    }

    private func publish(_ object: StoredObject) throws {
        let part = partPath(object)
        let descriptor = open(part, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError.last("open", part) }
        defer { close(descriptor) }
        // Remove the sandbox group's access to a finished disk.
        guard fchown(descriptor, uid_t.max, getegid()) == 0, fchmod(descriptor, 0o600) == 0, fsync(descriptor) == 0 else {
            throw FileError.last("flush", part)
        }
        guard rename(part, path(object)) == 0 else { throw FileError.last("publish", path(object)) }
        try syncDirectory()
        try FileDriver.remove(lockPath(object))
    }

    private func syncDirectory() throws {
        let parent = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard parent >= 0 else { throw FileError.last("open", directory) }
        defer { close(parent) }
        guard fsync(parent) == 0 else { throw FileError.last("flush", directory) }
    }

    static func remove(_ path: String) throws {
        if unlink(path) != 0, errno != ENOENT { throw FileError.last("remove", path) }
    }

    /// Other users may traverse the directory but not list or change it, because QEMU runs as a different user.
    private static func closeToOthers(_ directory: String) throws {
        var status = stat()
        guard stat(directory, &status) == 0 else { throw FileError.last("look at", directory) }
        guard status.st_mode & 0o066 != 0 else { return }
        guard chmod(directory, status.st_mode & 0o711) == 0 else { throw FileError.last("change the mode of", directory) }
    }

    /// Enlarges a sparse file; never shrinks it.
    private static func resize(_ path: String, to bytes: Int) throws {
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { throw FileError.last("open", path) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw FileError.last("look at", path) }
        guard status.st_size < off_t(bytes) else { return }
        guard ftruncate(descriptor, off_t(bytes)) == 0, fsync(descriptor) == 0 else {
            throw FileError.last("extend", path)
        }
    }
}

extension VolumeFormat {
    fileprivate var driver: DiskDriver {
        switch self {
        case .raw: .raw
        case .qcow2: .qcow2
        }
    }
}
