import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Workflow

/// A local disk that is being moved to another host. In between, an image holds its content.
struct DiskTransfer: Codable, Sendable {
    var disk: ServerSpec.LocalDisk
    var copy: DiskCopy
}

/// Steps that move the local disks of a server that is off to another host.
///
/// The server's host uploads each disk as an image, and the other host creates its disk from the image. The hosts need no access to each
/// other, and the services check permissions, size and checksum. The source's disks do not change.
struct DiskTransferSteps: Sendable {
    let steps: ServerSteps
    private let copies: DiskCopySteps

    init(_ steps: ServerSteps) {
        self.steps = steps
        copies = DiskCopySteps(steps: steps)
    }

    private var ambient: Ambient { steps.ambient }

    /// The disks that have to be moved. A swap disk is recreated, because its content is not needed after the guest was off.
    ///
    /// - Parameter subject: the owner of the images: the user who requested the move.
    static func plan(_ connection: Connection, server id: String, as subject: ActingSubject, ambient: Ambient) throws -> [DiskTransfer] {
        let rows = try connection.query(
            """
            SELECT s.name, s.image IS NOT NULL AND NOT EXISTS (SELECT 1 FROM server_volumes v WHERE v.server_id = s.id AND v.boot_index = 0)
                AS root, coalesce((s.flavor->>'ephemeral')::bigint, 0) > 0 AS ephemeral FROM servers s WHERE s.id = \(id)
            """)
        guard let row = rows.first else { return [] }
        var disks: [ServerSpec.LocalDisk] = try row.bool("root") ? [.root] : []
        if try row.bool("ephemeral") { disks.append(.ephemeral) }
        let name = try row.string("name")
        return disks.map { disk in
            let image = ambient.newUUID().description
            let body: JSONObject = [
                "id": .string(image), "name": .string("\(name.prefix(200)) \(disk.rawValue) disk"), "visibility": "private",
                "os_hidden": true, "disk_format": "qcow2", "container_format": "bare", "instance_uuid": .string(id),
            ]
            return DiskTransfer(
                disk: disk,
                copy: DiskCopy(
                    image: image, body: body, project: subject.project, user: subject.user, job: ambient.newUUID().description,
                    quiesce: .never))
        }
    }

    func createImages(_ disks: inout [DiskTransfer]) async throws -> StepResult {
        for index in disks.indices { _ = try await copies.createImage(&disks[index].copy) }
        return .next
    }

    func deleteImages(_ disks: [DiskTransfer]) async throws {
        for disk in disks { try await copies.deleteImage(disk.copy) }
    }

    /// Orders the host to upload the disks.
    func order(_ context: inout StepContext, _ disks: [DiskTransfer], host: String) -> StepResult {
        let (id, ambient) = (context.subjectID, ambient)
        context.commit { connection in
            for disk in disks {
                let job = ServerJob(
                    id: disk.copy.job,
                    upload: .init(
                        imageID: disk.copy.image, projectID: disk.copy.project, userID: disk.copy.user, quiesce: .never,
                        disk: disk.disk == .root ? nil : disk.disk))
                try HostJobs.order(connection, job, server: id, host: host, ambient: ambient)
            }
        }
        return .next
    }

    func endJobs(_ disks: [DiskTransfer], server: String) async throws {
        for disk in disks { try await copies.endJob(disk.copy, server: server) }
    }

    /// Waits until the images have the content of the disks.
    func awaitUploads(_ context: StepContext, _ disks: [DiskTransfer]) async throws -> StepResult {
        for disk in disks {
            let result = try await copies.awaitUpload(
                context, disk.copy, copying: .resizeMigrating, uploading: .resizeMigrating, from: [.resizeMigrating])
            guard case .next = result else { return result }
        }
        return .next
    }

    /// The data that a host needs to download the images.
    ///
    /// - Throws: `StepFailure` if an image does not exist.
    func sources(_ disks: [DiskTransfer]) async throws -> [ServerSpec.DiskSource] {
        let images = steps.compute.images
        return try await steps.database.read { connection in
            try disks.map { disk in
                let (project, user) = (disk.copy.project, disk.copy.user)
                var image = try ServerImages.rootDisk(connection, from: disk.copy.image, project: project, user: user, images: images)
                image.administrator = RecordedSubject(project: project, user: user)
                return ServerSpec.DiskSource(disk: disk.disk, image: image)
            }
        }
    }

    /// Makes the server's next host create its disks from the images.
    static func offer(_ connection: Connection, server id: String, _ sources: [ServerSpec.DiskSource], of disks: [DiskTransfer]) throws {
        guard !sources.isEmpty else { return }
        try connection.execute("DELETE FROM server_jobs WHERE id = ANY(\(disks.map(\.copy.job))::uuid[])")
        try connection.execute("UPDATE servers SET disk_sources = \(try JSONValue(encoding: sources))::jsonb WHERE id = \(id)")
    }

    static func withdraw(_ connection: Connection, server id: String) throws {
        try connection.execute("UPDATE servers SET disk_sources = NULL WHERE id = \(id) AND disk_sources IS NOT NULL")
    }

    /// Deletes the images when both hosts have their disks.
    static func end(_ connection: Connection, server id: String, _ disks: [DiskTransfer], requestID: String?, _ compute: Compute) throws {
        try withdraw(connection, server: id)
        for disk in disks {
            var images = ImageRemoval.Images(project: disk.copy.project, user: disk.copy.user, image: disk.copy.image)
            images.isTemporary = true
            try Workflows.start(
                connection, ImageRemoval(compute).workflow, subject: disk.copy.image, frame: images, requestID: requestID,
                ambient: compute.ambient)
        }
    }
}
