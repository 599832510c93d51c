import Commands
package import ComputeAgentCore
import Kernel

/// The disks of a server that is being resized. The guest is off.
///
/// A disk is copied before it changes. Reverting the resize restores the copy; confirming it deletes the copy. Every function can be
/// repeated after an interruption.
extension ServerDisks {
    /// The disks that a resize changes: root and ephemeral disks that grow, and a swap disk of another size.
    private func changed(_ server: DesiredServer) throws -> (grown: [(path: String, size: Int)], swap: String?) {
        let files = files(server.id)
        var grown: [(path: String, size: Int)] = []
        let wanted = [
            (files.root, server.hasLocalRoot ? server.rootGiB * ServerDisks.gib : 0),
            (files.ephemeral, server.ephemeralGiB * ServerDisks.gib),
        ]
        for (path, size) in wanted where size > 0 {
            guard let now = try ServerDisks.virtualSize(path), now < size else { continue }
            grown.append((path, size))
        }
        let swap = try ServerDisks.virtualSize(files.swap)
        return (grown, swap.map { $0 != server.swapMiB << 20 } == true ? files.swap : nil)
    }

    /// A disk's size; nil if there is no disk.
    private static func virtualSize(_ path: String) throws -> Int? {
        guard let length = Files.size(path) else { return nil }
        return OwnDisk.size(prefix: try Files.read(path, offset: 0, count: min(length, 512)))
    }

    /// Copies the disks that `grow` will change, and renames a swap disk of another size.
    ///
    /// - Throws: `FileError`, also if the host lacks disk space; `CancellationError`.
    package func keep(_ server: DesiredServer) async throws {
        let stop = CopyStop()
        try await withTaskCancellationHandler {
            try await threads.run {
                let (grown, swap) = try changed(server)
                for (path, _) in grown where !Files.exists(ServerFiles.kept(path)) {
                    try Files.copy(path, to: ServerFiles.kept(path), stop: stop)
                }
                if let swap { try Files.publish(swap, as: ServerFiles.kept(swap)) }
            }
        } onCancel: {
            stop.stop()
        }
    }

    /// Enlarges the disks to the flavor's sizes. Disks never shrink.
    ///
    /// - Throws: `PermanentFailure` if the tool cannot run; `CommandError`, `FileError`.
    package func grow(_ server: DesiredServer) async throws {
        do {
            try await threads.run { [maker] in
                for (path, size) in try changed(server).grown {
                    try maker.grow(path, to: size)
                    try ServerDisks.takeBack(path)
                }
            }
        } catch let error as SandboxError {
            throw PermanentFailure("its host cannot resize the server's disks", details: "\(error)")
        }
    }

    /// Replaces the disks by their copies, and removes disks that the server no longer has.
    ///
    /// - Throws: `FileError`.
    package func restore(_ server: DesiredServer) async throws {
        let files = files(server.id)
        try await threads.run {
            for disk in [files.root, files.ephemeral, files.swap] where Files.exists(ServerFiles.kept(disk)) {
                try Files.publish(ServerFiles.kept(disk), as: disk)
            }
            if server.ephemeralGiB == 0 { try Files.remove(files.ephemeral) }
            if server.swapMiB == 0 { try Files.remove(files.swap) }
        }
    }
}
