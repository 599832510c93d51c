import CDispatch
package import Commands
package import ComputeAgentCore
import Cryptography
import DiskTool
package import FileTransfer
import Glibc
import ImageFormat
package import Kernel
import Libvirt
package import Logging
import NIOCore

/// A permanent failure; retrying does not help.
package struct PermanentFailure: Error, Sendable, CustomStringConvertible {
    /// For the tenant: with the API's terms, without names of files, hosts or tools.
    package let reason: String
    /// For the operator only.
    package let details: String?

    package init(_ reason: String, details: String? = nil) {
        self.reason = reason
        self.details = details
    }

    package var description: String { details.map { "\(reason): \($0)" } ?? reason }
}

/// An image as a file that never changes again.
package struct CachedImage: Sendable, Hashable {
    package let path: String
    /// `raw` or `qcow2`.
    package let format: String
    /// Bytes of the disk inside.
    package let virtualSize: Int
}

/// The images used by servers of this host. Each is downloaded once, verified while it is written, and published atomically
/// under a name that is unique to its content. Running guests use them as backing files.
package actor ImageCache {
    private let directory: String
    private let source: any ImageSource
    private let sandbox: Sandbox
    private let threads: WorkerThreads
    private let ambient: Ambient
    private let log: Logger
    private var loading: [String: Loading] = [:]
    private var nextWaiter = 0

    /// A load under way and who waits for it.
    private struct Loading {
        var waiters: [Int: CheckedContinuation<CachedImage, any Error>] = [:]
        /// The largest disk, in bytes, that any of the callers can use.
        var largest = 0
    }

    /// - Throws: `FileError`.
    package init(
        directory: String, source: any ImageSource, sandbox: Sandbox, threads: WorkerThreads, ambient: Ambient,
        log: Logger
    ) throws {
        self.directory = directory
        self.source = source
        self.sandbox = sandbox
        self.threads = threads
        self.ambient = ambient
        self.log = log
        try Files.makePassableDirectory(directory)
        // Removes incomplete downloads of a crashed process.
        for name in try Files.list(directory) where name.hasPrefix(".") { try Files.remove("\(directory)/\(name)") }
    }

    /// The image as a local file; loads it when it is not here yet. Several callers share one download, and each may
    /// be cancelled without ending it for the others.
    ///
    /// - Parameter largest: the maximum size in bytes of the disk in an image that has to be converted.
    /// - Throws: `PermanentFailure` when the content is not what it must be; `CancellationError`.
    package func ensure(_ image: DesiredImage, largest: Int) async throws -> CachedImage {
        let key = ImageCache.key(image)
        if loading[key] == nil {
            loading[key] = Loading()
            Task { await self.lead(image, key: key) }
        }
        if largest > loading[key]?.largest ?? 0 { loading[key]?.largest = largest }
        let waiter = nextWaiter
        nextWaiter += 1
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { loading[key]?.waiters[waiter] = $0 }
        } onCancel: {
            Task { await self.giveUp(waiter, key: key) }
        }
    }

    /// Loads an image before a server needs it. The disk in the image may be as large as the Image service reports, which is also the
    /// limit for a server whose flavor has no size.
    ///
    /// - Throws: as `ensure`; `PermanentFailure` for an image of unknown size.
    func loadAhead(_ image: DesiredImage) async throws {
        guard let largest = image.largest else { throw PermanentFailure("the size of the disk in image \(image.id) is unknown") }
        _ = try await ensure(image, largest: largest)
    }

    private func giveUp(_ waiter: Int, key: String) {
        loading[key]?.waiters.removeValue(forKey: waiter)?.resume(throwing: CancellationError())
    }

    private func lead(_ image: DesiredImage, key: String) async {
        var result: Result<CachedImage, any Error>
        while true {
            do { result = .success(try await load(image, key: key)) } catch let error as ImageTooLarge {
                // Another caller with a larger flavor may have joined in the meantime.
                let largest = loading[key]?.largest ?? 0
                if largest >= error.size { continue }
                result = .failure(
                    PermanentFailure(
                        """
                        the flavor's root disk of \(largest >> 30) GiB is too small for the image, which needs \
                        \((error.size - 1) >> 30 + 1) GiB
                        """
                    ))
            } catch { result = .failure(error) }
            break
        }
        let waiters = loading.removeValue(forKey: key)?.waiters ?? [:]
        for waiter in waiters.values { waiter.resume(with: result) }
    }

    /// The disk in an image is larger than any of the callers can use.
    private struct ImageTooLarge: Error { let size: Int }

    /// Whether `path` is a cache file with the image's content, and its format.
    package nonisolated func format(of path: String, for image: DesiredImage) -> String? {
        guard path.hasPrefix("\(directory)/\(ImageCache.key(image)).") else { return nil }
        return path.hasSuffix(".raw") ? "raw" : "qcow2"
    }

    /// The name consists of the image's id and the hash of its content. The content of an id never changes, but the cache
    /// should not depend on that.
    static func key(_ image: DesiredImage) -> String {
        let hash = (image.contentHash ?? image.checksum ?? "unhashed").lowercased().filter { $0.isHexDigit }
        return "\(image.id)-\(hash.prefix(16))"
    }

    /// The file of an image that is already cached.
    ///
    /// Converted disks have names of their own, because an earlier version cached qcow2 images unconverted.
    private func file(_ key: String) -> (path: String, format: DiskDriver)? {
        for (suffix, format) in [(".raw", DiskDriver.raw), (ImageCache.convertedSuffix, .qcow2)] {
            let path = directory + "/" + key + suffix
            if Files.exists(path) { return (path, format) }
        }
        return nil
    }

    private static let convertedSuffix = ".disk.qcow2"

    private func load(_ image: DesiredImage, key: String) async throws -> CachedImage {
        if let found = file(key) { return try await open(found.path, found.format) }
        let temporary = "\(directory)/.\(key).\(ambient.newUUID())"
        let converted = temporary + ".qcow2"
        do {
            let started = ambient.time.monotonicNanoseconds()
            try await fetch(image, into: temporary)
            let disk = try await readingForeign { try ForeignDisk(path: temporary, declared: image.diskFormat) }
            let cached = try await publish(disk, converted: converted, key: key)
            try await threads.run { try Files.remove(temporary) }
            let seconds = Double(ambient.time.monotonicNanoseconds() - started) / 1e9
            log.info(
                "image loaded", metadata: ["image": "\(image.id)", "seconds": "\(seconds)", "path": "\(cached.path)"])
            return cached
        } catch {
            try await threads.run { for path in [temporary, converted] { try Files.remove(path) } }
            throw error
        }
    }

    /// Runs `body` on a thread, and converts its errors about untrusted data to messages for the tenant.
    private func readingForeign<Value: Sendable>(
        _ body: @escaping @Sendable () throws -> Value
    ) async throws -> Value {
        do { return try await threads.run(body) } catch let error as ImageRefusal {
            throw PermanentFailure("the image cannot be used: \(error.reason)")
        } catch let error as SandboxError {
            log.error("images cannot be read", metadata: ["error": "\(error)"])
            throw PermanentFailure("the image cannot be used: this host cannot read it safely")
        } catch let error as CommandError {
            log.error("an image cannot be read", metadata: ["error": "\(error)"])
            // A temporary problem of the host: its disk is full, or the tool was killed.
            if error.status == nil || error.output.contains("No space left on device") { throw error }
            throw PermanentFailure("the image cannot be used: its data cannot be read as a disk")
        }
    }

    private func open(_ path: String, _ format: DiskDriver) async throws -> CachedImage {
        let disk = try await readingForeign { try ForeignDisk(path: path, declared: format.rawValue) }
        return CachedImage(path: path, format: format.rawValue, virtualSize: disk.header.virtualSize ?? 0)
    }

    private func fetch(_ image: DesiredImage, into path: String) async throws {
        let download = try await threads.run { try CheckedDownload(path: path, image: image) }
        do {
            try await source.download(image.id, as: image.subject) { [threads] chunk in
                try await threads.run { try download.append(chunk) }
            }
            try await threads.run { try download.finish() }
        } catch {
            try await threads.run { download.abandon() }
            throw ImageCache.permanent(error, image.id)
        }
    }

    /// An answer of the Image service that a retry will not change, with a message for the tenant.
    private static func permanent(_ error: any Error, _ id: String) -> any Error {
        guard let answer = error as? ResourceError else { return error }
        return switch answer.code {
        case .notFound: PermanentFailure("image \(id) does not exist")
        case .forbidden, .conflict: PermanentFailure("image \(id) cannot be read: \(answer.message)")
        default: answer
        }
    }

    private func publish(_ disk: ForeignDisk, converted: String, key: String) async throws -> CachedImage {
        var (file, path, format) = (disk.path, "\(directory)/\(key).raw", DiskDriver.raw)
        if disk.driver != .raw {
            // Metadata of untrusted images is parsed only once, in the sandbox; the QEMU of a running guest only opens
            // images written by us.
            guard let size = disk.header.virtualSize else {
                throw PermanentFailure("the image cannot be used: the size of the disk in it is unknown")
            }
            guard size <= loading[key]?.largest ?? 0 else { throw ImageTooLarge(size: size) }
            try await readingForeign { [sandbox] in
                try DiskTool(sandbox).convert(disk, to: converted, .qcow2, size: size)
            }
            (file, path, format) = (converted, directory + "/" + key + ImageCache.convertedSuffix, .qcow2)
        }
        let (source, target) = (file, path)
        try await threads.run {
            // libvirt changes its owner to QEMU's user when a guest starts.
            guard chown(source, uid_t.max, getegid()) == 0, chmod(source, 0o440) == 0 else {
                throw FileError.last("change the mode of", source)
            }
            try Files.publish(source, as: target)
        }
        return try await open(path, format)
    }

    /// Lists the files of downloads in progress.
    nonisolated func partialFiles(of images: [DesiredImage]) -> @Sendable () throws -> [String] {
        let prefixes = images.map { ".\(ImageCache.key($0))." }
        return { [directory] in
            try Files.list(directory).filter { name in prefixes.contains { name.hasPrefix($0) } }.map { "\(directory)/\($0)" }
        }
    }

    /// Removes an image that was created for one server only, after its disk is a copy of it. Does nothing while the image is being
    /// downloaded.
    ///
    /// - Parameter inUse: backing files of disks, which must stay.
    func release(_ image: DesiredImage, inUse: Set<String>) async throws {
        let key = ImageCache.key(image)
        guard loading[key] == nil, let found = file(key), !inUse.contains(found.path) else { return }
        try await threads.run { try Files.remove(found.path) }
    }

    /// Removes images that were not used during `lifetime`.
    ///
    /// - Parameter inUse: backing files of disks, which must stay.
    package func prune(inUse: Set<String>, lifetime: Duration) async throws {
        let directory = directory
        let now = ambient.now.seconds
        let loadingKeys = Set(loading.keys)
        try await threads.run {
            for name in try Files.list(directory) where !name.hasPrefix(".") {
                let key = name.firstIndex(of: ".").map { String(name[..<$0]) } ?? name
                var info = stat()
                guard !inUse.contains("\(directory)/\(name)"), !loadingKeys.contains(key), stat("\(directory)/\(name)", &info) == 0,
                    now - Int64(max(info.st_atim.tv_sec, info.st_mtim.tv_sec)) > lifetime.components.seconds
                else { continue }
                try Files.remove("\(directory)/\(name)")
            }
        }
    }
}

/// A download that is checked while it is written. Used by one caller at a time, on changing threads.
private struct CheckedDownload: Sendable {
    let image: DesiredImage
    private let writer: HashingWriter
    /// The checksum to verify; nil if none is known.
    private let check: (algorithm: HashAlgorithm, wanted: String)?

    /// - Throws: `FileError`; `PermanentFailure` for a hash algorithm that this host does not support.
    init(path: String, image: DesiredImage) throws {
        self.image = image
        switch (image.hashAlgorithm, image.contentHash) {
        case ("sha512", let value?): check = (.sha512, value)
        case ("sha256", let value?): check = (.sha256, value)
        // Only if there is no better hash: it takes as much time.
        case (_, nil): check = image.checksum.map { (.md5, $0) }
        case (let algorithm, _):
            throw PermanentFailure("the image's hash algorithm \(algorithm ?? "none") is not supported on this host")
        }
        writer = try HashingWriter(path: path, check.map { [$0.algorithm] } ?? [])
    }

    func append(_ chunk: ByteBuffer) throws {
        if let size = image.size, writer.size + chunk.readableBytes > size {
            throw PermanentFailure("the image is larger than its recorded size")
        }
        try writer.append(chunk)
    }

    /// - Throws: `PermanentFailure` for wrong content; a passing error for a download that was cut short.
    func finish() throws {
        guard image.size == nil || image.size == writer.size else {
            throw ResourceError.unavailable("image \(image.id): \(writer.size) of \(image.size ?? 0) bytes arrived")
        }
        if let check, check.wanted.lowercased() != writer.hash(check.algorithm) {
            throw PermanentFailure("the image's content does not match its checksum")
        }
        try writer.flush()
        writer.close()
    }

    func abandon() { writer.close() }
}
