package import JSON
package import Kernel

/// Markers for the ids of Block Storage's resources.
package enum VolumeKind {}
package enum SnapshotKind {}
package enum AttachmentKind {}
package typealias VolumeID = ID<VolumeKind>
package typealias SnapshotID = ID<SnapshotKind>
package typealias AttachmentID = ID<AttachmentKind>

/// A volume's record, as rules need it.
package struct Volume: Sendable, Hashable {
    package var id: VolumeID
    package var projectID: String
    package var userID: String
    package var name: String?
    package var status: VolumeStatus
    /// GiB.
    package var size: Int
    package var isBootable: Bool
    package var isReadOnly: Bool
    /// Whether it can be attached to several servers.
    package var isMultiattach: Bool
    package var typeID: String
    package var format: VolumeFormat
    package var source: VolumeSource
    package var metadata: JSONObject
    package var imageMetadata: JSONObject?

    package init(
        id: VolumeID, projectID: String, userID: String, name: String?, status: VolumeStatus, size: Int,
        isBootable: Bool, isReadOnly: Bool = false, isMultiattach: Bool = false, typeID: String, format: VolumeFormat,
        source: VolumeSource, metadata: JSONObject = [:], imageMetadata: JSONObject? = nil
    ) {
        self.isMultiattach = isMultiattach
        self.id = id
        self.projectID = projectID
        self.userID = userID
        self.name = name
        self.status = status
        self.size = size
        self.isBootable = isBootable
        self.isReadOnly = isReadOnly
        self.typeID = typeID
        self.format = format
        self.source = source
        self.metadata = metadata
        self.imageMetadata = imageMetadata
    }

    /// The driver's record of the volume.
    package var object: StoredObject { StoredObject(.volume, id.text, project: projectID, format: format, size: size) }

    /// Checks that the volume can be attached to one more server. A multiattach volume may already be in use.
    ///
    /// - Parameter action: `attach` or `reserve`.
    /// - Throws: 400 naming the states that allow it.
    package func requireFree(for action: VolumeStatus.Action) throws {
        try status.require(action, of: id, or: isMultiattach ? [.inUse] : [])
    }
}

/// The source of a volume's initial content.
package enum VolumeSource: Sendable, Hashable {
    case blank
    case image(String)
    case snapshot(String)
    case volume(String)
}

/// How a volume is stored.
package enum VolumeFormat: String, Sendable, CaseIterable {
    case raw, qcow2

    /// Whether several QEMU processes can write such a disk at the same time. With qcow2, each process would keep its own copy of the
    /// tables in memory.
    package var canBeShared: Bool { self == .raw }
}

/// A snapshot's record.
package struct Snapshot: Sendable, Hashable {
    package var id: SnapshotID
    package var volumeID: VolumeID
    package var projectID: String
    package var status: SnapshotStatus
    /// GiB.
    package var size: Int
    package var format: VolumeFormat
    package var metadata: JSONObject
    /// The copy that a hypervisor host makes; nil where the storage copies the volume itself.
    package var hostCopy: HostCopyState?

    package init(
        id: SnapshotID, volumeID: VolumeID, projectID: String, status: SnapshotStatus, size: Int, format: VolumeFormat,
        metadata: JSONObject = [:], hostCopy: HostCopyState? = nil
    ) {
        self.hostCopy = hostCopy
        self.id = id
        self.volumeID = volumeID
        self.projectID = projectID
        self.status = status
        self.size = size
        self.format = format
        self.metadata = metadata
    }

    package var object: StoredObject { StoredObject(.snapshot, id.text, project: projectID, format: format, size: size) }
}

/// The progress of a host that copies a volume in use. Only the guest's own QEMU can read a disk that the guest writes.
package enum HostCopyState: String, Sendable, CaseIterable {
    case pending, done, failed
}

/// A disk as a driver sees it.
package struct StoredObject: Sendable, Hashable {
    /// The owner of the disk.
    package enum Kind: String, Sendable {
        case volume, snapshot
        /// A copy that is uploaded as the data of the image with this id.
        case upload
        /// The new content of the volume with this id, until it takes its place.
        case renewal
    }

    package let kind: Kind
    package let id: String
    /// The owner's project. The limit on concurrent copies is shared fairly among projects.
    package let project: String
    package let format: VolumeFormat
    /// GiB.
    package let size: Int

    package init(_ kind: Kind, _ id: String, project: String, format: VolumeFormat, size: Int) {
        self.project = project
        self.kind = kind
        self.id = id
        self.format = format
        self.size = size
    }

    /// `volume-…`: unique among all disks of a driver.
    package var name: String { "\(kind.rawValue)-\(id)" }
    /// The size in bytes.
    package var bytes: Int { size << 30 }
}

/// Limits of volumes and what belongs to them.
package enum BlockStorageLimits {
    package static let metadataItemsMax = 128
    package static let metadataBytesMax = 255
    package static let descriptionMax = 255
    /// Bytes of one value of a volume's image metadata, as in Cinder.
    package static let imageMetadataBytesMax = 65_535
    /// Largest volume in GiB, regardless of the quota.
    package static let sizeMax = 1 << 20
    /// How long copying a disk may take.
    package static let copyTimeMax: Duration = .seconds(6 * 3600)
    /// How long a snapshot may wait for the copy of a hypervisor host. Compute ends one that makes no progress.
    package static let hostCopyTimeMax: Duration = .seconds(8 * 86_400)
}
