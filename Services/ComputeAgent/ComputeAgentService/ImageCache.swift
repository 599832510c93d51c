import ComputeAgentCore
import Crypto
import Glibc
import ImageFormat
import Kernel
import Libvirt
import Logging
import NIOCore

/// A failure that no repetition mends; its text is for the tenant.
package struct PermanentFailure: Error, Sendable, CustomStringConvertible {
    package let reason: String
    package init(_ reason: String) { self.reason = reason }
    package var description: String { reason }
}

/// Where images come from.
package protocol ImageSource: Sendable {
    /// Hands the image's bytes to `receive` in order.
    ///
    /// - Throws: `PermanentFailure` when there is no such image.
    func download(_ imageID: String, _ receive: @escaping @Sendable (ByteBuffer) async throws -> Void) async throws
}

/// An image as a file that never changes again.
package struct CachedImage: Sendable, Hashable {
    package let path: String
    /// `raw` or `qcow2`.
    package let format: String
    /// Bytes of the disk inside.
    package let virtualSize: Int
}

/// The images that servers of this host have used: loaded once, checked while they are written, published atomically
/// under a name that no other content ever gets. Running guests have them open as backing files.
package actor ImageCache {
    private let directory: String
    private let source: any ImageSource
    private let runner: CommandRunner
    private let threads: WorkerThreads
    private let ambient: Ambient
    private let log: Logger
    private var loading: [String: Loading] = [:]
    private var nextWaiter = 0

    /// A load under way and who waits for it.
    private struct Loading {
        var waiters: [Int: CheckedContinuation<CachedImage, any Error>] = [:]
    }

    /// - Throws: `FileError`.
    package init(
        directory: String, source: any ImageSource, runner: CommandRunner, threads: WorkerThreads, ambient: Ambient,
        log: Logger
    ) throws {
        self.directory = directory
        self.source = source
        self.runner = runner
        self.threads = threads
        self.ambient = ambient
        self.log = log
        try Files.makePassableDirectory(directory)
        // What a crash left half loaded.
        for name in try Files.list(directory) where name.hasPrefix(".") { try Files.remove("\(directory)/\(name)") }
    }

    /// The image as a local file; loads it when it is not here yet. Several callers share one download, and each may
    /// be cancelled without ending it for the others.
    ///
    /// - Throws: `PermanentFailure` when the content is not what it must be; `CancellationError`.
    package func ensure(_ image: DesiredImage) async throws -> CachedImage {
        let key = ImageCache.key(image)
        if loading[key] == nil {
            loading[key] = Loading()
            Task { await self.lead(image, key: key) }
        }
        let waiter = nextWaiter
        nextWaiter += 1
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { loading[key]?.waiters[waiter] = $0 }
        } onCancel: {
            Task { await self.giveUp(waiter, key: key) }
        }
    }

    private func giveUp(_ waiter: Int, key: String) {
        loading[key]?.waiters.removeValue(forKey: waiter)?.resume(throwing: CancellationError())
    }

    private func lead(_ image: DesiredImage, key: String) async {
        let result: Result<CachedImage, any Error>
        do { result = .success(try await load(image, key: key)) } catch { result = .failure(error) }
        let waiters = loading.removeValue(forKey: key)?.waiters ?? [:]
        for waiter in waiters.values { waiter.resume(with: result) }
    }

    /// The image's id and its content's hash: an id never gets new content, but a cache should not depend on that.
    static func key(_ image: DesiredImage) -> String {
        let hash = (image.contentHash ?? image.checksum ?? "unhashed").lowercased().filter { $0.isHexDigit }
        return "\(image.id)-\(hash.prefix(16))"
    }

    private func load(_ image: DesiredImage, key: String) async throws -> CachedImage {
        for format in ["raw", "qcow2"] {
            let path = "\(directory)/\(key).\(format)"
            if Files.exists(path) { return try await open(path, format: format) }
        }
        let temporary = "\(directory)/.\(key).\(ambient.newUUID())"
        do {
            let started = ambient.time.monotonicNanoseconds()
            try await fetch(image, into: temporary)
            let header = try await inspect(temporary, declared: image.diskFormat)
            let cached = try await publish(temporary, header: header, key: key)
            let seconds = Double(ambient.time.monotonicNanoseconds() - started) / 1e9
            log.info(
                "image loaded", metadata: ["image": "\(image.id)", "seconds": "\(seconds)", "path": "\(cached.path)"])
            return cached
        } catch {
            try await threads.run { try Files.remove(temporary) }
            throw error
        }
    }

    private func open(_ path: String, format: String) async throws -> CachedImage {
        let header = try await inspect(path, declared: format)
        return CachedImage(path: path, format: format, virtualSize: header.virtualSize ?? 0)
    }

    private func inspect(_ path: String, declared: String) async throws -> ImageHeader {
        try await threads.run {
            let size = Files.size(path) ?? 0
            let prefix = try Files.read(path, offset: 0, count: min(size, ImageHeader.prefixLength))
            do { return try ImageHeader.inspect(prefix: prefix, fileSize: size, declared: declared) } catch {
                throw PermanentFailure("the image cannot be used: \(error)")
            }
        }
    }

    private func fetch(_ image: DesiredImage, into path: String) async throws {
        let writer = try await threads.run { try CheckedWriter(path: path, image: image) }
        do {
            try await source.download(image.id) { [threads] chunk in
                try await threads.run { try writer.append(chunk) }
            }
            try await threads.run { try writer.finish() }
        } catch {
            try await threads.run { writer.abandon() }
            throw error
        }
    }

    private func publish(_ temporary: String, header: ImageHeader, key: String) async throws -> CachedImage {
        var file = temporary
        var format = header.content.rawValue
        if header.content != .raw, header.content != .qcow2 {
            guard let name = header.content.qemuName else {
                throw PermanentFailure("images of format \(format) cannot be root disks on this host")
            }
            // Foreign formats are converted once: QEMU's drivers for them are not made for running guests.
            file = temporary + ".qcow2"
            try await runner.run(
                ["qemu-img", "convert", "-f", name, "-O", "qcow2", temporary, file], timeout: .seconds(3600))
            format = "qcow2"
            try await threads.run { try Files.remove(temporary) }
        }
        let path = "\(directory)/\(key).\(format)"
        let source = file
        try await threads.run {
            // libvirt gives it to QEMU's user when a guest starts.
            guard chmod(source, 0o440) == 0 else { throw FileError.last("chmod", source) }
            try Files.publish(source, as: path)
        }
        return try await open(path, format: format)
    }

    /// Removes images that nobody asked for during `lifetime`.
    ///
    /// - Parameter inUse: files that disks lie on; they stay.
    package func prune(inUse: Set<String>, lifetime: Duration) async throws {
        let directory = directory
        let now = ambient.now.seconds
        let loadingKeys = Set(loading.keys)
        try await threads.run {
            for name in try Files.list(directory) where !name.hasPrefix(".") {
                let key = name.lastIndex(of: ".").map { String(name[..<$0]) } ?? name
                var info = stat()
                guard !inUse.contains("\(directory)/\(name)"), !loadingKeys.contains(key), stat("\(directory)/\(name)", &info) == 0,
                    now - Int64(max(info.st_atim.tv_sec, info.st_mtim.tv_sec)) > lifetime.components.seconds
                else { continue }
                try Files.remove("\(directory)/\(name)")
            }
        }
    }
}

/// Writes a download and hashes it on the way. Used by one caller at a time, on changing threads.
private final class CheckedWriter: @unchecked Sendable {
    private let path: String
    private let image: DesiredImage
    private let descriptor: Int32
    private var md5 = Insecure.MD5()
    private var sha512 = SHA512()
    private var sha256 = SHA256()
    private var count = 0

    init(path: String, image: DesiredImage) throws {
        self.path = path
        self.image = image
        descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileError.last("create", path) }
    }

    func append(_ chunk: ByteBuffer) throws {
        count += chunk.readableBytes
        if let size = image.size, count > size { throw PermanentFailure("the image is larger than its size says") }
        try chunk.withUnsafeReadableBytes { bytes in
            if image.hashAlgorithm == "sha512" { sha512.update(bufferPointer: bytes) }
            if image.hashAlgorithm == "sha256" { sha256.update(bufferPointer: bytes) }
            // Only where nothing better is known: it costs as much time as the good hash.
            if image.contentHash == nil { md5.update(bufferPointer: bytes) }
            var written = 0
            while written < bytes.count {
                let part = write(descriptor, bytes.baseAddress! + written, bytes.count - written)
                if part < 0, errno == EINTR { continue }
                guard part > 0 else { throw FileError.last("write", path) }
                written += part
            }
        }
    }

    /// - Throws: `PermanentFailure` for wrong content; a passing error for a download that was cut short.
    func finish() throws {
        guard image.size == nil || image.size == count else {
            throw ResourceError.unavailable("image \(image.id): \(count) of \(image.size ?? 0) bytes arrived")
        }
        let actual: String?
        let wanted: String?
        switch (image.hashAlgorithm, image.contentHash) {
        case ("sha512", let value?): (actual, wanted) = (Hexadecimal.encode(sha512.finalize()), value)
        case ("sha256", let value?): (actual, wanted) = (Hexadecimal.encode(sha256.finalize()), value)
        case (_, nil): (actual, wanted) = (Hexadecimal.encode(md5.finalize()), image.checksum)
        case (let algorithm, _):
            throw PermanentFailure("the image's hash algorithm \(algorithm ?? "none") is not supported on this host")
        }
        if let wanted, wanted.lowercased() != actual {
            throw PermanentFailure("the image's content does not match its checksum")
        }
        guard fsync(descriptor) == 0 else { throw FileError.last("fsync", path) }
        close(descriptor)
    }

    func abandon() { close(descriptor) }
}
