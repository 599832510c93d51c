import Commands
package import ComputeAgentCore
import Kernel

/// Disks of a server whose flavor changes. The guest is off.
///
/// A disk that changes is copied first. A copy becomes the disk again when the resize is reverted, and is deleted when it is
/// confirmed. Every function can be repeated after it ended in the middle.
extension ServerDisks {
    /// What a resize changes: the root and ephemeral disks that grow, and a swap disk of another size.
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

    /// Copies the disks that `grow` will change, and puts a swap disk of another size aside.
    ///
    /// - Throws: `FileError`, also if the host lacks the room; `CancellationError`.
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

    /// Makes the disks as large as the flavor says. None becomes smaller.
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

    /// Puts the copies in the place of the disks, and removes disks that the server has no more.
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
