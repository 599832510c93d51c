package import ComputeAgentCore
import Contracts
import ImageFormat
import Kernel

/// Disks that are recreated by a rebuild or created for a rescue.
extension ServerDisks {
    /// Fetches the images of a server's disks and checks that the disks can be created from them, whether or not the disks exist.
    ///
    /// - Throws: `PermanentFailure` if an image cannot be used or does not fit.
    package func fetch(_ server: DesiredServer) async throws {
        if let rescue = server.rescue {
            _ = try await rescueImage(rescue)
        } else if let image = server.image, server.hasLocalRoot {
            _ = try ServerDisks.rootSize(server, try await images.ensure(image, largest: ServerDisks.largestRoot(server)))
        }
    }

    /// The rescue disk. Its size is the one that the Image service reports, whatever the flavor.
    func rescueImage(_ rescue: DesiredRescue) async throws -> CachedImage {
        try await images.ensure(rescue.image, largest: rescue.image.largest ?? ImageHeader.virtualSizeMax)
    }

    /// Deletes disks of a server that is off. The firmware's variables and the state of the trusted platform module are deleted together
    /// with the system that wrote them.
    ///
    /// - Throws: `FileError`.
    package func discard(_ disks: DiskSelection, of serverID: String) async throws {
        let files = files(serverID)
        let paths =
            switch disks {
            case .rebuilt(let withEphemeral):
                [files.root, files.rescue, files.swap, files.nvram, files.secureNVRAM] + (withEphemeral ? [files.ephemeral] : [])
            case .rescue: [files.rescue]
            case .kept: [files.root, files.ephemeral, files.swap].map(ServerFiles.kept)
            case .stale(let disks):
                disks.map { $0 == .root ? files.root : files.ephemeral }.flatMap { [$0, ServerFiles.kept($0)] }
            }
        try await threads.run {
            for path in paths { try Files.remove(path) }
            if case .rebuilt = disks { try Files.removeTree(files.tpm) }
        }
    }
}
