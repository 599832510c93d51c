import Commands
import ComputeAgentCore
import Contracts
import DiskTool
import Kernel

/// Complete copies of disks.
extension ServerDisks {
    /// Copies the ephemeral disk of a guest that does not run to a new file.
    ///
    /// - Throws: as `copyRoot`.
    func copyEphemeral(_ server: DesiredServer, to target: String) async throws {
        let path = files(server.id).ephemeral
        let size = try await threads.run { try ServerDisks.size(of: path) }
        guard let size, size <= server.ephemeralGiB * ServerDisks.gib else {
            throw PermanentFailure("the server's ephemeral disk is \(size == nil ? "missing on its host" : "damaged")")
        }
        try await copy([DiskSource(path: path, driver: .qcow2)], to: target, size: size)
    }

    private static func size(of path: String) throws -> Int? {
        guard let length = Files.size(path) else { return nil }
        return OwnDisk.virtualSize(prefix: try Files.read(path, offset: 0, count: min(length, OwnDisk.prefixLength)))
    }

    /// Copies the root disk of a guest that does not run, including the image's content, to a new file.
    ///
    /// - Throws: `PermanentFailure` if the disk is missing or its backing file is not the server's image; `CommandError`, `FileError`.
    func copyRoot(_ server: DesiredServer, to target: String) async throws {
        let root = files(server.id).root
        let backing = try await backing(server)
        let size = try await threads.run { try ServerDisks.size(of: root) }
        // The header is read from a file that a compromised QEMU could have changed.
        guard let size, size <= ServerDisks.largestRoot(server) else {
            throw PermanentFailure(size == nil ? "the server's root disk is missing on its host" : "the server's root disk is damaged")
        }
        let below = backing.map { [DiskSource(path: $0.path, driver: $0.format == "raw" ? .raw : .qcow2)] } ?? []
        try await copy([DiskSource(path: root, driver: .qcow2)] + below, to: target, size: size)
    }

    /// A root disk with the content of an image that will be deleted.
    func copy(_ image: CachedImage, to path: String, size: Int) async throws {
        let temporary = path + ".new"
        try await copy(
            [DiskSource(path: image.path, driver: image.format == "raw" ? .raw : .qcow2)], to: temporary, size: image.virtualSize)
        try await sandboxed { [maker] in
            if size > image.virtualSize { try maker.grow(temporary, to: size) }
            try ServerDisks.takeBack(temporary)
            try Files.publish(temporary, as: path)
        }
    }

    /// Copies a volume of a guest that does not run. If the guest has started in the meantime, its QEMU locks the volume, and the copy
    /// fails.
    func copy(_ volume: DesiredVolume, to copy: ServerJob.VolumeCopies.Volume) async throws {
        guard case .file(let path, let format, _) = volume.connection else {
            throw PermanentFailure("its host cannot make copies of the server's volumes", details: "\(volume.connection)")
        }
        let source = DiskSource(path: path, driver: format == "raw" ? .raw : .qcow2)
        try await self.copy([source], to: copy.path, copy.format == "raw" ? .raw : .qcow2, size: copy.sizeGiB << 30)
    }

    /// Gives the file of a volume that no QEMU has open at least a size in bytes, or exactly this size if it `shrinks`.
    func resize(_ volume: ExchangedVolume, to size: Int, shrinks: Bool) async throws {
        try await sandboxed { [maker] in
            try maker.resize(DiskSource(path: volume.path, driver: volume.format == "raw" ? .raw : .qcow2), to: size, shrinks: shrinks)
        }
    }

    /// Gives the file of a volume that no QEMU has open at least its size. A larger one is left alone.
    func extend(_ volume: ExchangedVolume) async throws {
        let size = try await threads.run { () -> Int? in
            guard let length = Files.size(volume.path), volume.format != "raw" else { return Files.size(volume.path) }
            return OwnDisk.virtualSize(prefix: try Files.read(volume.path, offset: 0, count: min(length, OwnDisk.prefixLength)))
        }
        guard let size, size < volume.bytes else { return }
        try await resize(volume, to: volume.bytes, shrinks: false)
    }

    private func copy(_ layers: [DiskSource], to target: String, _ format: DiskDriver = .qcow2, size: Int) async throws {
        let cancellation = CopyCancellation()
        try await withTaskCancellationHandler {
            try await sandboxed { [maker] in
                try Files.remove(target)
                try maker.copy(layers, to: target, format, size: size, cancellation)
                try ServerDisks.takeBack(target)
            }
        } onCancel: {
            cancellation.cancel()
        }
    }

    private func sandboxed(_ body: @escaping @Sendable () throws -> Void) async throws {
        do { try await copyThreads.run(body) } catch let error as SandboxError {
            throw PermanentFailure("its host cannot make copies of disks", details: "\(error)")
        }
    }

    /// Takes ownership of a copy that a guest's QEMU has written, so that no other process can change it.
    func takeBack(_ copy: String) async throws { try await threads.run { try ServerDisks.takeBack(copy) } }

    /// Removes a copy; an absent one counts as removed.
    func removeCopy(_ path: String) async throws { try await threads.run { try Files.remove(path) } }
}
