import ComputeAgentCore
import Contracts
import Logging

/// The disks of the server on this host.
extension ServerWorker {
    /// Makes the server's disks where they are missing.
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
            // Before the guest is started: from then on its disks are the only ones with its data.
            record.diskOrigins = origins
            try await save()
        }
        await releaseImages()
    }

    private func beginProvisioning() { provisioning?.waits = false }

    /// How far the worker is with the server's disks: a number that changes while it advances. Nil if it does not make any.
    var progress: Int? {
        get async {
            guard let current = provisioning else { return nil }
            // Others are being made: it is not this server that stands still.
            if current.waits { provisioning?.rounds += 1 }
            let bytes = await tools.disks.written(for: current.server)
            return bytes + (provisioning?.rounds ?? 0)
        }
    }

    /// Deletes disks from an earlier stay of the server, which are not those that it has now.
    private func discardStaleDisks(_ desired: DesiredServer) async throws {
        let stale: [ServerSpec.LocalDisk]
        do { stale = try record.staleDisks(desired) } catch {
            throw PermanentFailure("its host has another \(error.disk.rawValue) disk of the server than the one that it has now")
        }
        guard !stale.isEmpty else { return }
        if record.hasKeptDisks {
            record.hasKeptDisks = false
            try await save()
        }
        try await tools.disks.discard(.stale(stale), of: serverID)
    }

    /// Removes images of which the server's disks were made, and of which nobody makes another one.
    func releaseImages() async {
        guard !ownImages.isEmpty else { return }
        for image in ownImages {
            do { try await tools.disks.images.release(image, inUse: try await tools.disks.backingFiles()) } catch {
                // They go later, as any image that is not used.
                tools.log.info("an image is not removed yet", metadata: ["image": "\(image.id)", "error": "\(error)"])
            }
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
