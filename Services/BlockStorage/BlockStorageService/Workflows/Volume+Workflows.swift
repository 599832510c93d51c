import BlockStorageCore
import Commands
import Contracts
package import Database
package import ImageAccess
import ImageFormat
import JSON
package import Kernel
import ServiceCatalog
import WebAPI
package import Workflow

/// Workflows on volumes. A process may die at any point, so each step first checks what exists and continues from there.
package struct VolumeWorkflows: Sendable {
    static let service = CloudService.blockStorage.section
    /// The intent that ends the workflow in progress on a volume or snapshot.
    static let deleteIntent = "delete"
    static let poll: Duration = .milliseconds(500)
    /// The report of a host's copy wakes the workflow.
    private static let hostPoll: Duration = .seconds(30)

    let database: Database
    let driver: any VolumeDriver
    let quota: VolumeQuota
    let ambient: Ambient
    /// The source image of a volume and the subject of its download.
    let images: ImageAccess
    /// The Image service, to upload volumes to.
    let uploads: any VolumeImages
    private let serviceHost: String

    package init(
        database: Database, driver: any VolumeDriver, images: ImageAccess, uploads: any VolumeImages, settings: BlockStorageSettings,
        ambient: Ambient
    ) {
        self.uploads = uploads
        self.images = images
        self.database = database
        self.driver = driver
        serviceHost = settings.serviceHost
        quota = VolumeQuota(settings.quotaLimits)
        self.ambient = ambient
    }

    package var definitions: [WorkflowDefinition] {
        [
            create.definition, extend.definition, delete.definition, snapshotCreate.definition, snapshotDelete.definition,
            upload.definition, reimage.definition,
        ]
    }

    /// The kind that an intent starts; a volume's and a snapshot's subject are never the same.
    var intents: [String: String] {
        [
            VolumeWorkflows.deleteIntent: delete.definition.kind,
            VolumeWorkflows.deleteIntent + "_snapshot": snapshotDelete.definition.kind,
        ]
    }

    // MARK: create

    var create: Workflow<NoFrame> {
        Workflow(
            service: VolumeWorkflows.service, kind: "volume_create",
            steps: [
                .init("data", deadline: BlockStorageLimits.copyTimeMax) { context in
                    guard let volume = try await volume(context) else { return .done }
                    try await requireBackend()
                    return try await makeData(volume) ? .next : .wait(VolumeWorkflows.poll)
                } undo: { context in
                    guard let volume = try await volume(context) else { return }
                    try await driver.delete(volume.object)
                },
                .init("publish") { context in
                    let id = context.subjectID
                    let now = context.now
                    try await database.write {
                        try BlockStorageStore.move($0, volume: id, from: [.creating, .downloading], to: .available, now: now)
                    }
                    return .next
                },
            ], interruptedBy: [VolumeWorkflows.deleteIntent]
        ) { context, failure in
            let now = ambient.now
            try await database.write {
                try BlockStorageStore.move(
                    $0, volume: context.subjectID, from: [.creating, .downloading], to: .error,
                    fault: failure.message, now: now)
            }
        }
    }

    func volume(_ context: StepContext) async throws -> Volume? {
        let id = context.subjectID
        return try await database.read { try BlockStorageStore.volume($0, id) }
    }

    private func requireBackend() async throws {
        let isDisabled = try await database.read { [serviceHost] connection in
            try !connection.query(
                "SELECT 1 AS one FROM block_storage_services WHERE host = \(serviceHost) AND kind = \(ServiceReportTask.kind) AND disabled"
            ).isEmpty
        }
        if isDisabled {
            throw StepFailure("No valid backend was found: the storage is disabled by an operator.")
        }
    }

    private func makeData(_ volume: Volume) async throws -> Bool {
        do {
            switch volume.source {
            case .blank:
                try await driver.create(volume.object)
                return true
            case .snapshot(let id):
                guard let snapshot = try await database.read({ try BlockStorageStore.snapshot($0, id) }) else {
                    throw StepFailure("Snapshot \(id) no longer exists.")
                }
                return try await driver.copy(snapshot.object, to: volume.object)
            case .volume(let id):
                guard let source = try await database.read({ try BlockStorageStore.volume($0, id) }) else {
                    throw StepFailure("Source volume \(id) no longer exists.")
                }
                return try await driver.copy(source.object, to: volume.object)
            case .image(let id):
                guard
                    let source = try await database.read({
                        try images.source($0, id, project: volume.projectID, user: volume.userID)
                    })
                else { throw StepFailure("Image \(id) no longer exists.") }
                return try await driver.fill(volume.object, from: SourceImage(source.image, as: source.subject))
            }
        } catch let error as ImageRefusal {
            throw StepFailure("The image cannot be used to create a volume: \(error.reason).")
        } catch let error as SandboxError {
            throw StepFailure("The volume's data could not be written: the storage host cannot read it safely.", details: error.description)
        } catch let error as CommandError {
            throw StepFailure("The volume's data could not be written.", details: error.description)
        }
    }

    // MARK: extend

    /// The reserved amount is `size` minus the volume's own.
    struct Extension: Codable, Sendable {
        /// In GiB.
        var size: Int
    }

    var extend: Workflow<Extension> {
        Workflow(
            service: VolumeWorkflows.service, kind: "volume_extend",
            steps: [
                .init("resize") { context, frame in
                    guard let volume = try await volume(context) else { return .done }
                    try await driver.extend(volume.object, to: frame.size)
                    return .next
                },
                .init("publish") { context, frame in
                    let id = context.subjectID
                    let size = frame.size
                    let now = context.now
                    try await database.write { connection in
                        try connection.execute(
                            "UPDATE volumes SET size = \(size) WHERE id = \(id)::uuid AND status = 'extending'")
                        try BlockStorageStore.move(connection, volume: id, from: [.extending], to: .available, now: now)
                    }
                    return .next
                },
            ]
        ) { context, frame, failure in
            let id = context.subjectID
            let now = ambient.now
            let size = frame.size
            try await database.write { connection in
                guard let volume = try BlockStorageStore.volume(connection, id, locked: true), volume.status == .extending
                else { return }
                try BlockStorageStore.move(
                    connection, volume: id, from: [.extending], to: .errorExtending, fault: failure.message, now: now)
                try Quota.release(
                    connection, project: volume.projectID, [(BlockStorageQuotas.gigabytes, size - volume.size)])
            }
        }
    }

    // MARK: delete

    var delete: Workflow<NoFrame> {
        Workflow(
            service: VolumeWorkflows.service, kind: "volume_delete",
            steps: [
                .init("data") { context in
                    let id = context.subjectID
                    guard let volume = try await volume(context) else { return .done }
                    let snapshots = try await database.read { try BlockStorageStore.snapshots($0, of: ID(id), locked: false) }
                    for snapshot in snapshots { try await driver.delete(snapshot.object) }
                    try await driver.delete(VolumeWorkflows.renewed(volume))
                    try await driver.delete(volume.object)
                    return .next
                },
                .init("row") { context in
                    let id = context.subjectID
                    try await database.write { try forget($0, id) }
                    return .next
                },
            ], retriesForever: true
        ) { _, _ in }
    }

    private func forget(_ connection: Connection, _ id: String) throws {
        guard let volume = try BlockStorageStore.volume(connection, id, locked: true) else { return }
        for snapshot in try BlockStorageStore.snapshots(connection, of: volume.id) {
            try connection.execute("DELETE FROM volume_snapshots WHERE id = \(snapshot.id)::uuid")
            try quota.releaseSnapshot(connection, project: snapshot.projectID, size: snapshot.size)
        }
        for attachment in try BlockStorageStore.attachments(connection, of: volume.id) {
            try connection.execute("DELETE FROM volume_attachments WHERE id = \(attachment.id)::uuid")
            if let server = attachment.serverID { try connection.notify(.wake, Wake(subject: server)) }
        }
        try connection.execute("DELETE FROM volumes WHERE id = \(id)::uuid")
        try quota.releaseVolume(connection, project: volume.projectID, size: volume.size)
    }

    // MARK: snapshots

    private func snapshot(_ context: StepContext) async throws -> Snapshot? {
        let id = context.subjectID
        return try await database.read { try BlockStorageStore.snapshot($0, id) }
    }

    var snapshotCreate: Workflow<NoFrame> {
        Workflow(
            // Version 2 waits for copies that hosts make; version 1 did not.
            service: VolumeWorkflows.service, kind: "snapshot_create", version: 2, alsoRuns: [1],
            steps: [
                .init("data", deadline: BlockStorageLimits.hostCopyTimeMax) { context in
                    guard let snapshot = try await snapshot(context) else { return .done }
                    guard let volume = try await database.read({ try BlockStorageStore.volume($0, snapshot.volumeID.text) })
                    else { throw StepFailure("Volume \(snapshot.volumeID) no longer exists.") }
                    do {
                        switch snapshot.hostCopy {
                        case nil: return try await driver.copy(volume.object, to: snapshot.object) ? .next : .wait(VolumeWorkflows.poll)
                        case .pending: return .wait(VolumeWorkflows.hostPoll)
                        case .failed: throw StepFailure("The host of the server that uses the volume could not copy it.")
                        case .done:
                            try await driver.adopt(snapshot.object)
                            return .next
                        }
                    } catch let error as ImageRefusal {
                        throw StepFailure("The copy of the volume is not complete.", details: error.reason)
                    } catch let error as CommandError {
                        throw StepFailure("The snapshot's data could not be written.", details: error.description)
                    }
                } undo: { context in
                    guard let snapshot = try await snapshot(context) else { return }
                    try await driver.delete(snapshot.object)
                },
                .init("publish") { context in
                    let id = context.subjectID
                    let now = context.now
                    try await database.write {
                        try BlockStorageStore.move($0, snapshot: id, from: [.creating], to: .available, now: now)
                    }
                    return .next
                },
            ], interruptedBy: [VolumeWorkflows.deleteIntent + "_snapshot"]
        ) { context, failure in
            let now = ambient.now
            try await database.write {
                try BlockStorageStore.move(
                    $0, snapshot: context.subjectID, from: [.creating], to: .error, fault: failure.message, now: now)
            }
        }
    }

    var snapshotDelete: Workflow<NoFrame> {
        Workflow(
            service: VolumeWorkflows.service, kind: "snapshot_delete",
            steps: [
                .init("data") { context in
                    guard let snapshot = try await snapshot(context) else { return .done }
                    try await driver.delete(snapshot.object)
                    return .next
                },
                .init("row") { context in
                    let id = context.subjectID
                    try await database.write { connection in
                        guard let snapshot = try BlockStorageStore.snapshot(connection, id, locked: true) else { return }
                        try connection.execute("DELETE FROM volume_snapshots WHERE id = \(id)::uuid")
                        try quota.releaseSnapshot(connection, project: snapshot.projectID, size: snapshot.size)
                    }
                    return .next
                },
            ], retriesForever: true
        ) { _, _ in }
    }
}
