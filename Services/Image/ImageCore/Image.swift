import ImageFormat
import JSON
import Kernel

/// Marker for the ids of images.
package enum ImageKind {}
package typealias ImageID = ID<ImageKind>

/// An image's record, as the store keeps it.
package struct Image: Sendable, Hashable {
    package var id: ImageID
    /// The project that owns it.
    package var owner: String
    package var name: String?
    package var status: ImageStatus
    package var visibility: ImageVisibility
    package var diskFormat: DiskFormat?
    package var containerFormat: ContainerFormat?
    /// GB that a root disk must have at least.
    package var minDisk: Int
    /// MiB of memory that a server must have at least.
    package var minRAM: Int
    /// Bytes of the stored data; nil before there is any.
    package var size: Int?
    /// Bytes of the disk that a guest sees.
    package var virtualSize: Int?
    /// MD5, in hexadecimal digits.
    package var checksum: String?
    package var hashValue512: String?
    package var isProtected: Bool
    package var isHidden: Bool
    package var tags: [String]
    /// Free properties: names to texts.
    package var properties: JSONObject
    /// The stored data; nil before there is any.
    package var fileID: String?

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

/// Where an image is in its life.
package enum ImageStatus: String, Sendable, CaseIterable {
    /// Registered, without data.
    case queued
    /// Data is being received.
    case saving
    case active
    /// Has data that only administrators may read.
    case deactivated

    /// What happens to an image.
    package enum Event: String, Sendable, CaseIterable {
        case upload, stored, uploadFailed, deactivate, reactivate
    }

    /// All transitions there are; deleting is possible from every state.
    package static let transitions: [(from: ImageStatus, event: Event, to: ImageStatus)] = [
        (.queued, .upload, .saving),
        (.saving, .stored, .active),
        (.saving, .uploadFailed, .queued),
        (.active, .deactivate, .deactivated),
        (.deactivated, .deactivate, .deactivated),
        (.deactivated, .reactivate, .active),
        (.active, .reactivate, .active),
    ]

    /// The state after `event`; nil where it cannot happen.
    package func after(_ event: Event) -> ImageStatus? {
        ImageStatus.transitions.first { $0.from == self && $0.event == event }?.to
    }

    /// Every word that OpenStack knows for the state of an image: what a filter may ask for.
    package static let filterable: Set<String> = [
        "queued", "saving", "active", "killed", "deleted", "pending_delete", "deactivated", "uploading", "importing",
    ]
}

/// Who sees an image.
package enum ImageVisibility: String, Sendable, CaseIterable {
    /// Everybody's, in everybody's list.
    case `public`
    /// Everybody's, not in others' lists.
    case community
    /// The owner's and its members'.
    case shared
    case `private`
}

/// What the data is, as OpenStack names it.
package enum DiskFormat: String, Sendable, CaseIterable {
    case ami, ari, aki, vhd, vmdk, raw, qcow2, vdi, iso
    /// No new images have it: two places of a VHDX say what the disk is, and we cannot read all that QEMU reads.
    case vhdx

    /// What new images may have.
    package static let accepted = allCases.filter { $0 != .vhdx }
}

/// What is around the disk, as OpenStack names it.
package enum ContainerFormat: String, Sendable, CaseIterable {
    case ami, ari, aki, bare, ovf, ova, docker, compressed

    /// Whether the data is the disk itself, and not a package around it.
    package var holdsBareDisk: Bool { ContainerFormats.bareDisks.contains(rawValue) }
}

/// A project's word on an image that was shared with it.
package enum MemberStatus: String, Sendable, CaseIterable {
    case pending, accepted, rejected
}

/// Limits of images and their parts.
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
