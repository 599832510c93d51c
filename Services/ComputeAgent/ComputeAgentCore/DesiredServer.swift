package import Contracts
package import GuestKeys
package import JSON
package import Kernel

/// A one-time operation in addition to the desired state: done once per id, however often it arrives.
package struct ServerOperation: Sendable, Hashable {
    /// The kind of operation.
    package enum Kind: String, Sendable, Hashable, CaseIterable {
        case rebootSoft = "reboot-soft"
        case rebootHard = "reboot-hard"
        /// New disks from the image.
        case rebuild
        /// Boots the rescue system, or the server's own system again.
        case rescue, unrescue
        /// Changes the sizes of the disks, or restores the disks from before the change.
        case resize
        case resizeRevert = "resize-revert"
        /// With `absent`: removes the server completely, unless its guest has arrived from another host and runs.
        case withdraw
    }
    package let id: String
    package let kind: Kind
    /// Whether a rebuild keeps the ephemeral disk.
    package let preservesEphemeral: Bool
}

/// The image that a local root disk starts from.
package struct DesiredImage: Sendable, Hashable {
    package let id: String
    /// MD5 in hexadecimal, where the image has one.
    package let checksum: String?
    package let hashAlgorithm: String?
    package let contentHash: String?
    package let diskFormat: String
    /// Bytes; nil when unknown.
    package let size: Int?
    package let minDiskGiB: Int
    /// The claimed disk size if the flavor has none; nil from a control plane that does not send it.
    package let diskGiB: Int?
    /// Text properties of the image (`hw_machine_type`, …).
    package let properties: [String: String]
    /// Whether the root disk is a full copy of the image, not an overlay.
    package let isCopied: Bool
    /// The subject of the image download: the server's project, or the administrator who requested another project's image.
    package let subject: ActingSubject
}

/// The system that a rescued server boots.
package struct DesiredRescue: Sendable, Hashable {
    package enum Device: String, Sendable, Hashable { case disk, cdrom }
    package enum Bus: String, Sendable, Hashable { case virtio, scsi, sata, ide, usb }

    package let image: DesiredImage
    /// Whether the server's own disks keep their device names.
    package let isStable: Bool
    package let device: Device
    package let bus: Bus
}

/// How QEMU reaches a volume.
package enum VolumeConnection: Sendable, Hashable {
    case file(path: String, format: String, readOnly: Bool)
    case nbd(host: String, port: Int, export: String)
}

/// A volume that belongs into the server.
package struct DesiredVolume: Sendable, Hashable {
    package let volumeID: String
    package let attachmentID: String
    /// The target name (`vdb`) without `/dev/`.
    package let device: String
    /// 0: the server boots from it.
    package let bootIndex: Int?
    package let connection: VolumeConnection
    /// Whether other guests may use it at the same time.
    package let isShared: Bool
    /// The least size of its disk; nil if the control plane does not send it.
    package let sizeGiB: Int?
}

extension DesiredVolume {
    /// The file of the volume.
    package var path: String? { if case .file(let path, _, _) = connection { path } else { nil } }

    /// The file with the size that it must have at least; nil for a volume that this host does not extend.
    package var extended: ExchangedVolume? {
        guard let sizeGiB, case .file(let path, let format, false) = connection else { return nil }
        return ExchangedVolume(path: path, format: format, bytes: sizeGiB << 30)
    }
}

/// An address of a port.
package struct DesiredAddress: Sendable, Hashable {
    package let address: IPAddress
    package let subnetID: String?
    package let cidr: IPNetwork
    package let gateway: IPAddress?
}

/// The network's own port on every hypervisor, behind which its metadata answers.
package struct MetadataPort: Sendable, Hashable {
    package let id: String
    package let mac: MACAddress
    package let fixedIPs: [DesiredAddress]
}

/// A network interface of the server.
package struct DesiredPort: Sendable, Hashable {
    package let id: String
    package let networkID: String
    package let mac: MACAddress
    /// Bytes.
    package let mtu: Int
    package let fixedIPs: [DesiredAddress]
    package let metadataPort: MetadataPort?
    package let tag: String?
    /// Whether port security is enabled: router advertisements from the guest are then dropped.
    package let isSecured: Bool

    /// The tap's name: `tap` and the first eleven characters of the port's id (a name has at most 15).
    package var tapName: String { "tap" + id.prefix(11) }
}

/// A file that the guest finds on its config drive and in its metadata.
package struct DesiredFile: Sendable, Hashable {
    /// Path inside the guest. It is never used as a path on the host.
    package let path: String
    package let contents: [UInt8]
}

/// The complete desired state of a server.
package struct DesiredServer: Sendable, Hashable {
    package let id: String
    package let name: String
    package let projectID: String
    package let userID: String
    /// Grows with every change of the desired state.
    package let generation: Int
    /// Incremented with every lease of the server's workflow; a message with a lower epoch comes from a former holder.
    package let epoch: Int
    package let power: DesiredPower
    package let operation: ServerOperation?
    /// Long-running work beside the desired state.
    package let jobs: [ServerJob]
    package let vcpus: Int
    package let memoryMiB: Int
    package let rootGiB: Int
    package let ephemeralGiB: Int
    package let swapMiB: Int
    package let extraSpecs: [String: String]
    package let image: DesiredImage?
    /// Text properties of the image, or of the image from which the boot volume was created.
    package let imageProperties: [String: String]
    /// Whether the hardware requested by flavor and image was checked.
    package let isHardwareChecked: Bool
    /// Nil for a server that boots its own system.
    package let rescue: DesiredRescue?
    /// Whether copies of disks that a resize has changed are kept for its reversal.
    /// With `absent`: whether the disks stay.
    package let keepsDisks: Bool
    /// The images with the content of the server's disks on its previous host.
    package let diskSources: [ServerSpec.LocalDisk: DesiredImage]
    package internal(set) var volumes: [DesiredVolume]
    package let ports: [DesiredPort]
    /// The complete `meta_data.json`.
    package let metadata: JSONObject
    package let networkData: JSONObject
    /// Decoded.
    package let userData: [UInt8]?
    /// Files that the guest finds at its first start.
    package let files: [DesiredFile]
    package let configDrive: Bool
    package let hostname: String
    /// The password that the guest posted to the metadata service; nil if there is none.
    package let guestPassword: String?
    /// The server's floating IPs.
    package let floatingIPs: [IPAddress]
    /// The names of its ports' security groups.
    package let securityGroups: [String]
    /// `<cpu>` elements of the hosts that the guest must be able to move to; if empty, the guest gets this host's configured processor.
    package let processorDefinitions: [String]
    /// The message as received, for the state file.
    package let source: JSONValue
}

extension DesiredServer {
    /// The hardware that flavor and image select.
    package var hardware: GuestHardware {
        GuestHardware(specs: extraSpecs, properties: imageProperties, isChecked: isHardwareChecked)
    }

    /// Whether the root disk is a local file based on the image and not a volume.
    package var hasLocalRoot: Bool { image != nil && !volumes.contains { $0.bootIndex == 0 } }

    /// The image that a local root disk is created from.
    package var rootSource: DesiredImage? { diskSources[.root] ?? image }

    /// The images that exist only to create this server's disks. The image of a shelved server is not one of them, because its owner can
    /// create other servers from it.
    package var ownImages: [DesiredImage] { power == .expected ? [] : Array(diskSources.values) }

    /// The old and the new volume of a swap; nil if the server does not have the old one.
    ///
    /// - Throws: `FormError` for a connection that cannot be read.
    package func replacement(_ order: ServerJob.VolumeSwap) throws(FormError) -> (old: DesiredVolume, new: DesiredVolume)? {
        guard let old = volumes.first(where: { $0.volumeID == order.volumeID }) else { return nil }
        let new = try DesiredVolume(order.replacement, FormRules("replacement"))
        return (
            old,
            DesiredVolume(
                volumeID: new.volumeID, attachmentID: new.attachmentID, device: old.device, bootIndex: old.bootIndex,
                connection: new.connection, isShared: new.isShared, sizeGiB: new.sizeGiB)
        )
    }

    /// The file of the new volume of a swap; nil if the order cannot be carried out.
    ///
    /// - Throws: as `replacement`.
    package func exchanged(_ order: ServerJob.VolumeSwap) throws(FormError) -> ExchangedVolume? {
        guard let new = try replacement(order)?.new, case .file(let path, let format, false) = new.connection else { return nil }
        return ExchangedVolume(path: path, format: format, bytes: order.sizeGiB << 30)
    }

    /// The server after the swaps that are complete on its host. The control plane does not know of them yet.
    ///
    /// - Throws: as `replacement`.
    package func exchanging(_ record: LocalServerRecord) throws(FormError) -> DesiredServer {
        var server = self
        for job in jobs {
            guard let order = job.swap, record.jobs.contains(where: { $0.id == job.id && $0.state == .done }),
                let (old, new) = try replacement(order), let index = server.volumes.firstIndex(of: old)
            else { continue }
            server.volumes[index] = new
        }
        return server
    }

    /// The job that takes the guest to another host; nil if it stays.
    package var move: ServerJob? { jobs.first { $0.migration != nil && $0.kind == ServerJob.migrate } }
}
