import ImageFormat
package import JSON
package import Kernel

/// Marker for the ids of images.
package enum ImageKind {}
package typealias ImageID = ID<ImageKind>

/// An image's record as stored.
package struct Image: Sendable, Hashable {
    package var id: ImageID
    /// The owner project.
    package var owner: String
    package var name: String?
    package var status: ImageStatus
    package var visibility: ImageVisibility
    package var diskFormat: DiskFormat?
    package var containerFormat: ContainerFormat?
    /// Minimum size of the root disk, in GB.
    package var minDisk: Int
    /// Minimum memory of the server, in MiB.
    package var minRAM: Int
    /// Size of the stored data in bytes; nil without data.
    package var size: Int?
    /// Size of the disk that a guest sees, in bytes.
    package var virtualSize: Int?
    /// MD5 in hexadecimal digits.
    package var checksum: String?
    package var hashValue512: String?
    package var isProtected: Bool
    package var isHidden: Bool
    package var tags: [String]
    /// Free properties: values by name.
    package var properties: JSONObject
    /// Id of the stored data; nil without data.
    package var fileID: String?
    /// Stores that have the data; empty for data of earlier releases, which is in the store `file`.
    package var stores: [String] = []
    package var stagingID: String?
    package var stagingSize: Int?
    package var stagingChecksum: String?
    package var stagingHash: String?
    /// The task that imports data or copies it to other stores.
    package var importTask: String?

    package init(
        id: ImageID, owner: String, name: String? = nil, status: ImageStatus = .queued,
        visibility: ImageVisibility = .shared, diskFormat: DiskFormat? = nil, containerFormat: ContainerFormat? = nil,
        minDisk: Int = 0, minRAM: Int = 0, size: Int? = nil, virtualSize: Int? = nil, checksum: String? = nil,
        hashValue512: String? = nil, isProtected: Bool = false, isHidden: Bool = false, tags: [String] = [],
        properties: JSONObject = [:], fileID: String? = nil
    ) {
        self.id = id
        self.owner = owner
        self.name = name
        self.status = status
        self.visibility = visibility
        self.diskFormat = diskFormat
        self.containerFormat = containerFormat
        self.minDisk = minDisk
        self.minRAM = minRAM
        self.size = size
        self.virtualSize = virtualSize
        self.checksum = checksum
        self.hashValue512 = hashValue512
        self.isProtected = isProtected
        self.isHidden = isHidden
        self.tags = tags
        self.properties = properties
        self.fileID = fileID
    }
}

extension Image {
    /// Data that was staged, or is being received while it has no size.
    package var staging: StagedContent? {
        stagingID.map { StagedContent(id: $0, size: stagingSize, checksum: stagingChecksum, hashValue: stagingHash) }
    }

    /// MiB that count for the quota, each store separately; nil without data.
    package var storedMebibytes: Int? {
        if let size { return ImageQuotas.mebibytes(size, stores: storeNames.count) }
        return stagingSize.map { ImageQuotas.mebibytes($0) }
    }

    /// The stores that have the data; empty without data.
    package var storeNames: [String] {
        guard fileID != nil else { return [] }
        return stores.isEmpty ? [StoreDeclaration.base] : stores
    }
}

/// Data that was sent ahead of an import.
package struct StagedContent: Sendable, Hashable {
    package let id: String
    /// In bytes; nil while the data is being received.
    package let size: Int?
    /// MD5 and SHA-512 in hexadecimal digits.
    package let checksum: String?
    package let hashValue: String?

    package init(id: String, size: Int?, checksum: String?, hashValue: String?) {
        self.id = id
        self.size = size
        self.checksum = checksum
        self.hashValue = hashValue
    }
}

/// The state of an image.
package enum ImageStatus: String, Sendable, CaseIterable {
    /// Registered, without data.
    case queued
    /// Data is being uploaded.
    case saving
    /// Data is being staged, or is staged and waits for its import.
    case uploading
    /// An import writes the data.
    case importing
    case active
    /// The image's data can only be read by administrators.
    case deactivated

    /// Events that change the state of an image.
    package enum Event: String, Sendable, CaseIterable {
        case upload, stored, uploadFailed, stage, stageFailed, importStaged, download, importFailed, deactivate, reactivate
    }

    /// All transitions; deleting is possible in every state.
    package static let transitions: [(from: ImageStatus, event: Event, to: ImageStatus)] = [
        (.queued, .upload, .saving),
        (.saving, .stored, .active),
        (.saving, .uploadFailed, .queued),
        (.queued, .stage, .uploading),
        (.uploading, .stageFailed, .queued),
        (.uploading, .importStaged, .importing),
        (.queued, .download, .importing),
        (.importing, .stored, .active),
        (.importing, .importFailed, .queued),
        (.active, .deactivate, .deactivated),
        (.deactivated, .deactivate, .deactivated),
        (.deactivated, .reactivate, .active),
        (.active, .reactivate, .active),
    ]

    /// The state after `event`; nil if the event is not allowed.
    package func after(_ event: Event) -> ImageStatus? {
        ImageStatus.transitions.first { $0.from == self && $0.event == event }?.to
    }

    /// All states of OpenStack's API, which filters accept.
    package static let filterable: Set<String> = [
        "queued", "saving", "active", "killed", "deleted", "pending_delete", "deactivated", "uploading", "importing",
    ]
}

/// The projects that can see an image.
package enum ImageVisibility: String, Sendable, CaseIterable {
    /// Everyone can see and list it.
    case `public`
    /// Everyone can use it, but it is not in the default lists of others.
    case community
    /// The owner and the image's members can see it.
    case shared
    case `private`
}

/// The format of the data, as named in OpenStack.
package enum DiskFormat: String, Sendable, CaseIterable {
    case ami, ari, aki, vhd, vmdk, raw, qcow2, vdi, iso
    /// Not accepted for new images: a VHDX has its size in two places, and our parser cannot read all that QEMU reads.
    case vhdx

    /// The formats accepted for new images.
    package static let accepted = allCases.filter { $0 != .vhdx }
}

/// The container around the disk, as named in OpenStack.
package enum ContainerFormat: String, Sendable, CaseIterable {
    case ami, ari, aki, bare, ovf, ova, docker, compressed

    /// Whether the data is the disk itself, without a container.
    package var holdsBareDisk: Bool { ContainerFormats.bareDisks.contains(rawValue) }
}

/// A project's decision about an image that was shared with it.
package enum MemberStatus: String, Sendable, CaseIterable {
    case pending, accepted, rejected
}

/// Limits of images and their attributes.
package enum ImageLimits {
    package static let tagsMax = 128
    package static let tagLengthMax = 255
    package static let propertiesMax = 128
    package static let propertyNameLengthMax = 255
    /// Longest value of a property, in characters.
    package static let propertyValueLengthMax = 65_535
    package static let membersMax = 128
    package static let pageSizeMax = 1000
    package static let patchOperationsMax = 512
}
