// Long-running work of a host on a server, such as copying and uploading its disk.

/// A job that a host does in addition to the desired state: once per id, in the background, after the generation that contains it has been
/// applied. After a restart, the host starts a job again. If a job is no longer in the desired state, the host cancels it and removes its
/// leftovers. Compute stores jobs in `server_jobs`.
package struct ServerJob: Codable, Sendable, Hashable {
    package var id: String
    /// `upload-disk`, `copy-volumes`, `swap-volume` or `migrate`. A host reports a kind that it does not know as failed.
    package var kind: String
    /// For `upload-disk`.
    package var upload: DiskUpload?
    /// For `copy-volumes`.
    package var copies: VolumeCopies?
    /// For `migrate`.
    package var migration: Migration?
    /// Of `swap-volume`.
    package var swap: VolumeSwap?

    package init(id: String, upload: DiskUpload) {
        self.id = id
        kind = ServerJob.uploadDisk
        self.upload = upload
    }

    package init(id: String, copies: VolumeCopies) {
        self.id = id
        kind = ServerJob.copyVolumes
        self.copies = copies
    }

    package init(id: String, migration: Migration) {
        self.id = id
        kind = ServerJob.migrate
        self.migration = migration
    }

    package init(id: String, swap: VolumeSwap) {
        self.id = id
        kind = ServerJob.swapVolume
        self.swap = swap
    }

    package static let swapVolume = "swap-volume"
    package static let uploadDisk = "upload-disk"
    package static let copyVolumes = "copy-volumes"
    package static let migrate = "migrate"

    /// A copy of a local disk that becomes the data of an image.
    package struct DiskUpload: Codable, Sendable, Hashable {
        /// Whether the guest's file systems are frozen while the copy begins.
        package enum Quiesce: String, Codable, Sendable { case never, ifPossible = "if_possible", required }

        package var imageID: String
        /// The subject on whose behalf the data is uploaded, with the rights of a project member.
        package var projectID: String
        package var userID: String
        package var quiesce: Quiesce
        /// Nil for the root disk.
        package var disk: ServerSpec.LocalDisk?

        private enum CodingKeys: String, CodingKey {
            case quiesce, disk
            case imageID = "image_id"
            case projectID = "project_id"
            case userID = "user_id"
        }

        package init(imageID: String, projectID: String, userID: String, quiesce: Quiesce, disk: ServerSpec.LocalDisk? = nil) {
            self.disk = disk
            self.imageID = imageID
            self.projectID = projectID
            self.userID = userID
            self.quiesce = quiesce
        }
    }
}

extension ServerJob {
    /// Copies of the server's volumes at one point in time, in files that Block Storage publishes as snapshots.
    package struct VolumeCopies: Codable, Sendable, Hashable {
        package struct Volume: Codable, Sendable, Hashable {
            package var id: String
            /// The file that the host creates.
            package var path: String
            /// `raw` or `qcow2`.
            package var format: String
            /// The size of the disk.
            package var sizeGiB: Int

            private enum CodingKeys: String, CodingKey {
                case id, path, format
                case sizeGiB = "size_gb"
            }

            package init(id: String, path: String, format: String, sizeGiB: Int) {
                self.id = id
                self.path = path
                self.format = format
                self.sizeGiB = sizeGiB
            }
        }

        package var volumes: [Volume]
        package var quiesce: DiskUpload.Quiesce

        package init(volumes: [Volume], quiesce: DiskUpload.Quiesce) {
            self.volumes = volumes
            self.quiesce = quiesce
        }

        /// The file of a snapshot while it is being written, in the directory of its volume.
        package static func fileName(ofSnapshot id: String) -> String { "snapshot-\(id).part" }
    }
}

extension ServerJob {
    /// A swap of a volume of the running guest for another one, keeping its content.
    package struct VolumeSwap: Codable, Sendable, Hashable {
        /// The volume that the guest has.
        package var volumeID: String
        /// The volume that takes its place. Its device is the same.
        package var replacement: ServerSpec.Volume
        /// The size of the new volume.
        package var sizeGiB: Int
        /// Whether to switch the guest to the new volume. Until then its writes go to both.
        package var completes: Bool?

        private enum CodingKeys: String, CodingKey {
            case replacement, completes
            case volumeID = "volume_id"
            case sizeGiB = "size_gb"
        }

        package init(volumeID: String, replacement: ServerSpec.Volume, sizeGiB: Int) {
            self.volumeID = volumeID
            self.replacement = replacement
            self.sizeGiB = sizeGiB
        }
    }
}

/// A host's report about a job.
package struct ServerJobReport: Codable, Sendable, Hashable {
    package enum State: String, Codable, Sendable { case running, done, failed }

    package var id: String
    package var state: State
    /// For `copy-volumes`: `copying`. For `upload-disk`: `copying`, then `uploading`. For `swap-volume`: `copying`, then `synchronized`.
    /// For `migrate`: `queued` at first and while it waits for other guests that leave the host, then `moving`; after a failure `stayed`
    /// if the guest certainly runs here. Nil before the first phase.
    package var phase: String?
    /// Percent of the phase.
    package var progress: Int
    /// For `migrate`, while it runs.
    package var migration: MigrationProgress?
    /// The error for operators.
    package var error: String?
    /// The error for the server's owner, without names of files, hosts or tools.
    package var reason: String?

    package static let queued = "queued"
    package static let moving = "moving"
    package static let stayed = "stayed"
    /// Every write of the guest goes to both volumes.
    package static let synchronized = "synchronized"

    package init(
        id: String, state: State, phase: String? = nil, progress: Int = 0, error: String? = nil, reason: String? = nil
    ) {
        self.id = id
        self.state = state
        self.phase = phase
        self.progress = progress
        self.error = error
        self.reason = reason
    }
}
