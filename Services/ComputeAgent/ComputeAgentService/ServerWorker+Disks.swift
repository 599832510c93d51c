import ComputeAgentCore
import Contracts
import Logging

/// The disks of the server on this host.
extension ServerWorker {
    /// Creates the server's missing disks.
    func provision(_ desired: DesiredServer, activity action: String?) async throws {
        try await discardStaleDisks(desired)
        try requireOwnDisk(desired)
        activity = "fetching its image"
        provisioning = (desired, false, provisioning?.rounds ?? 0)
        defer { provisioning = nil }
        ownImages.formUnion(desired.ownImages)
        try await tools.disks.prepare(desired)
        activity = action
        provisioning?.waits = true
        try await tools.heavyWork.run { [tools] in
            await self.beginProvisioning()
            try await tools.disks.provision(desired, refreshConfigDrive: true)
        }
        let origins = desired.diskSources.mapValues(\.id)
        if !origins.isEmpty, record.diskOrigins != origins {
            // Recorded before the guest starts, because from then on these disks contain the only copy of its data.
            record.diskOrigins = origins
            try await save()
        }
        await releaseImages()
    }

    private func beginProvisioning() { provisioning?.waits = false }

    /// The progress of creating the server's disks: a number that changes while there is progress. Nil if none are being created.
    var progress: Int? {
        get async {
            guard let current = provisioning else { return nil }
            // The server is queued behind others, so it is not stuck.
            if current.waits { provisioning?.rounds += 1 }
            let bytes = await tools.disks.written(for: current.server)
            return bytes + (provisioning?.rounds ?? 0)
        }
    }

    /// Deletes stale disks from an earlier stay of the server.
    private func discardStaleDisks(_ desired: DesiredServer) async throws {
        let stale: [ServerSpec.LocalDisk]
        do { stale = try record.staleDisks(desired) } catch {
            throw PermanentFailure(
                "this host has a \(error.disk.rawValue) disk from an earlier stay of the server that is not the current one")
        }
        guard !stale.isEmpty else { return }
        if record.hasKeptDisks {
            record.hasKeptDisks = false
            try await save()
        }
        try await tools.disks.discard(.stale(stale), of: serverID)
    }

    /// Removes images that were only needed to create the server's disks.
    func releaseImages() async {
        guard !ownImages.isEmpty else { return }
        do { try await tools.disks.release(ownImages) } catch {
            // They are removed later, like any unused image.
            tools.log.info("images are not removed yet", metadata: ["server": "\(serverID)", "error": "\(error)"])
        }
        ownImages = []
    }

    /// A missing disk that existed before is an error; it is not replaced by an empty one.
    private func requireOwnDisk(_ desired: DesiredServer) throws {
        guard record.appliedGeneration >= 0 || record.hasKeptDisks, desired.hasLocalRoot else { return }
        // A rebuild has deleted it.
        if let operation = desired.operation, operation.kind == .rebuild, operation.id != record.lastOperationID { return }
        guard Files.exists(tools.disks.files(serverID).root) else {
            throw PermanentFailure("the server's root disk is missing on its host")
        }
    }
}
