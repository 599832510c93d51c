import CDispatch
import Commands
package import ComputeAgentCore
import Contracts
import DiskTool
import Glibc
import ImageFormat
package import Kernel
import Libvirt

/// Makes and removes the files of a server: disks, config drive, console.
package struct ServerDisks: Sendable {
    private let directory: String
    let images: ImageCache
    let maker: any DiskMaker
    let threads: WorkerThreads
    /// For copies of disks, which take a long time.
    let copyThreads: WorkerThreads
    /// The directory in which libvirt keeps the state of trusted platform modules.
    let tpmDirectory: String

    static let gib = 1 << 30

    /// - Throws: `FileError`.
    package init(
        directory: String, images: ImageCache, maker: any DiskMaker, threads: WorkerThreads, copyThreads: WorkerThreads,
        tpmDirectory: String = "/var/lib/libvirt/swtpm"
    ) throws {
        self.tpmDirectory = tpmDirectory
        self.copyThreads = copyThreads
        self.directory = directory
        self.images = images
        self.maker = maker
        self.threads = threads
        try Files.makePassableDirectory(directory)
    }

    /// Whether the file of a volume exists.
    func hasVolume(_ path: String) -> Bool { maker.hasVolume(path) }

    /// The paths of a server's files.
    package func files(_ serverID: String) -> ServerFiles { ServerFiles(directory: "\(directory)/\(serverID)") }

    /// Fetches what `provision` will need from elsewhere.
    package func prepare(_ server: DesiredServer) async throws {
        if let image = server.rootSource, server.hasLocalRoot, !Files.exists(files(server.id).root),
            ServerDisks.expectedRootSize(server) == nil
        {
            _ = try await images.ensure(image, largest: ServerDisks.largestRoot(server))
        }
        if let image = server.diskSources[.ephemeral], server.ephemeralGiB > 0, !Files.exists(files(server.id).ephemeral) {
            _ = try await images.ensure(image, largest: server.ephemeralGiB * ServerDisks.gib)
        }
        if let rescue = server.rescue, !Files.exists(files(server.id).rescue) { _ = try await rescueImage(rescue) }
    }

    /// Creates missing files. Existing files contain guest data and are kept.
    ///
    /// - Throws: `PermanentFailure` when image and flavor do not fit; `CommandError`, `FileError`.
    package func provision(_ server: DesiredServer, refreshConfigDrive: Bool) async throws {
        let files = files(server.id)
        try await threads.run { try Files.makePassableDirectory(files.directory) }
        if let image = server.rootSource, server.hasLocalRoot, !Files.exists(files.root) {
            if let size = ServerDisks.expectedRootSize(server) {
                try await create(files.root, size: size)
            } else {
                let cached = try await images.ensure(image, largest: ServerDisks.largestRoot(server))
                let size = try ServerDisks.rootSize(server, cached)
                if !image.isCopied {
                    try await create(files.root, size: size, backing: cached)
                } else if server.power == .expected {
                    try await create(files.root, size: size)
                } else {
                    try await copy(cached, to: files.root, size: size)
                }
            }
        }
        if let rescue = server.rescue {
            if !Files.exists(files.rescue) {
                let cached = try await rescueImage(rescue)
                try await create(files.rescue, size: cached.virtualSize, backing: cached)
            }
        } else {
            try await threads.run { try Files.remove(files.rescue) }
        }
        if server.ephemeralGiB > 0, !Files.exists(files.ephemeral) {
            let size = server.ephemeralGiB * ServerDisks.gib
            if let image = server.diskSources[.ephemeral] {
                try await copy(try await images.ensure(image, largest: size), to: files.ephemeral, size: size)
            } else {
                try await create(files.ephemeral, size: size)
            }
        }
        if server.swapMiB > 0, !Files.exists(files.swap) { try await create(files.swap, size: server.swapMiB << 20) }
        if server.configDrive, refreshConfigDrive || !Files.exists(files.configDrive) {
            try await writeConfigDrive(server, files)
        }
    }

    /// The allocated bytes of unfinished files for a server: downloads, converted images and disks.
    func written(for server: DesiredServer) async -> Int {
        let files = files(server.id)
        let loaded = images.partialFiles(of: [server.rootSource, server.diskSources[.ephemeral], server.rescue?.image].compactMap(\.self))
        do {
            return try await threads.run {
                ([files.root, files.ephemeral, files.swap, files.rescue].map { $0 + ".new" } + (try loaded())).reduce(0) { sum, path in
                    var info = stat()
                    return stat(path, &info) == 0 ? sum + Int(info.st_blocks) * 512 : sum
                }
            }
        } catch {
            return 0
        }
    }

    /// The flavor's size; for a flavor without a size the image's, up to the size that the scheduler claimed.
    static func rootSize(_ server: DesiredServer, _ image: CachedImage) throws -> Int {
        guard server.rootGiB > 0 else {
            guard image.virtualSize <= largestRoot(server) else {
                throw PermanentFailure("the disk in the image is larger than the Image service said when the server was asked for")
            }
            return image.virtualSize
        }
        guard image.virtualSize <= server.rootGiB * gib else {
            let needed = (image.virtualSize + gib - 1) / gib
            throw PermanentFailure(
                "the flavor's root disk of \(server.rootGiB) GiB is too small for the image, which needs \(needed) GiB")
        }
        return server.rootGiB * gib
    }

    /// The size of a root disk whose whole content comes from another host, so that its image is not needed. Nil for any other disk, and if
    /// the size is only known from the image.
    static func expectedRootSize(_ server: DesiredServer) -> Int? {
        guard server.power == .expected, let image = server.rootSource, image.isCopied else { return nil }
        return server.rootGiB > 0 ? server.rootGiB * gib : image.largest
    }

    /// The largest image that the server's root disk can hold: the flavor's size or, for a flavor without one, the claimed size.
    static func largestRoot(_ server: DesiredServer) -> Int {
        if server.rootGiB > 0 { return server.rootGiB * gib }
        return server.image?.largest ?? ImageHeader.virtualSizeMax
    }

    private func create(_ path: String, size: Int, backing: CachedImage? = nil) async throws {
        let temporary = path + ".new"
        let below = backing.map { DiskSource(path: $0.path, driver: $0.format == "raw" ? .raw : .qcow2) }
        do {
            try await threads.run { [maker] in
                try Files.remove(temporary)
                try maker.create(temporary, size: size, backing: below)
                try ServerDisks.takeBack(temporary)
                try Files.publish(temporary, as: path)
            }
        } catch let error as SandboxError {
            throw PermanentFailure("its host cannot make the server's disks", details: "\(error)")
        }
    }

    /// The backing file of a server's root disk; nil if it has none.
    ///
    /// The backing file's name is read from the disk, which a compromised QEMU could have changed.
    ///
    /// - Throws: `PermanentFailure` when it is not the server's image; `FileError`.
    package func backing(_ server: DesiredServer) async throws -> DomainXML.Backing? {
        guard server.hasLocalRoot, let image = server.image else { return nil }
        return try await backing(of: files(server.id).root, image, "root")
    }

    /// The same for the rescue disk.
    package func rescueBacking(_ server: DesiredServer) async throws -> DomainXML.Backing? {
        guard let rescue = server.rescue else { return nil }
        return try await backing(of: files(server.id).rescue, rescue.image, "rescue")
    }

    private func backing(of path: String, _ image: DesiredImage, _ name: String) async throws -> DomainXML.Backing? {
        let found = try await threads.run { () -> String? in
            guard let size = Files.size(path) else { return nil }
            return OwnDisk.backingFile(
                prefix: try Files.read(path, offset: 0, count: min(size, OwnDisk.prefixLength)))
        }
        guard let found else { return nil }
        guard let format = images.format(of: found, for: image) else {
            throw PermanentFailure("the server's \(name) disk names a file that is not its image")
        }
        return DomainXML.Backing(path: found, format: format)
    }

    /// The backing files of the servers' disks, read from the disks.
    package func backingFiles() async throws -> Set<String> {
        let directory = directory
        return try await threads.run {
            var files: Set<String> = []
            for serverID in try Files.list(directory) {
                let own = ServerFiles(directory: "\(directory)/\(serverID)")
                for disk in [own.root, ServerFiles.kept(own.root), own.rescue] {
                    guard let size = Files.size(disk) else { continue }
                    let prefix = try Files.read(disk, offset: 0, count: min(size, OwnDisk.prefixLength))
                    if let file = OwnDisk.backingFile(prefix: prefix) { files.insert(file) }
                }
            }
            return files
        }
    }

    /// Removes images from the cache that were made for one server only, unless disks lie on them.
    ///
    /// - Throws: the first error; the other images are removed nevertheless.
    func release(_ released: Set<DesiredImage>) async throws {
        let inUse = try await backingFiles()
        var failure: (any Error)?
        for image in released {
            do { try await images.release(image, inUse: inUse) } catch { failure = failure ?? error }
        }
        if let failure { throw failure }
    }

    private func writeConfigDrive(_ server: DesiredServer, _ files: ServerFiles) async throws {
        let tree = files.directory + "/config.tree"
        let temporary = files.configDrive + ".new"
        let content = MetadataTree(server).configDriveFiles
        do {
            try await threads.run { [maker] in
                try Files.removeTree(tree)
                for (path, bytes) in content {
                    let full = "\(tree)/\(path)"
                    try Files.makeDirectory(String(full[..<(full.lastIndex(of: "/") ?? full.startIndex)]))
                    try Files.replace(full, with: bytes)
                }
                // Created here first, because the tool would create it world-readable.
                try Files.replace(temporary, with: [])
                try maker.makeISO(of: tree, into: temporary, sizes: content.map(\.bytes.count))
                try ServerDisks.takeBack(temporary)
                try Files.publish(temporary, as: files.configDrive)
                try Files.removeTree(tree)
            }
        } catch let error as SandboxError {
            throw PermanentFailure("its host cannot make the server's config drive", details: "\(error)")
        }
    }

    /// Takes ownership of a file that a tool in the sandbox has written.
    static func takeBack(_ path: String) throws {
        guard chown(path, uid_t.max, getegid()) == 0, chmod(path, 0o600) == 0 else {
            throw FileError.last("change the mode of", path)
        }
    }

    /// Removes all that is the server's.
    package func remove(_ serverID: String) async throws {
        try await removeTPM(serverID)
        let directory = files(serverID).directory
        try await threads.run { try Files.removeTree(directory) }
    }

    // MARK: console

    /// Bytes of console output that are kept at most, and that one answer carries at most.
    private static let consoleKept = 1 << 20

    /// The last `lines` lines of the serial console, or all that is kept.
    package func consoleLog(_ serverID: String, lines: Int?) async throws -> String {
        let path = files(serverID).consoleLog
        return try await threads.run {
            let current = try ServerDisks.end(of: path, count: ServerDisks.consoleKept)
            // virtlogd begins a new file at its limit and keeps the one before under this name.
            let before = try ServerDisks.end(of: path + ".0", count: ServerDisks.consoleKept - current.count)
            return ServerDisks.tail(before + current, lines: lines)
        }
    }

    private static func end(of path: String, count: Int) throws -> [UInt8] {
        guard count > 0, let size = Files.size(path) else { return [] }
        let start = max(0, size - count)
        return try Files.read(path, offset: start, count: size - start)
    }

    static func tail(_ bytes: [UInt8], lines: Int?) -> String {
        guard let lines else { return String(decoding: bytes, as: UTF8.self) }
        var wanted = lines
        var start = bytes.count
        // A final newline ends the last line and does not start another one.
        while start > 0 {
            if bytes[start - 1] == 0x0a, start != bytes.count {
                wanted -= 1
                if wanted <= 0 { break }
            }
            start -= 1
        }
        return lines == 0 ? "" : String(decoding: bytes[start...], as: UTF8.self)
    }

    /// Cuts a console file that has grown large. QEMU and virtlogd append, so the file may shrink under them.
    package func trimConsole(_ serverID: String) async throws {
        let path = files(serverID).consoleLog
        try await threads.run {
            guard let size = Files.size(path), size > 4 * ServerDisks.consoleKept else { return }
            let rest = try Files.read(path, offset: size - ServerDisks.consoleKept, count: ServerDisks.consoleKept)
            let descriptor = open(path, O_WRONLY | O_TRUNC | O_APPEND | O_CLOEXEC)
            guard descriptor >= 0 else { throw FileError.last("open", path) }
            defer { close(descriptor) }
            try Files.write(descriptor, rest, path)
        }
    }
}

extension DesiredImage {
    /// The maximum size in bytes of the disk in the image, as reported by the Image service; nil if the control plane does not send it.
    var largest: Int? { diskGiB.map { min(max(0, $0), ImageHeader.virtualSizeMax >> 30) << 30 } }
}
