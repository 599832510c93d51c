import ComputeAgentCore
import Contracts
import Kernel
import Logging

/// The job `copy-volumes`: copies volumes of a server at one point in time to new files in their storage.
struct VolumeCopier: Sendable {
    let tools: ServerTools

    private static let attempts = 4

    /// Runs the job from the start, after removing the leftovers of earlier attempts.
    ///
    /// - Parameter progress: called with the percentage.
    /// - Throws: like `DiskUploader.run`.
    func run(
        _ copies: ServerJob.VolumeCopies, of server: DesiredServer, _ progress: @escaping @Sendable (Int) async -> Void
    ) async throws {
        let disks = try copies.volumes.map { copy in
            guard let volume = server.volumes.first(where: { $0.volumeID == copy.id }) else {
                throw PermanentFailure("volume \(copy.id) is not attached to the server")
            }
            return (copy: copy, volume: volume)
        }
        let paths = copies.volumes.map(\.path)
        try await tools.repeating(VolumeCopier.attempts) {
            await progress(0)
            try await tools.copies.run {
                try await clear(paths, serverID: server.id, mayBeFrozen: copies.quiesce != .never)
                let backups = disks.map {
                    DomainBackup.Disk(
                        serial: $0.volume.volumeID, path: $0.copy.path, format: $0.copy.format, source: $0.volume.path)
                }
                if try await !tools.domains.backUp(server.id, backups, quiesce: copies.quiesce, progress) {
                    for disk in disks { try await tools.disks.copy(disk.volume, to: disk.copy) }
                }
                for path in paths { try await tools.disks.takeBack(path) }
            }
        }
    }

    /// Cleans up after an attempt of this process or an earlier one.
    func clear(_ paths: [String], serverID: String, mayBeFrozen: Bool = true) async throws {
        try await tools.domains.clearBackup(serverID, mayBeFrozen: mayBeFrozen)
        for path in paths { try await tools.disks.removeCopy(path) }
    }
}

extension ServerTools {
    /// Runs the body until it succeeds, fails permanently or has failed `attempts` times.
    func repeating(_ attempts: Int, _ body: () async throws -> Void) async throws {
        var backoff = Backoff()
        var attempt = 1
        while true {
            do { return try await body() } catch is CancellationError { throw CancellationError() } catch let error as PermanentFailure {
                throw error
            } catch {
                guard attempt < attempts else { throw error }
                log.info("a job is tried again", metadata: ["attempt": "\(attempt)", "error": "\(error)"])
            }
            attempt += 1
            try await ambient.time.sleep(for: backoff.next())
        }
    }
}
